"""What the command lines say of a deletion: no more than the sites' answers do."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest

from fedmunkey.common.deletions import status_words
from fedmunkey.common.deletions.words import (
    Acknowledgement,
    DeletionRequest,
    RequestStatus,
    SiteProgress,
    SiteState,
    WholeSite,
)
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss

REQUEST = DeletionRequest("request-1", "hospital-1", WholeSite("hospital-1"))


def answer(
    guarantee: Guarantee, *losses: PrivacyLoss, state: SiteState = SiteState.ERASED, site: str = "hospital-1"
) -> Acknowledgement:
    records = 1 if state is SiteState.ERASED else 0
    return Acknowledgement(1, site, "request-1", state, records, records, guarantee, 0.5, "", *losses)


def certified(epsilon: float, records: int = 1, *, state: SiteState = SiteState.ERASED) -> Acknowledgement:
    return answer(Guarantee.CERTIFIED, PrivacyLoss(0.5, 1e-5), PrivacyLoss(epsilon, 1e-5, records), state=state)


def status(*answers: Acknowledgement | None) -> RequestStatus:
    sites = (
        SiteProgress(f"hospital-{number}", 1, given.state if given else SiteState.PENDING, given)
        for number, given in enumerate(answers, 1)
    )
    return RequestStatus(REQUEST, datetime(2030, 1, 1, tzinfo=UTC), tuple(sites))


EXACT, EMPIRICAL = answer(Guarantee.EXACT), answer(Guarantee.EMPIRICAL)


@pytest.mark.parametrize(
    ("answers", "combined"),
    [
        ([], None),
        ([None], None),
        ([EXACT], None),
        ([EMPIRICAL, certified(1.0)], None),
        ([certified(1.0, 2)], PrivacyLoss(1.0, 1e-5, 2)),
        ([certified(1.0, 2), certified(0.25, 3)], PrivacyLoss(1.25, 2e-5, 5)),
        ([certified(1.0, 2), EXACT], PrivacyLoss(1.0, 1e-5, 2)),
        ([certified(1.0, 2), EXACT, None], None),
        # A site that erased nothing has nothing of what this request erased.
        ([certified(1.0, 2), certified(9.0, state=SiteState.NOTHING_HELD)], PrivacyLoss(1.0, 1e-5, 2)),
        ([certified(9.0, state=SiteState.NOTHING_HELD)], None),
        ([certified(1.0), certified(math.inf)], PrivacyLoss(math.inf, 2e-5, 2)),
    ],
)
def test_losses_of_certified_sites_add_up(answers: list[Acknowledgement | None], combined: PrivacyLoss | None) -> None:
    assert status_words.combined_loss(status(*answers)) == combined


@pytest.mark.parametrize(
    ("answers", "weakest"),
    [
        ([None], None),
        # Nobody can say what remains before the last site has answered, or where nothing was erased.
        ([EXACT, None], None),
        ([EXACT, answer(Guarantee.EMPIRICAL, state=SiteState.REFUSED)], None),
        ([answer(Guarantee.EXACT, state=SiteState.NOTHING_HELD)], None),
        ([EXACT, certified(1.0)], Guarantee.CERTIFIED),
        ([certified(1.0), EMPIRICAL, EXACT], Guarantee.EMPIRICAL),
    ],
)
def test_request_claims_the_weakest_guarantee(answers: list[Acknowledgement | None], weakest: Guarantee | None) -> None:
    assert status_words.weakest_guarantee(status(*answers)) is weakest


@pytest.mark.parametrize(
    ("epsilon", "records", "words"),
    [
        (1.0, 1, "0.50 a record"),
        (4.1, 2, "0.50 a record, 4.10 for 2 records"),
        # A bound must not look smaller than it is.
        (4.1000001, 2, "0.50 a record, 4.11 for 2 records"),
        (math.inf, 3, "0.50 a record, unbounded for 3 records"),
        (123456.0, 2, "0.50 a record, 123456.00 for 2 records"),
    ],
)
def test_epsilon_is_never_shown_smaller_than_it_is(epsilon: float, records: int, words: str) -> None:
    assert status_words.epsilon_words(certified(epsilon, records)) == words


def test_answer_that_bounds_nothing_shows_no_epsilon() -> None:
    assert status_words.epsilon_words(EMPIRICAL) == ""
    assert status_words.loss_words(None) == ""
    assert status_words.loss_words(PrivacyLoss(1.0, 1e-5)) == "1.00 for 1 record"


def test_status_is_json_though_nothing_is_bounded() -> None:
    document = status_words.status_document(status(certified(math.inf, 2)))

    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["subject_loss"] == {"epsilon": None, "delta": 1e-5, "records": 2}
    assert [site["record_loss"] for site in document["sites"]] == [{"epsilon": 0.5, "delta": 1e-5, "records": 1}]
