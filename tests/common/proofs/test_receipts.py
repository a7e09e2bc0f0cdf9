from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from fedmunkey.common.deletions.words import Acknowledgement, SiteState
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.common.proofs.receipts import PREDICATE_TYPE, Receipt, WitnessedHead
from fedmunkey.common.proofs.signing.canonical import canonical_json
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.statements import PAYLOAD_TYPE, read_envelope
from tests.proof_case import SITE_KEYS, SITES, START

KEY = SITE_KEYS[SITES[0]]
EXACT = Acknowledgement(4, SITES[0], "request-1", SiteState.ERASED, 3, 2, Guarantee.EXACT, 0.25)
LOSS = PrivacyLoss(1.0, 1e-5)
CERTIFIED = replace(EXACT, guarantee=Guarantee.CERTIFIED, record_loss=LOSS, subject_loss=PrivacyLoss(math.inf, 1e-5, 2))
REFUSED = replace(
    EXACT, state=SiteState.REFUSED, records=0, entries=0, guarantee=Guarantee.EMPIRICAL, reason="unsigned: no signature"
)


@pytest.mark.parametrize("answer", [EXACT, CERTIFIED, REFUSED])
@pytest.mark.parametrize("seen", [None, WitnessedHead(7, bytes(32))])
def test_receipt_survives_its_envelope(answer: Acknowledgement, seen: WitnessedHead | None) -> None:
    receipt = Receipt(answer, bytes(range(32)), START, bytes([1] * 32), seen)

    envelope = read_envelope(receipt.sign(KEY).to_bytes())

    envelope.verify({KEY.public.key_id: KEY.public})
    found = Receipt.of(envelope)
    found.check_describes(answer)
    assert found == replace(receipt, answer=replace(answer, seconds=0.0))
    assert receipt.sign(KEY) == envelope


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 5},
        {"site": "hospital-2"},
        {"request_id": "request-2"},
        {"records": 2},
        {"entries": 1},
        {"state": SiteState.NOTHING_HELD, "records": 0, "entries": 0},
        {"guarantee": Guarantee.EMPIRICAL},
        {"reason": "no"},
        {"guarantee": Guarantee.CERTIFIED, "record_loss": LOSS, "subject_loss": LOSS},
    ],
)
def test_receipt_for_another_answer_is_noticed(changes: dict[str, Any]) -> None:
    receipt = Receipt(EXACT, bytes(32), START, None, None)

    with pytest.raises(InvalidProof, match="differ in"):
        receipt.check_describes(replace(EXACT, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        # An answer that cannot be; what else an answer cannot say is for the tests of answers.
        {"records": 1},
        {"guarantee": "exact"},
        {"witnessed": {"size": 0, "root": "00" * 32}},
        {"tombstones": "00"},
        {"time": "now"},
        {"patient": "somebody"},
        {"exported": []},
        {"exported": ["00"]},
        {"exported": ["AA" * 32]},
        {"exported": {"digest": "00" * 32}},
        {"exported": [7]},
    ],
)
def test_receipt_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    document = json.loads(Receipt(CERTIFIED, bytes(32), START, None, None).sign(KEY).payload)
    document["predicate"] |= changes
    envelope = Envelope.sign(PAYLOAD_TYPE, canonical_json(document), KEY)

    assert document["predicateType"] == PREDICATE_TYPE
    with pytest.raises(InvalidProof):
        Receipt.of(envelope)


def test_exported_models_are_named_and_a_receipt_without_any_is_as_it_always_was() -> None:
    receipt = Receipt(EXACT, bytes(32), START, None, None)
    naming = replace(receipt, exported=("ab" * 32, "01" * 32))

    assert Receipt.of(naming.sign(KEY)).exported == naming.exported
    assert "exported" not in json.loads(receipt.sign(KEY).payload)["predicate"]
    assert Receipt.of(receipt.sign(KEY)).exported == ()
