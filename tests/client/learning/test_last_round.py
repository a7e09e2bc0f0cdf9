"""Masks are made once: a site knows the last round that it took part in, and what the time is."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmunkey.client.learning.last_round import LastRound
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidProof


def begun(seconds: float = 0.0, tail: str = "a") -> str:
    """Return the id of a round that began so long after now."""
    return f"{time.time_ns() + int(seconds * 1e9)}-{tail}"


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    return SiteFolder(tmp_path)


def note_of(folder: SiteFolder) -> Path:
    return folder.path / "last-round.json"


def test_round_that_was_noted_is_read_back_and_its_owners_only(folder: SiteFolder) -> None:
    note = LastRound(begun(), 7, 3, 41, "ab")

    note.write(folder)

    assert LastRound.read(folder) == note
    assert stat.S_IMODE(note_of(folder).stat().st_mode) == 0o600


def test_masks_are_never_made_twice(folder: SiteFolder) -> None:
    first = begun(-5)
    LastRound.read(folder).check_next(first)
    LastRound(first, 0).write(folder)

    digits = first.partition("-")[0]
    for again in (first, f"{digits}-another", digits, begun(-5.5), begun(-400)):
        with pytest.raises(InvalidProof, match="repeats an earlier one"):
            LastRound.read(folder).check_next(again)
    LastRound.read(folder).check_next(begun(-1))
    LastRound.read(folder).check_next(f"{int(digits) + 1}-next")


@pytest.mark.parametrize("seconds", [-601.0, -1e6, 601.0, 1e6])
def test_round_of_another_time_is_refused_even_where_no_other_is_known(folder: SiteFolder, seconds: float) -> None:
    with pytest.raises(InvalidProof, match="600 s before or after this machine's time; check both machines' clocks"):
        LastRound.read(folder).check_next(begun(seconds))


@pytest.mark.parametrize("seconds", [-590.0, 0.0, 590.0])
def test_clocks_may_be_some_minutes_apart_and_looking_notes_nothing(folder: SiteFolder, seconds: float) -> None:
    before = LastRound.read(folder)

    before.check_next(begun(seconds))

    assert LastRound.read(folder) == before


@pytest.mark.parametrize("round_id", ["", "-", "abc-1", "-5-a", "1.5e18-a", "١٢٣-a", "9" * 21 + "-a", " 17-a"])
def test_round_without_a_time_is_refused(folder: SiteFolder, round_id: str) -> None:
    with pytest.raises(InvalidProof, match="no id that masks could be made for"):
        LastRound.read(folder).check_next(round_id)


def lose(note: Path) -> None:
    note.unlink()


def cut(note: Path) -> None:
    note.write_bytes(note.read_bytes()[:-9])


def garble(note: Path) -> None:
    note.write_bytes(b"\xff\x00")


def written(text: str) -> Callable[[Path], object]:
    return lambda note: note.write_text(text)


@pytest.mark.parametrize(
    "spoil",
    [
        lose,
        cut,
        garble,
        written("[]"),
        written("null"),
        written("{}"),
        written('{"round": "1-a", "last-order": null}'),
        written('{"round": "1-a", "last-order": 1e999}'),
    ],
)
def test_note_that_is_lost_lets_the_next_round_begin_and_nothing_old(
    folder: SiteFolder, spoil: Callable[[Path], object]
) -> None:
    LastRound(begun(-2), 3).write(folder)

    spoil(note_of(folder))

    assert LastRound.read(folder) == LastRound()
    LastRound.read(folder).check_next(begun())
    with pytest.raises(InvalidProof, match="clocks"):
        LastRound.read(folder).check_next(begun(-3600))


def test_answers_are_counted_for_the_rounds_own_records_and_one_set_of_weights(folder: SiteFolder) -> None:
    round_id = begun()
    note = LastRound(round_id, 0, 3, 41)
    note.check_tally(round_id, (3, 41), "ab")
    LastRound(round_id, 0, 3, 41, "ab").check_tally(round_id, (3, 41), "ab")
    for other, records in ((begun(1), (3, 41)), (round_id, (4, 41)), (round_id, (3, 40))):
        with pytest.raises(InvalidProof, match="other records than this round's sums"):
            note.check_tally(other, records, "ab")
    with pytest.raises(InvalidProof, match="counts of other weights than before"):
        LastRound(round_id, 0, 3, 41, "ab").check_tally(round_id, (3, 41), "cd")
    with pytest.raises(InvalidProof, match="other records"):
        LastRound.read(folder).check_tally(round_id, (3, 41), "ab")
