"""Going back to an earlier release: written down as any other, and refused where it holds what was deleted since."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedmunkey.common.deletions.renewals import ReleasedWeights, SiteContribution
from fedmunkey.common.deletions.words import OFFICER, Acknowledgement, DeletionRequest, SiteState, Subject
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.server.ledger.ledger import Ledger
from tests.releases import give

SITES = ("hospital-1", "hospital-2")
FIRST, SECOND = "1" * 64, "2" * 64


@pytest.fixture
def federation(ledger: Ledger) -> Ledger:
    """A ledger of two sites, with a release that both have contributed to."""
    for site in SITES:
        ledger.register(site)
    release(ledger, FIRST)
    return ledger


def release(ledger: Ledger, digest: str, *, records: int = 100, sites: tuple[str, ...] = SITES) -> None:
    parts = tuple(SiteContribution(site, ledger.last_number(site), b"") for site in sites)
    give(ledger, ReleasedWeights(digest, records, 0, parts))


def ask(ledger: Ledger, name: str) -> None:
    ledger.enter(DeletionRequest(name, OFFICER, Subject(name.encode().ljust(32, b"."))), SITES)


def answer(ledger: Ledger, site: str, entries: int, state: SiteState = SiteState.ERASED) -> None:
    """Let a site answer its last order."""
    number = ledger.last_number(site)
    (order,) = ledger.orders(site, number - 1, 1)
    given = (state, entries, entries, Guarantee.EXACT, 0.1)
    ledger.acknowledge(Acknowledgement(number, site, order.request.request_id, *given))


def test_release_that_was_undone_counts_again_and_owes_what_is_erased_from_then_on(federation: Ledger) -> None:
    release(federation, SECOND, records=130)

    federation.release_again(FIRST)
    assert federation.note_given_out(FIRST, ["hospital-1", "hospital-2"]) == ()

    need = federation.renewal_need()
    assert (need.records, need.entries) == (100, 0)
    ask(federation, "request-1")
    answer(federation, "hospital-1", 2)
    assert federation.renewal_need().entries == 2


def test_release_that_holds_what_was_deleted_since_is_refused_and_the_requests_are_named(federation: Ledger) -> None:
    for name, entries in (("request-1", 2), ("request-2", 0), ("request-3", 1)):
        ask(federation, name)
        answer(federation, "hospital-1", 0, SiteState.NOTHING_HELD)
        answer(federation, "hospital-2", entries, SiteState.ERASED if entries else SiteState.NOTHING_HELD)
    release(federation, SECOND)

    assert federation.erased_since(FIRST) == ("request-1", "request-3")
    assert federation.erased_since(SECOND) == ()
    with pytest.raises(InvalidDeletion, match="deleted since, by request request-1, request-3; they are not brought"):
        federation.release_again(FIRST)
    assert federation.renewal_need().entries == 0
    federation.release_again(SECOND)


def test_site_that_left_without_an_answer_counts_as_one_that_has_erased(federation: Ledger) -> None:
    ask(federation, "request-1")
    federation.remove("hospital-2", "it has closed")
    release(federation, SECOND, sites=("hospital-1",))

    with pytest.raises(InvalidDeletion, match="by request request-1"):
        federation.release_again(FIRST)


def test_deletion_at_a_site_that_did_not_contribute_does_not_count(federation: Ledger) -> None:
    release(federation, SECOND, sites=("hospital-1",))
    ask(federation, "request-1")
    answer(federation, "hospital-2", 3)

    assert federation.erased_since(SECOND) == ()


def test_weights_with_the_same_bytes_count_as_of_their_last_release(federation: Ledger) -> None:
    ask(federation, "request-1")
    answer(federation, "hospital-1", 1)
    assert federation.erased_since(FIRST) == ("request-1",)

    release(federation, FIRST)

    assert federation.erased_since(FIRST) == ()


def test_weights_that_the_ledger_does_not_know_are_refused(federation: Ledger) -> None:
    with pytest.raises(InvalidDeletion, match="the ledger has no release of weights 3333333333333333, so nobody can"):
        federation.release_again("3" * 64)
    assert replace(federation.renewal_need(), others=()) == federation.renewal_need()
