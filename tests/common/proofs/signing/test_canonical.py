from __future__ import annotations

import pytest

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signing.canonical import canonical_json, parse_canonical, read_hex, take


def test_canonical_form_is_that_of_rfc_8785() -> None:
    # RFC 8785, section 3.2.3: sorted by UTF-16 code units; 3.2.2.3: numbers as ECMAScript writes them.
    value = {"€": 1, "\r": 2, "1": [333333333.33333329, 1e30, 4.50, 2e-3], "😂": '€$\u000f\nA\'B"\\\\"/'}

    text = canonical_json(value).decode()

    assert text == ('{"\\r":2,"1":[333333333.3333333,1e+30,4.5,0.002],"€":1,"😂":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}')
    assert parse_canonical(text.encode(), "x") == value


@pytest.mark.parametrize(
    "data",
    [
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'{"a":1}\n',
        b' {"a":1}',
        b'{"a":1,"a":1}',
        b'{"a":1.0}',
        b'{"a":1e0}',
        b'{"a":"\\u0041"}',
        b'{"a":1}{}',
        b'{"a":NaN}',
        b'{"a":9007199254740993}',
        b'{"a":1e400}',
        b'{"a":"\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"\xff",
        b"",
        b"[" * 100_000,
        b"9" * 5000,
        "{}".encode("utf-16"),
    ],
)
def test_anything_but_the_canonical_form_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidProof):
        parse_canonical(data, "the document")


def test_document_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidProof, match="10 bytes; at most 9"):
        parse_canonical(b'"12345678"', "the document", 9)


@pytest.mark.parametrize("value", [{}, {"a": 1, "b": 2}, {"a": True}, {"a": "1"}, {"a": None}, [1], None])
def test_fields_are_exactly_those_asked_for(value: object) -> None:
    with pytest.raises(InvalidProof, match="the thing"):
        take(value, "the thing", a=int)


@pytest.mark.parametrize("text", ["AB" * 32, "ab" * 31, "ab" * 33, " ab" * 32, "zz" * 32, "ab " * 32, ""])
def test_hexadecimal_digits_have_one_spelling(text: str) -> None:
    with pytest.raises(InvalidProof):
        read_hex(text, "a hash")
