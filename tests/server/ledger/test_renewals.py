"""Deletions under `exact` are whole once the shared weights were solved for without what was erased."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from fedmunkey.common.deletions.renewals import ReleasedWeights, RenewalNeed, SiteContribution, StillHeld
from fedmunkey.common.deletions.words import DeletionRequest, RequestState, SiteState
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.contributions import ReleaseNote
from fedmunkey.common.proofs.signing.canonical import parse_canonical
from fedmunkey.server.ledger.due import DUE_DAYS
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.transparency_log.leaves import LeafKind
from fedmunkey.server.transparency_log.log import TransparencyLog
from tests.proof_case import LOG
from tests.releases import give
from tests.server.ledger.ledger_contract import ANSWER, CERTIFIED, NOON, REQUEST, Clock, own_site

DIGEST = "ab" * 32
FIRST = replace(ANSWER, guarantee=Guarantee.EXACT)
SECOND = replace(FIRST, site="hospital-2")
RENEW = timedelta(days=3)


@pytest.fixture
def ledger(database: str, clock: Clock) -> Iterator[Ledger]:
    """A ledger with two sites whose weights were solved for once."""
    with Ledger(database, clock=clock, renew=RENEW) as ledger:
        for site in ("hospital-1", "hospital-2"):
            ledger.register(site)
        give(ledger, released({"hospital-1": 0, "hospital-2": 0}))
        yield ledger


def released(orders: dict[str, int], digest: str = DIGEST) -> ReleasedWeights:
    return ReleasedWeights(digest, 100, 0, tuple(SiteContribution(site, last, b"") for site, last in orders.items()))


def carried_out(ledger: Ledger, request_id: str = "request-1", number: int = 1) -> datetime:
    """Have both sites erase what a request names; return when the first said so."""
    ledger.enter(replace(REQUEST, request_id=request_id))
    for answer in (FIRST, SECOND):
        ledger.acknowledge(replace(answer, request_id=request_id, number=number))
    at = ledger.status(request_id).sites[0].acknowledged_at
    assert at is not None
    return at


def ways(ledger: Ledger, request_id: str = "request-1") -> list[str]:
    """Return the states that a request has gone through, from the one in which sites had their orders."""
    return [move.after for move in ledger.history(request_id) if not move.site][2:]


def test_request_is_erased_until_weights_without_it_are_released(ledger: Ledger) -> None:
    at = carried_out(ledger)

    waits = ledger.status("request-1")
    need = ledger.renewal_need()
    give(ledger, released({"hospital-1": 1, "hospital-2": 1}, "cd" * 32))

    assert (waits.state, waits.renew_by, waits.renewal_owed) == (RequestState.ERASED, at + RENEW, True)
    assert need == RenewalNeed(4, at + RENEW, 100)
    status = ledger.status("request-1")
    assert (status.state, status.renewal_owed, status.renew_by) == (RequestState.COMPLETED, False, at + RENEW)
    assert ways(ledger) == ["dispatched", "erased", "completed"]
    assert ledger.history("request-1")[-1].reason == "the shared weights were renewed: cdcdcdcdcdcdcdcd"
    assert ledger.renewal_need() == RenewalNeed(0, None, 100)


def test_request_waits_until_every_site_that_took_part_has_the_weights(ledger: Ledger, clock: Clock) -> None:
    """A round may die before it has given them out, or a site while it is given them."""
    renewed = released({"hospital-1": 1, "hospital-2": 1}, "cd" * 32)
    at = carried_out(ledger)

    ledger.note_release(renewed)
    solved = clock()
    states = [ledger.status("request-1").state]
    lacking = [ledger.note_given_out(renewed.digest, sites) for sites in ((), ("hospital-2", "hospital-3"))]
    states.append(ledger.status("request-1").state)
    need = ledger.renewal_need()
    lacking.append(ledger.note_given_out(renewed.digest, ("hospital-1", "hospital-2")))

    assert states == [RequestState.ERASED, RequestState.ERASED]
    assert lacking == [("hospital-1", "hospital-2"), ("hospital-1",), ()]
    assert (need.entries, need.renew_by, need.records, need.others) == (4, at + RENEW, 100, (StillHeld(0, 100),))
    assert need.solved_at is not None
    assert need.solved_at <= solved
    assert ledger.status("request-1").state is RequestState.COMPLETED
    assert ledger.renewal_need() == RenewalNeed(0, None, 100)


def test_round_without_the_site_that_lacks_weights_completes_what_waited(ledger: Ledger) -> None:
    carried_out(ledger)
    ledger.note_release(released({"hospital-1": 1, "hospital-2": 1}, "cd" * 32))
    ledger.note_given_out("cd" * 32, ["hospital-2"])

    give(ledger, released({"hospital-2": 1}, "ef" * 32))

    assert ledger.status("request-1").state is RequestState.COMPLETED
    assert ledger.renewal_need().solved_at is None


def test_site_that_left_does_not_keep_requests_waiting(ledger: Ledger) -> None:
    carried_out(ledger)
    ledger.note_release(released({"hospital-1": 1, "hospital-2": 1}, "cd" * 32))
    ledger.remove("hospital-1", "it has closed")

    assert ledger.note_given_out("cd" * 32, ["hospital-2"]) == ()
    assert ledger.renewal_need().solved_at is None


def test_what_is_erased_while_weights_are_given_out_is_owed(database: str) -> None:
    """Those of the very first round as well: no site has any before them."""
    with Ledger(database) as ledger:
        for site in ("hospital-1", "hospital-2"):
            ledger.register(site)
        ledger.note_release(released({"hospital-1": 0, "hospital-2": 0}))

        carried_out(ledger)
        states = [ledger.status("request-1").state]
        ledger.note_given_out(DIGEST, ["hospital-1", "hospital-2"])
        states.append(ledger.status("request-1").state)

    assert states == [RequestState.ERASED, RequestState.ERASED]


def test_weights_that_were_not_released_cannot_be_given_out(ledger: Ledger) -> None:
    with pytest.raises(InvalidDeletion, match="the ledger has no release of weights 9999999999999999"):
        ledger.note_given_out("9" * 64, ["hospital-1"])


def test_release_is_in_the_log_with_who_took_part(ledger: Ledger) -> None:
    statement = SiteContribution("hospital-1", 0, b"signed")
    give(ledger, ReleasedWeights("ef" * 32, 7, 3, (statement, SiteContribution("hospital-2", 0, b""))))

    content = TransparencyLog(ledger.engine, LOG).content(LeafKind.RELEASE, "2")

    assert content is not None
    note = ReleaseNote.from_document(parse_canonical(content, "a leaf"))
    assert (note.release, note.changed) == ("ef" * 32, 3)
    assert {site: one is None for site, one in note.contributions.items()} == {"hospital-1": False, "hospital-2": True}


@pytest.mark.parametrize(
    "first",
    [
        replace(FIRST, entries=0),
        replace(FIRST, state=SiteState.NOTHING_HELD, records=0, entries=0),
        CERTIFIED,
        ANSWER,
    ],
    ids=["held out only", "nothing held", "certified", "empirical"],
)
def test_what_was_never_solved_with_is_completed_at_once(ledger: Ledger, first: object) -> None:
    ledger.enter(REQUEST)
    ledger.acknowledge(first)  # type: ignore[arg-type]
    ledger.acknowledge(replace(SECOND, state=SiteState.NOTHING_HELD, records=0, entries=0))

    status = ledger.status("request-1")
    assert (status.state, status.renew_by) == (RequestState.COMPLETED, None)
    assert ledger.renewal_need() == RenewalNeed(0, None, 100)


def test_before_the_first_release_nothing_is_owed(database: str, clock: Clock) -> None:
    with Ledger(database, clock=clock) as ledger:
        for site in ("hospital-1", "hospital-2"):
            ledger.register(site)
        carried_out(ledger)

        assert ledger.status("request-1").state is RequestState.COMPLETED
        assert ledger.renewal_need() == RenewalNeed(0, None, None)


def test_site_that_had_no_part_in_the_release_owes_nothing(ledger: Ledger) -> None:
    give(ledger, released({"hospital-2": 0}))
    ledger.enter(own_site("own"))
    ledger.acknowledge(replace(FIRST, request_id="own"))

    assert ledger.status("own").state is RequestState.COMPLETED


def test_answer_that_comes_after_the_release_it_was_erased_for_is_whole_at_once(ledger: Ledger) -> None:
    ledger.enter(REQUEST)
    ledger.acknowledge(FIRST)
    # The second has erased, and taken part, before the coordinator hears of it.
    give(ledger, released({"hospital-1": 1, "hospital-2": 1}))
    assert ledger.status("request-1").state is RequestState.DISPATCHED

    ledger.acknowledge(SECOND)

    assert ledger.status("request-1").state is RequestState.COMPLETED


def test_release_with_one_of_two_sites_left_to_follow_is_not_enough(ledger: Ledger) -> None:
    carried_out(ledger)

    give(ledger, released({"hospital-1": 1, "hospital-2": 0}))
    waits, entries = ledger.status("request-1").state, ledger.renewal_need().entries
    # What the second had is not in weights that it took no part in.
    give(ledger, released({"hospital-1": 1}))

    assert (waits, entries) == (RequestState.ERASED, 2)
    assert ledger.status("request-1").state is RequestState.COMPLETED


def test_several_requests_wait_each_for_its_own_orders(ledger: Ledger) -> None:
    first = carried_out(ledger)
    carried_out(ledger, "request-2", 2)
    need = ledger.renewal_need()

    give(ledger, released({"hospital-1": 1, "hospital-2": 1}))

    assert need == RenewalNeed(8, first + RENEW, 100)
    assert [ledger.status(f"request-{number}").state for number in (1, 2)] == [
        RequestState.COMPLETED,
        RequestState.ERASED,
    ]
    assert ledger.renewal_need().entries == 4


def test_late_request_is_still_renewed_in_time_and_completed(ledger: Ledger, clock: Clock) -> None:
    at = carried_out(ledger)
    clock.time += timedelta(days=DUE_DAYS)
    ledger.mark_overdue()
    late, need = ledger.status("request-1"), ledger.renewal_need()

    give(ledger, released({"hospital-1": 1, "hospital-2": 1}))

    assert (late.state, late.renewal_owed) == (RequestState.OVERDUE, True)
    assert need.renew_by == at + RENEW
    assert ways(ledger) == ["dispatched", "erased", "overdue", "completed"]


def test_late_request_that_is_erased_is_completed_after_it_was_given_time(ledger: Ledger, clock: Clock) -> None:
    carried_out(ledger)
    clock.time += timedelta(days=DUE_DAYS)
    ledger.mark_overdue()

    given = ledger.extend("request-1", 20, "the SuperLink is down")
    give(ledger, released({"hospital-1": 1, "hospital-2": 1}))

    assert given.state is RequestState.ERASED
    assert ways(ledger) == ["dispatched", "erased", "overdue", "due 2030-07-06", "erased", "completed"]


def test_request_that_became_late_before_its_last_answer_waits_for_the_weights_as_well(
    ledger: Ledger, clock: Clock
) -> None:
    ledger.enter(REQUEST)
    ledger.acknowledge(FIRST)
    clock.time += timedelta(days=DUE_DAYS)
    ledger.mark_overdue()

    ledger.acknowledge(SECOND)
    waits = ledger.status("request-1")
    give(ledger, released({"hospital-1": 1, "hospital-2": 1}))

    assert (waits.state, waits.renewal_owed) == (RequestState.OVERDUE, True)
    assert ways(ledger) == ["dispatched", "overdue", "completed"]


@pytest.mark.parametrize("refused", [True, False])
def test_what_one_site_erased_is_due_while_another_refuses_or_is_silent(ledger: Ledger, refused: bool) -> None:
    """The first site answers from the weights no longer than it has promised, whatever becomes of the request."""
    ledger.enter(REQUEST)
    ledger.acknowledge(FIRST)
    at = ledger.status("request-1").sites[0].acknowledged_at
    assert at is not None
    if refused:
        ledger.acknowledge(
            replace(SECOND, state=SiteState.REFUSED, records=0, entries=0, reason="its signature is unknown")
        )

    assert ledger.renewal_need() == RenewalNeed(2, at + RENEW, 100)
    status = ledger.status("request-1")
    assert (status.state, status.renew_by, status.renewal_owed) == (
        (RequestState.PARTIAL, at + RENEW, False) if refused else (RequestState.DISPATCHED, None, False)
    )


def test_site_that_comes_back_owes_anew_from_then_on(ledger: Ledger, clock: Clock) -> None:
    ledger.remove("hospital-2")
    ledger.enter(REQUEST)
    ledger.acknowledge(FIRST)
    give(ledger, released({"hospital-1": 1, "hospital-2": 0}))
    clock.time += timedelta(days=20)
    ledger.register("hospital-2")
    ledger.acknowledge(SECOND)

    status = ledger.status("request-1")
    at = status.sites[1].acknowledged_at
    assert at is not None
    assert (status.state, status.renew_by) == (RequestState.ERASED, at + RENEW)
    give(ledger, released({"hospital-1": 1, "hospital-2": 1}))
    assert ledger.status("request-1").state is RequestState.COMPLETED


def test_site_that_left_after_it_erased_is_out_of_weights_without_it(ledger: Ledger) -> None:
    carried_out(ledger)
    ledger.remove("hospital-2")
    waits = ledger.status("request-1").state

    give(ledger, released({"hospital-1": 1}))

    assert waits is RequestState.ERASED
    assert ledger.status("request-1").state is RequestState.COMPLETED


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            (("hospital-1", 2), ("hospital-2", 1)),
            "'hospital-1' is refused: it says that it contributed after order 2, .* order 1",
        ),
        ((("hospital-1", -1),), "after order -1"),
        ((("hospital-1", 2**40),), "after order 1099511627776"),
        ((("hospital-9", 1),), "'hospital-9' .* order 0"),
        ((("hospital-1", 1), ("hospital-1", 0)), "twice"),
    ],
)
def test_release_whose_sites_say_more_than_they_were_ordered_is_not_written(
    ledger: Ledger, parts: tuple[tuple[str, int], ...], said: str
) -> None:
    """Otherwise the site's next deletions would be taken for renewed."""
    carried_out(ledger)

    with pytest.raises(InvalidDeletion, match=said):
        give(ledger, ReleasedWeights(DIGEST, 9, 0, tuple(SiteContribution(*part, b"") for part in parts)))

    assert ledger.status("request-1").state is RequestState.ERASED
    assert (ledger.renewal_need().entries, ledger.renewal_need().records) == (4, 100)


