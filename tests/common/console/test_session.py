from __future__ import annotations

import pytest

from fedmunkey.common.console.session import (
    IDLE_SECONDS,
    LINK_SECONDS,
    MOST_SESSIONS,
    MOST_TRIES,
    SESSION_SECONDS,
    TRY_SECONDS,
    Doorway,
    Session,
    TooManyTriesError,
    Viewer,
)
from fedmunkey.common.deletions.words import OFFICER
from fedmunkey.common.service.channel import DeletionChannel

VIEWER = Viewer(OFFICER, OFFICER, DeletionChannel("127.0.0.1:1"))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def doorway(clock: Clock) -> Doorway:
    return Doorway(clock=clock)


def test_link_opens_one_session_once(doorway: Doorway) -> None:
    token = doorway.new_link()

    name = doorway.open(token, VIEWER)

    assert name is not None
    assert doorway.find(name) is not None
    assert doorway.open(token, VIEWER) is None


def test_link_is_good_for_a_while_and_until_the_next_one(doorway: Doorway, clock: Clock) -> None:
    late = doorway.new_link()
    clock.now += LINK_SECONDS + 1
    assert doorway.open(late, VIEWER) is None

    before = doorway.new_link()
    after = doorway.new_link()
    assert doorway.open(before, VIEWER) is None
    assert doorway.open(after, VIEWER) is not None


def test_who_tries_too_often_is_not_heard_for_a_while(doorway: Doorway, clock: Clock) -> None:
    token = doorway.new_link()
    for number in range(MOST_TRIES):
        assert doorway.open(f"wrong-{number}", VIEWER) is None

    with pytest.raises(TooManyTriesError):
        doorway.open(token, VIEWER)
    clock.now += TRY_SECONDS
    assert doorway.open(token, VIEWER) is not None


@pytest.mark.parametrize(("step", "most"), [(IDLE_SECONDS - 1, SESSION_SECONDS), (IDLE_SECONDS + 1, 0.0)])
def test_session_ends_when_it_is_left_alone_and_in_any_case_one_day(
    doorway: Doorway, clock: Clock, step: float, most: float
) -> None:
    name = doorway.open(doorway.new_link(), VIEWER) or ""
    begun = clock.now
    while True:
        clock.now += step
        if doorway.find(name) is None:
            break

    assert clock.now - begun > most


def test_page_that_looks_again_by_itself_keeps_no_session(doorway: Doorway, clock: Clock) -> None:
    name = doorway.open(doorway.new_link(), VIEWER) or ""
    clock.now += IDLE_SECONDS - 1
    assert doorway.find(name, acts=False) is not None
    clock.now += 2

    assert doorway.find(name) is None


def test_ended_session_is_gone_and_said_once(clock: Clock) -> None:
    closed: list[int] = []
    doorway = Doorway(clock=clock, on_closed=lambda: closed.append(1))
    name = doorway.open(doorway.new_link(), VIEWER) or ""

    doorway.close(name)
    doorway.close(name)

    assert doorway.find(name) is None
    assert closed == [1]


def test_notices_are_shown_once_and_drafts_are_few() -> None:
    session = Session(VIEWER, "token", 0.0, 0.0)
    session.say("good", "done")
    assert session.take_notices() == [("good", "done")]
    assert session.take_notices() == []

    names = [session.keep(number) for number in range(30)]
    assert len(set(names)) == 30
    assert list(session.drafts.values()) == list(range(10, 30))


def test_one_session_too_many_ends_the_viewers_oldest(doorway: Doorway) -> None:
    other = Viewer("hospital-1", "hospital-1", VIEWER.service)
    names = [doorway.admit(viewer) for viewer in [other] + [VIEWER] * (MOST_SESSIONS + 1)]

    assert [doorway.find(name) is not None for name in names] == [True, False, *[True] * MOST_SESSIONS]


def test_sessions_that_nobody_comes_back_to_are_forgotten(doorway: Doorway, clock: Clock) -> None:
    for number in range(100):
        doorway.admit(Viewer(f"site-{number}", f"site-{number}", VIEWER.service))
    clock.now += IDLE_SECONDS + 1
    doorway.admit(VIEWER)

    assert len(doorway) == 1
