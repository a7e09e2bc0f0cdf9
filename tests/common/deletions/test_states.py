from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmunkey.common.deletions.states import REQUEST_MOVES, SITE_MOVES, RequestState, SiteState, check_move
from fedmunkey.common.errors import IllegalMove

PENDING, DELIVERED, ERASED, NOTHING_HELD, REFUSED, LEFT = SiteState


def test_sites_that_are_awaited_are_neither_done_nor_gone() -> None:
    assert [state for state in SiteState if not state.final] == [PENDING, DELIVERED]
    assert [state for state in SiteState if state.answered] == [ERASED, NOTHING_HELD, REFUSED]


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ([], RequestState.DISPATCHED),
        ([PENDING], RequestState.DISPATCHED),
        ([DELIVERED], RequestState.DISPATCHED),
        ([ERASED, PENDING], RequestState.DISPATCHED),
        ([REFUSED, PENDING], RequestState.DISPATCHED),
        ([LEFT, DELIVERED], RequestState.DISPATCHED),
        ([ERASED], RequestState.COMPLETED),
        ([NOTHING_HELD, NOTHING_HELD], RequestState.COMPLETED),
        ([ERASED, NOTHING_HELD], RequestState.COMPLETED),
        ([ERASED, REFUSED], RequestState.PARTIAL),
        ([REFUSED, NOTHING_HELD], RequestState.PARTIAL),
        ([ERASED, LEFT], RequestState.PARTIAL),
        ([LEFT], RequestState.PARTIAL),
        ([REFUSED, LEFT], RequestState.PARTIAL),
        ([REFUSED], RequestState.REFUSED),
        ([REFUSED, REFUSED], RequestState.REFUSED),
    ],
)
def test_request_state_follows_from_its_sites(sites: list[SiteState], expected: RequestState) -> None:
    assert RequestState.of(sites) is expected


@pytest.mark.parametrize("sites", list(itertools.combinations_with_replacement(SiteState, 3)))
def test_request_is_final_if_no_site_is_awaited_and_completed_if_every_site_did_what_was_asked(
    sites: tuple[SiteState, ...],
) -> None:
    state = RequestState.of(sites)

    assert state.final is not bool({PENDING, DELIVERED} & set(sites))
    assert (state is RequestState.COMPLETED) is ({*sites} <= {ERASED, NOTHING_HELD})


def test_every_state_says_where_it_may_go() -> None:
    assert set(REQUEST_MOVES) == set(RequestState)
    assert set(SITE_MOVES) == set(SiteState)


def test_an_answer_stands_for_good() -> None:
    assert [state for state in SiteState if not SITE_MOVES[state]] == [ERASED, NOTHING_HELD, REFUSED]


def test_every_state_can_be_reached_and_comes_to_an_end() -> None:
    reached = {RequestState.RECEIVED}
    for _ in RequestState:
        reached |= {after for before in reached for after in REQUEST_MOVES[before]}
    assert reached == set(RequestState)
    for state in RequestState:
        ahead = {state}
        for _ in RequestState:
            ahead |= {after for before in ahead for after in REQUEST_MOVES[before]}
        assert RequestState.COMPLETED in ahead


@given(before=st.sampled_from([*RequestState, *SiteState]), after=st.sampled_from([*RequestState, *SiteState]))
def test_move_that_is_not_in_the_table_is_refused(
    before: RequestState | SiteState, after: RequestState | SiteState
) -> None:
    legal = REQUEST_MOVES[before] if isinstance(before, RequestState) else SITE_MOVES[before]

    # `refused` is a word of both, and means another thing in each.
    if type(before) is type(after) and after in legal:
        check_move(before, after)
    else:
        with pytest.raises(IllegalMove, match=f"{before.value}.*cannot become.*{after.value}"):
            check_move(before, after)
