"""What is remembered of deleted bytes stays small, and is drawn evenly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedmunkey.client.key_store import residue
from fedmunkey.client.key_store.residue import WINDOW, Residue, fingerprint, search_file, spread

KEY = bytes(range(32))
KINDS = (Residue.KEY, Residue.TOKEN, Residue.SEALED_KEY, Residue.SEALED_TOKEN)


def contents(records: int) -> Iterator[tuple[Residue, bytes]]:
    """Yield one window of each kind for each record."""
    draw = np.random.default_rng(0)
    for _ in range(records):
        for kind in KINDS:
            yield kind, draw.permutation(256).astype(np.uint8).tobytes()[:WINDOW]


def test_of_many_windows_an_even_draw_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residue, "_MOST_WINDOWS", 400)
    (tmp_path / "everything").write_bytes(b"".join(content for _, content in contents(1000)))

    remembered, total = fingerprint(KEY, contents(1000))
    found = list(search_file(tmp_path / "everything", KEY, remembered))

    assert total == 4000
    assert len(found) == 400
    # A draw that kept step with the records would leave kinds out.
    assert all(60 < count < 140 for count in Counter(one.what for one in found).values())
    assert len({one.what for one in found}) == len(KINDS)
    quarters = Counter(one.offset * 4 // (4000 * WINDOW) for one in found)
    assert all(60 < quarters[quarter] < 140 for quarter in range(4))


def test_nothing_is_remembered_of_nothing() -> None:
    assert fingerprint(KEY, iter(())) == (b"", 0)


def test_spread_is_even_and_takes_all_where_it_can() -> None:
    assert spread(range(3), 4) == range(3)
    assert list(spread(range(10), 5)) == [0, 2, 4, 6, 8]
    assert list(spread(range(7), 3)) == [0, 2, 4]