def test_two_services_on_one_ledger_owe_the_same(database: str, ledger: Ledger, clock: Clock) -> None:
    with Ledger(database, clock=clock, renew=RENEW) as there:
        ledger.enter(REQUEST)
        ledger.acknowledge(FIRST)
        there.acknowledge(SECOND)
        assert ledger.status("request-1").state is there.status("request-1").state is RequestState.ERASED
        assert ledger.renewal_need() == there.renewal_need()

        give(there, released({"hospital-1": 1, "hospital-2": 1}))

        assert ledger.status("request-1").state is RequestState.COMPLETED


def test_renewals_are_there_after_a_restart(database: str, ledger: Ledger) -> None:
    carried_out(ledger)
    before = (ledger.status("request-1"), ledger.renewal_need())
    ledger.close()

    with Ledger(database, clock=lambda: NOON + timedelta(minutes=1), renew=RENEW) as again:
        assert (again.status("request-1"), again.renewal_need()) == before
        give(again, released({"hospital-1": 1, "hospital-2": 1}))
        assert again.status("request-1").state is RequestState.COMPLETED


def test_another_request_by_a_site_for_itself_waits_for_that_site_only(ledger: Ledger) -> None:
    ledger.enter(DeletionRequest("own", "hospital-1", own_site("own").target))
    ledger.acknowledge(replace(FIRST, request_id="own"))

    give(ledger, released({"hospital-1": 1, "hospital-2": 0}))

    assert ledger.status("own").state is RequestState.COMPLETED
