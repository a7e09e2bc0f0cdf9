"""What a site remembers of the last round that it contributed to: its masks are never made twice.

Two answers under the same masks would tell their difference, which is the site's own.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.private_files import replace_file

LAST_ROUND = "last-round.json"
_CLOCKS_APART = 600.0
"""Seconds by which a round's time may differ from the site's clock."""


@dataclass(frozen=True)
class LastRound:
    """Which round that was, the last order that was carried out before, and which records the sums were over.

    A round's id begins with the time at which it began, in nanoseconds. `tallied` is the digest of what the site has
    counted answers for. `instructed` is the site's position in holds and opt-outs before it contributed.
    """

    round_id: str = ""
    last_order: int = 0
    generation: int = -1
    last_entry: int = -1
    tallied: str = ""
    instructed: int = 0

    @classmethod
    def read(cls, folder: SiteFolder) -> LastRound:
        """Return what the site's folder says; no round if it says nothing."""
        try:
            said = json.loads((folder.path / LAST_ROUND).read_text(encoding="utf-8"))
            generation, last_entry = (int(said.get(name, -1)) for name in ("generation", "last-entry"))
            tallied = str(said.get("tallied", ""))
            instructed = int(said.get("instructed", 0))
            return cls(str(said["round"]), int(said["last-order"]), generation, last_entry, tallied, instructed)
        except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError):
            return cls()

    def write(self, folder: SiteFolder) -> None:
        """Bring it to the disk."""
        said = {
            "round": self.round_id,
            "last-order": self.last_order,
            "generation": self.generation,
            "last-entry": self.last_entry,
            "tallied": self.tallied,
            "instructed": self.instructed,
        }
        content = json.dumps(said)
        replace_file(folder.path / LAST_ROUND, f"{content}\n".encode(), 0o600)

    def check_next(self, round_id: str) -> None:
        """Check that masks were never made for another round's id; raises `InvalidProof` if they may have been.

        A site whose note is lost still refuses what is older than clocks may be apart.
        """
        started = _started(round_id)
        if started is None:
            raise InvalidProof("the round has no id that masks could be made for; ask its coordinator")
        if started <= (_started(self.round_id) or 0):
            raise InvalidProof("the round repeats an earlier one, whose masks must not be used again; begin another")
        if abs(started / 1e9 - time.time()) > _CLOCKS_APART:
            raise InvalidProof(
                f"the round began more than {_CLOCKS_APART:.0f} s before or after this machine's time; check both "
                "machines' clocks"
            )

    def check_release(self, round_id: str) -> None:
        """Check that weights are not those of a round before this one; raises `InvalidProof` if they are.

        Two programs may run rounds at once. What the site has erased between the two is in the earlier one's weights.
        """
        if (_started(round_id) or 0) < (_started(self.round_id) or 0):
            raise InvalidProof(
                "these weights are of an earlier round than the one that the site has last contributed to; those of "
                "the later one are on their way, or run another round"
            )

    def check_tally(self, round_id: str, records: tuple[int, int], asked: str) -> None:
        """Check that answers may be counted: for the round's own sums, and for one set of weights, by its digest.

        `records` are the generation and the last entry. Raises `InvalidProof` if they may not.
        """
        if round_id != self.round_id or records != (self.generation, self.last_entry):
            raise InvalidProof(
                "the coordinator asks for counts over other records than this round's sums were over; begin another"
            )
        if self.tallied not in ("", asked):
            raise InvalidProof(
                "the coordinator asks for counts of other weights than before in this round, and from both it could "
                "tell this site's own; begin another"
            )


def note_taken_part(folder: SiteFolder) -> None:
    """Leave a note in a site's folder that it has taken part in rounds, if there is none.

    Where masks are made, the note says of which round. A key store that is made anew beside any note knows that the
    folder was used before.
    """
    if not (folder.path / LAST_ROUND).exists():
        LastRound().write(folder)


def _started(round_id: str) -> int | None:
    digits = round_id.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else None
