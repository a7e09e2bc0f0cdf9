from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signing.canonical import canonical_json
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import PAYLOAD_TYPE, Statement, read_envelope, read_time, write_time

KEY = SigningKey.from_seed(bytes(32))
STATEMENT = Statement("records", bytes(range(32)), "urn:example:said", {"a": 1})


def test_statement_is_one_of_in_toto() -> None:
    envelope = read_envelope(STATEMENT.sign(KEY).to_bytes())

    envelope.verify({KEY.public.key_id: KEY.public})
    assert json.loads(envelope.payload) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "records", "digest": {"sha256": bytes(range(32)).hex()}}],
        "predicateType": "urn:example:said",
        "predicate": {"a": 1},
    }
    assert envelope.payload_type == "application/vnd.in-toto+json"
    assert Statement.of(envelope, "urn:example:said") == STATEMENT


@pytest.mark.parametrize(
    "changes",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": "urn:example:other"},
        {"predicate": []},
        {"subject": []},
        {"subject": [{"name": "a", "digest": {"sha256": "00" * 32}}] * 2},
        {"subject": [{"name": "a", "digest": {"md5": "00" * 16}}]},
        {"subject": [{"name": "a", "digest": {"sha256": "00" * 32, "sha512": ""}}]},
        {"more": 1},
    ],
)
def test_other_statements_are_refused(changes: dict[str, object]) -> None:
    document = {**json.loads(STATEMENT.sign(KEY).payload), **changes}
    envelope = Envelope.sign(PAYLOAD_TYPE, canonical_json(document), KEY)

    with pytest.raises(InvalidProof):
        Statement.of(envelope, "urn:example:said")


def test_payload_must_be_canonical() -> None:
    payload = json.dumps(json.loads(STATEMENT.sign(KEY).payload)).encode()

    with pytest.raises(InvalidProof, match="canonical"):
        Statement.of(Envelope.sign(PAYLOAD_TYPE, payload, KEY), "urn:example:said")


def test_time_is_written_in_utc_to_the_second() -> None:
    time = datetime(2026, 3, 1, 14, 0, 0, 999, tzinfo=timezone(timedelta(hours=2)))

    assert write_time(time) == "2026-03-01T12:00:00Z"
    assert read_time("2026-03-01T12:00:00Z") == datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "2026-03-01T12:00:00", "2026-03-01T12:00:00+00:00", "2026-03-01T12:00:00.0Z", "2026-02-30T12:00:00Z",
             "20260301T120000Z", "2026-03-01 12:00:00Z", "today"]
)  # fmt: skip
def test_time_has_one_spelling(text: str) -> None:
    with pytest.raises(InvalidProof):
        read_time(text)
