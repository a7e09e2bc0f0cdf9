"""The JSON document of a report: its schema, and what a schema cannot say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from fedmunkey.common.errors import InvalidInput

SCHEMA = Path(__file__).with_name("report.schema.json")
_WHICH = "name the report.json of a run, an audit or a comparison"
_LONGEST = 60
"""Characters of a value that an error shows."""


def validate(document: Any) -> None:
    """Check that what `json.loads` returned is a report; `InvalidInput` names the path of the first fault: a.b[2]."""
    fault = next(_faults(document), None)
    if fault is not None:
        raise InvalidInput(f"{fault}; a report must follow {SCHEMA.name}")


def read_document(path: Path) -> dict[str, Any]:
    """Read a report; raises `InvalidInput` if the file cannot be read, is not JSON, or is no report."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}); {_WHICH}") from None
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON ({error}); {_WHICH}") from None
    try:
        validate(document)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None
    return document


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def _faults(document: Any) -> Iterator[str]:
    # To a validator NaN is a number, but JSON has no word for it.
    yield from (f"{_path(where)}: {value} is not a number that JSON holds" for where, value in _not_finite(document))
    errors = sorted(_validator().iter_errors(document), key=lambda error: [str(part) for part in error.absolute_path])
    yield from (f"{_path(error.absolute_path)}: {_describe(error)}" for error in errors)
    if not errors:
        yield from _BEYOND[document["kind"]](document)


def _not_finite(value: Any, where: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield where, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from _not_finite(item, (*where, name))


def _uneven_curves(audit: dict[str, Any]) -> Iterator[str]:
    for number, attack in enumerate(audit["attacks"]):
        for state, found in attack["states"].items():
            lengths = [len(found["curve"][side]) for side in ("false", "true")]
            if lengths[0] != lengths[1]:
                yield f"attacks[{number}].states.{state}.curve: {lengths[0]} false beside {lengths[1]} true positives"


def _mismatches(comparison: dict[str, Any]) -> Iterator[str]:
    known = {name: [item["name"] for item in comparison[name]] for name in ("sets", "methods", "columns")}
    for number, result in enumerate(comparison["results"]):
        pairs = [("data", "sets", result["data"]), ("method", "methods", result["method"])]
        pairs += [("figures", "columns", name) for name in result["figures"]]
        for key, where, name in pairs:
            if name not in known[where]:
                yield f"results[{number}].{key}: {_short(name)} is not among the {where}"


_BEYOND: dict[str, Callable[[dict[str, Any]], Iterable[str]]] = {
    "run": lambda _: (),
    "audit": _uneven_curves,
    "comparison": _mismatches,
}
"""What a schema cannot say of each kind of report."""


def _describe(error: ValidationError) -> str:
    match error.validator:
        case "required":
            missing = next(name for name in error.validator_value if name not in error.instance)
            return f"{missing} is missing"
        case "additionalProperties":
            unknown = sorted(set(error.instance) - set(error.schema.get("properties", {})))
            return f"{_short(unknown[0])} is not known here"
        case "type":
            wanted = error.validator_value
            return f"{_short(error.instance)} is not {wanted if isinstance(wanted, str) else ' or '.join(wanted)}"
        case "enum":
            return f"{_short(error.instance)} is not one of {', '.join(map(str, error.validator_value))}"
        case "const":
            return f"{_short(error.instance)} is not {error.validator_value}"
        case _:
            return f"{_short(error.instance)} does not meet {error.validator} {_short(error.validator_value)}"


def _short(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=repr)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."


def _path(parts: Sequence[str | int]) -> str:
    steps = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts]
    return "".join(steps).removeprefix(".") or "the document"
