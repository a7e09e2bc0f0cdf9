"""What descends from what, as the ledger knows it: releases, the sites' parts, and what was erased since."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fedmunkey.common.deletions.renewals import ReleasedWeights, SiteContribution
from fedmunkey.common.deletions.words import OFFICER, Acknowledgement, DeletionRequest, SiteState, Subject
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.ledger.lineage import MOST_REQUESTS
from tests.server.ledger.ledger_contract import Clock

SITES = ("hospital-1", "hospital-2")


@pytest.fixture
def ledger(database: str, clock: Clock) -> Iterator[Ledger]:
    """A ledger with two sites, in each kind of database."""
    with Ledger(database, clock=clock) as opened:
        for site in SITES:
            opened.register(site)
        yield opened


def release(ledger: Ledger, digest: str) -> None:
    parts = tuple(SiteContribution(site, ledger.last_number(site), b"") for site in SITES)
    ledger.note_release(ReleasedWeights(digest, 10, 0, parts))


def erase(ledger: Ledger, request_id: str, entries: int = 1) -> None:
    ledger.enter(DeletionRequest(request_id, OFFICER, Subject(bytes(32))))
    for site in SITES:
        said = (SiteState.ERASED, 1, entries, Guarantee.EXACT, 0.1)
        ledger.acknowledge_soon(Acknowledgement(ledger.last_number(site), site, request_id, *said)).result()


def test_releases_come_in_pages_the_last_first(ledger: Ledger) -> None:
    for number in range(5):
        release(ledger, f"{number:064x}")

    pages = [ledger.releases(page, 2) for page in (1, 2, 3, 4)]

    assert [[one.number for one in found] for found, _ in pages] == [[5, 4], [3, 2], [1], []]
    assert {total for _, total in pages} == {5}
    assert pages[0][0][0].sites == 2
    assert ledger.release(6) is None


def test_release_holds_what_was_erased_after_its_sites_had_contributed(ledger: Ledger) -> None:
    erase(ledger, "before")
    release(ledger, "1" * 64)
    erase(ledger, "without-entries", 0)
    assert [one.holds for one in ledger.releases(1, 10)[0]] == [False]

    erase(ledger, "after")
    release(ledger, "2" * 64)

    assert [one.holds for one in ledger.releases(1, 10)[0]] == [False, True]
    assert (ledger.erasing(1), ledger.erasing(2)) == (("after",), ())
    assert ledger.erased_since("1" * 64) == ledger.some_erased_since("1" * 64) == ("after",)
    assert ledger.some_erased_since("3" * 64) == ()
    assert [(part.site, part.last_order, part.signed) for part in ledger.parts(2)] == [
        (site, 3, False) for site in SITES
    ]


def test_of_many_requests_some_are_named(ledger: Ledger) -> None:
    release(ledger, "1" * 64)
    for number in range(MOST_REQUESTS + 5):
        erase(ledger, f"request-{number}")

    assert len(ledger.erasing(1)) == MOST_REQUESTS
    assert len(ledger.some_erased_since("1" * 64, 1)) == 1
    assert len(ledger.erased_since("1" * 64)) == MOST_REQUESTS + 5


def test_weights_that_are_given_out_again_say_of_which_release_they_are(ledger: Ledger) -> None:
    for digest in ("1" * 64, "2" * 64):
        release(ledger, digest)
    ledger.release_again("1" * 64)

    assert [(one.number, one.again) for one in ledger.releases(1, 10)[0]] == [(3, 1), (2, None), (1, None)]


def test_receipts_that_name_no_model_are_read_once(ledger: Ledger) -> None:
    erase(ledger, "request-1")

    found, after = ledger.named_models(0)
    assert found == ()
    assert after > 0
    assert ledger.named_models(after) == ((), after)
