"""How often a SuperNode looks for messages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from flwr.supernode import start_client_internal as flower

from fedmunkey.client.supernode import supernode_program


def test_supernode_looks_more_often_while_a_round_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], list[float]()
    runs = iter([None, 7, None])
    monkeypatch.setattr(flower, "_pull_and_store_message", lambda **_: next(runs))
    monkeypatch.setattr(flower, "time", flower.time)  # type: ignore[attr-defined]
    clock: Any = SimpleNamespace(monotonic=lambda: now[0], sleep=slept.append)
    monkeypatch.setattr(supernode_program, "time", clock)
    supernode_program._look_often_in_rounds()

    for later in (0.0, 5.0, 5.0, 20.0):
        now[0] += later
        if later < 20.0:
            flower._pull_and_store_message()  # type: ignore[call-arg]
        flower.time.sleep(3)  # type: ignore[attr-defined]
        flower.time.sleep(0.5)  # type: ignore[attr-defined]

    assert slept == [3, 0.5, 1.0, 0.5, 1.0, 0.5, 3, 0.5]
