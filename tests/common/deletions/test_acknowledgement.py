"""An answer is one document, and what no site can answer is refused wherever it turns up."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmunkey.common.deletions.acknowledgement import Acknowledgement
from fedmunkey.common.deletions.states import SiteState
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss

ANSWER = Acknowledgement(1, "hospital-1", "request-1", SiteState.ERASED, 2, 1, Guarantee.EMPIRICAL, 0.5)
LOSS = PrivacyLoss(1.9, 1e-5)
CERTIFIED = replace(
    ANSWER, guarantee=Guarantee.CERTIFIED, record_loss=LOSS, subject_loss=PrivacyLoss(math.inf, 1e-5, 2)
)

text = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=20)
numbers = st.integers(1, 2**63 - 1)


def losses(records: st.SearchStrategy[int]) -> st.SearchStrategy[PrivacyLoss]:
    return st.builds(PrivacyLoss, st.floats(0), st.floats(0, 1, exclude_max=True), records)


@st.composite
def acknowledgements(draw: st.DrawFn) -> Acknowledgement:
    state = draw(st.sampled_from([state for state in SiteState if state.answered]))
    records = draw(st.integers(0, 2**63 - 1)) if state is SiteState.ERASED else 0
    guarantee = draw(st.sampled_from(Guarantee))
    certified = guarantee is Guarantee.CERTIFIED
    return Acknowledgement(
        draw(numbers),
        draw(text.filter(bool)),
        draw(text.filter(bool)),
        state,
        records,
        draw(st.integers(0, records)),
        guarantee,
        draw(st.floats(0, allow_infinity=False)),
        draw(text),
        draw(losses(st.just(1))) if certified else None,
        draw(losses(numbers)) if certified else None,
    )


@given(acknowledgements())
def test_document_says_all_that_the_answer_says(answer: Acknowledgement) -> None:
    assert Acknowledgement.from_document(answer.to_document()) == answer
    assert Acknowledgement.from_json(answer.to_json(), b"receipt") == answer
    assert Acknowledgement.from_json(answer.to_json(), b"receipt").receipt == b"receipt"


def test_document_has_the_names_of_the_receipt() -> None:
    assert json.loads(CERTIFIED.to_json()) == {
        "order": 1,
        "site": "hospital-1",
        "requestId": "request-1",
        "state": "erased",
        "records": 2,
        "entries": 1,
        "guarantee": "certified",
        "recordLoss": {"epsilon": 1.9, "delta": 1e-5, "records": 1},
        "subjectLoss": {"epsilon": None, "delta": 1e-5, "records": 2},
        "reason": "",
        "seconds": 0.5,
    }
    assert ANSWER.claims() == replace(ANSWER, seconds=9.0).claims()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": SiteState.PENDING}, "'pending', which is no answer"),
        ({"state": SiteState.LEFT}, "'left', which is no answer"),
        ({"state": SiteState.REFUSED}, "yet 2 records were erased"),
        ({"records": 0}, "1 entries of 0 records"),
        ({"entries": -1}, "-1 entries"),
        ({"records": 2**63}, "not possible"),
        ({"number": 0}, "numbered from 1"),
        ({"number": 2**63}, "numbered from 1"),
        ({"request_id": "\udcff"}, "not one line"),
        ({"request_id": "request-1\n  - forged"}, "not one line"),
        ({"site": "hospital-1\u2028"}, "not one line"),
        ({"site": "x" * 1001}, "not one line"),
        ({"seconds": math.nan}, "nan seconds"),
        ({"seconds": -1.0}, "-1.0 seconds"),
        ({"reason": "two\nlines"}, "not one line"),
        ({"reason": "x" * 1001}, "at most 1000"),
        ({"record_loss": None}, "is certified and has 1 privacy losses"),
        ({"record_loss": None, "subject_loss": None}, "is certified and has 0 privacy losses"),
        ({"guarantee": Guarantee.EXACT}, "is exact and has 2 privacy losses"),
        ({"guarantee": Guarantee.EMPIRICAL, "record_loss": None}, "is empirical and has 1 privacy losses"),
        ({"record_loss": PrivacyLoss(1.9, 1e-5, 2)}, "the privacy loss of 2 records as that of one"),
    ],
)
def test_answer_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidDeletion, match=message):
        replace(CERTIFIED, **changes)


@pytest.mark.parametrize("loss", ["record_loss", "subject_loss"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epsilon", -0.1),
        ("epsilon", math.nan),
        ("epsilon", -math.inf),
        ("delta", -1e-9),
        ("delta", 1.0),
        ("delta", math.nan),
        ("records", 0),
    ],
)
def test_privacy_loss_that_means_nothing_is_refused(loss: str, name: str, value: float) -> None:
    wrong = replace(getattr(CERTIFIED, loss), **{name: value})

    with pytest.raises(InvalidDeletion, match=f"{name} = {value}|for {value} records"):
        replace(CERTIFIED, **{loss: wrong})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patient": "somebody"}, "exactly the fields"),
        ({"state": "gone"}, "unknown state"),
        ({"guarantee": "perfect"}, "unknown guarantee"),
        ({"entries": True}, "entries of an answer is of the wrong type"),
        ({"seconds": "1"}, "seconds of an answer"),
        ({"recordLoss": {"epsilon": 1.0}}, "a privacy loss does not have"),
        ({"recordLoss": {"epsilon": "1", "delta": 0, "records": 1}}, "epsilon of a privacy loss"),
    ],
)
def test_document_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidDeletion, match=message):
        Acknowledgement.from_document(CERTIFIED.to_document() | changes)


@pytest.mark.parametrize("document", ["", "{", "[]", "null", "[" * 100_000, '{"order": NaN}'])
def test_text_that_is_no_document_is_refused(document: str) -> None:
    with pytest.raises(InvalidDeletion, match="an answer"):
        Acknowledgement.from_json(document)
