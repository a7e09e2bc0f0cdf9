from __future__ import annotations

import logging
from itertools import islice

import pytest

from fedmunkey.common.errors import InvalidDeletion, ServiceUnavailable
from fedmunkey.common.service.waiting import jitter, pauses, wait_for_service


class Service:
    """Cannot be reached a number of times, then answers."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise ServiceUnavailable(f"no answer to call {self.calls}")
        return "answer"


def test_pauses_double_up_to_a_limit() -> None:
    assert list(islice(pauses(), 8)) == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


def test_pauses_are_drawn_between_nothing_and_that() -> None:
    limits: list[tuple[float, float]] = []

    def middle(low: float, high: float) -> float:
        limits.append((low, high))
        return (low + high) / 2

    assert list(islice(pauses(middle), 4)) == [0.125, 0.25, 0.5, 1.0]
    assert limits == [(0, 0.25), (0, 0.5), (0, 1.0), (0, 2.0)]


def test_jitter_spreads_sites_that_lost_their_connection_at_once() -> None:
    third = [list(islice(pauses(jitter(site)), 5))[4] for site in range(1000)]

    assert list(islice(pauses(jitter(7)), 5)) == list(islice(pauses(jitter(7)), 5))
    assert all(0 <= pause <= 4 for pause in third)
    # A thousand sites over four seconds: no tenth of the time has more than a fifth of them.
    assert max(sum(low <= pause < low + 0.4 for pause in third) for low in [0.4 * n for n in range(10)]) < 200


def test_service_that_answers_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    waits: list[float] = []

    assert wait_for_service(Service(0), patience=0, wait=waits.append) == "answer"
    assert waits == []
    assert caplog.records == []


def test_waiting_ends_with_the_answer_and_says_why_it_lasted(caplog: pytest.LogCaptureFixture) -> None:
    waits: list[float] = []
    said: list[str] = []

    with caplog.at_level(logging.WARNING):
        answer = wait_for_service(Service(4), patience=60, wait=waits.append, on_wait=said.append)

    assert answer == "answer"
    assert waits == [0.25, 0.5, 1.0, 2.0]
    assert said == [record.getMessage() for record in caplog.records]
    assert said[0] == "no answer to call 1; no training until it answers (waited 0 of 60 s)"
    assert said[3] == "no answer to call 4; no training until it answers (waited 2 of 60 s)"


@pytest.mark.parametrize("patience", [0.0, 0.1, 2.0, 100.0])
def test_waiting_ends_when_patience_does_after_one_last_attempt(patience: float) -> None:
    service, waits = Service(1000), list[float]()

    with pytest.raises(ServiceUnavailable, match=r"^no answer to call \d+$"):
        wait_for_service(service, patience=patience, wait=waits.append)

    assert sum(waits) == pytest.approx(patience)
    assert service.calls == len(waits) + 1


def test_refusal_is_not_waited_for() -> None:
    def refuse() -> None:
        raise InvalidDeletion("no such site")

    with pytest.raises(InvalidDeletion):
        wait_for_service(refuse, patience=60, wait=lambda _: pytest.fail("waited"))
