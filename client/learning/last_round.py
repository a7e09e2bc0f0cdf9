"""What a site remembers of the last round that it contributed to: its masks are never made twice."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.private_files import replace_file

_FILE = "last-round.json"
_CLOCKS_APART = 600.0
"""Seconds by which a round's time may differ from the site's clock."""


@dataclass(frozen=True)
class LastRound:
    """Which round that was, and the last order that was carried out before.

    A round's id begins with the time at which it began, in nanoseconds. `counted` says whether the site has sent its
    tallies as well.
    """

    round_id: str = ""
    last_order: int = 0
    counted: bool = False

    @classmethod
    def read(cls, folder: SiteFolder) -> LastRound:
        """Return what the site's folder says; no round if it says nothing."""
        try:
            said = json.loads((folder.path / _FILE).read_text(encoding="utf-8"))
            return cls(str(said["round"]), int(said["last-order"]), bool(said.get("counted", True)))
        except (OSError, ValueError, OverflowError, KeyError, TypeError):
            return cls()

    def write(self, folder: SiteFolder) -> None:
        """Bring it to the disk."""
        content = json.dumps({"round": self.round_id, "last-order": self.last_order, "counted": self.counted})
        replace_file(folder.path / _FILE, f"{content}\n".encode(), 0o600)

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

    def check_counting(self, round_id: str) -> None:
        """Check that masks of a round's tallies were never made; raises `InvalidProof` if they may have been.

        Of two tallies under one mask the difference would be this site's own.
        """
        if round_id != self.round_id:
            raise InvalidProof("this site has sent no sums in this round, so it counts nothing in it; begin another")
        if self.counted:
            raise InvalidProof("this round has been counted, and its masks must not be used again; begin another")


def _started(round_id: str) -> int | None:
    digits = round_id.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else None
