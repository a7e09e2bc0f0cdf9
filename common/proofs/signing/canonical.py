"""JSON in its one canonical form (RFC 8785), and the strict reading of it.

What is signed or logged must have exactly one spelling: otherwise two files that differ would prove the same thing.
"""

from __future__ import annotations

import json
from typing import Any

import rfc8785

from fedmunkey.common.errors import InvalidProof

ENVELOPE_BYTES = 2**20
"""Size of the largest envelope that is read."""


def canonical_json(value: Any) -> bytes:
    """Write JSON-ready data in its canonical form.

    Raises `InvalidProof` if it holds what JSON cannot: a number that is not finite, an integer beyond 2**53, text that
    is not Unicode.
    """
    try:
        return rfc8785.dumps(value)
    except (ValueError, TypeError, RecursionError):
        raise InvalidProof("a document holds values that canonical JSON cannot") from None


def parse_json(text: str | bytes, what: str) -> Any:
    """Read JSON without duplicate keys and without numbers that are not finite; raises `InvalidProof`."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise InvalidProof(f"{what} is not JSON, or names a field twice; get it again from where it came") from None


def parse_canonical(data: bytes, what: str, limit: int = ENVELOPE_BYTES) -> Any:
    """Read canonical JSON.

    `what` names the document in an error; it may have `limit` bytes. Raises `InvalidProof` if it is too long, is no
    JSON, names a field twice, or is not in its canonical form to the last byte.
    """
    if len(data) > limit:
        raise InvalidProof(f"{what} has {len(data)} bytes; at most {limit} are read")
    value = parse_json(data, what)
    if canonical_json(value) != data:
        raise InvalidProof(f"{what} is not in the canonical form of RFC 8785; it was changed after it was made")
    return value


def take(value: Any, what: str, **kinds: type | tuple[type, ...]) -> tuple[Any, ...]:
    """Return the values of an object's fields in the order in which they are named.

    Raises `InvalidProof` if it is no object, a field is missing, is not named here or is of another type; a truth value
    is no integer.
    """
    if not isinstance(value, dict) or value.keys() != kinds.keys():
        raise InvalidProof(f"{what} does not have exactly the fields {', '.join(kinds)}")
    for name, kind in kinds.items():
        if type(value[name]) not in (kind if isinstance(kind, tuple) else (kind,)):
            raise InvalidProof(f"the field {name} of {what} is of the wrong type")
    return tuple(value[name] for name in kinds)


def read_hex(text: str, what: str, size: int = 32) -> bytes:
    """Return the bytes of lower-case hexadecimal digits; raises `InvalidProof` for any other spelling or length."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != size or data.hex() != text:
        raise InvalidProof(f"{what} is not {2 * size} lower-case hexadecimal digits")
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is named twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
