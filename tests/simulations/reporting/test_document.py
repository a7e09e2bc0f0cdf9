"""The schema takes whole reports and says of broken ones where they are broken."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from fedmunkey.common.errors import InvalidInput
from fedmunkey.simulations.reporting.document import SCHEMA, read_document, validate
from tests.simulations.reporting import examples

MISSING = object()
VALUE: dict[str, Any] = {"mean": 1, "half": None, "values": []}


def place(document: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a path, or take away what is there."""
    inner: Any = document
    *parts, last = path.split(".")
    for part in parts:
        inner = inner[int(part) if part.isdigit() else part]
    if value is MISSING:
        del inner[last]
    else:
        inner[int(last) if last.isdigit() else last] = value


def undescribed(schema: Any, where: str = "") -> Iterator[str]:
    """Name every property and definition that has no description."""
    if isinstance(schema, dict):
        for keyword in ("properties", "$defs"):
            for name, inner in schema.get(keyword, {}).items():
                if not inner.get("description") and schema.get("description"):
                    yield f"{where}.{name}"
        for name, inner in schema.items():
            yield from undescribed(inner, f"{where}.{name}")


def test_schema_is_a_schema_and_describes_every_property() -> None:
    schema = json.loads(SCHEMA.read_text())

    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == "fedmunkey/report/1"
    assert list(undescribed(schema)) == []


def test_whole_reports_are_valid(document: dict[str, Any]) -> None:
    validate(document)
    validate(json.loads(json.dumps(document, allow_nan=False)))


@pytest.mark.parametrize(
    ("kind", "path", "value", "message"),
    [
        ("audit", "headline", MISSING, "the document: headline is missing"),
        ("audit", "question.seeds", MISSING, "question: seeds is missing"),
        ("audit", "question.hospitals", "five", 'question.hospitals: "five" is not integer'),
        ("audit", "question.seeds.2", 1.5, "question.seeds[2]: 1.5 is not integer"),
        ("audit", "question.forget", 10, "question.forget: 10 does not meet maximum 1"),
        ("audit", "guarantee.name", "perfect", 'guarantee.name: "perfect" is not one of exact, certified, empirical'),
        ("audit", "guarantee.epsilon", "much", 'guarantee.epsilon: "much" does not meet anyOf'),
        ("audit", "measures.0.after.mean", "83", 'measures[0].after.mean: "83" is not number or null'),
        ("audit", "measures.0.afterwards", None, 'measures[0]: "afterwards" is not known here'),
        ("audit", "measures.1.gap.half", -0.5, "measures[1].gap.half: -0.5 does not meet minimum 0"),
        ("audit", "rounds.3.test_accuracy.values.1", math.nan, "rounds[3].test_accuracy.values[1]: nan is not a"),
        ("audit", "cost.retrain_seconds.mean", math.inf, "cost.retrain_seconds.mean: inf is not a number that JSON"),
        ("audit", "confidence.test.0", 1.2, "confidence.test[0]: 1.2 does not meet maximum 1"),
        ("audit", "attacks.1.states.after.curve.false", [0, 1], "attacks[1].states.after.curve: 2 false beside"),
        ("audit", "written", "yesterday", 'written: "yesterday" does not meet pattern'),
        ("audit", "format", 2, "format: 2 is not 1"),
        ("audit", "kind", "poem", 'kind: "poem" is not one of run, audit, comparison'),
        ("audit", "limits", [], "limits: [] does not meet minItems 1"),
        ("audit", "surprise", 1, 'the document: "surprise" is not known here'),
        ("comparison", "methods.0.retrains", "no", 'methods[0].retrains: "no" is not boolean'),
        ("comparison", "columns.4.better", "smaller", 'columns[4].better: "smaller" is not one of higher, lower'),
        ("comparison", "data", {}, 'the document: "data" is not known here'),
        ("comparison", "results.5.data", "cifar", 'results[5].data: "cifar" is not among the sets'),
        ("comparison", "results.0.method", "magic", 'results[0].method: "magic" is not among the methods'),
        ("comparison", "results.0.figures.XX", VALUE, 'results[0].figures: "XX" is not'),
        ("run", "rounds.0.mean.test-accuracy", "0.9", 'rounds[0].mean.test-accuracy: "0.9" is not number or null'),
        ("run", "deletions.1.guarantee", "perfect", 'deletions[1].guarantee: "perfect" is not one of exact, certified'),
        ("run", "deletions.0.before.membership", MISSING, "deletions[0].before: membership is missing"),
        ("run", "hospitals", [], "hospitals: [] does not meet minItems 1"),
        ("run", "verdicts", [], 'the document: "verdicts" is not known here'),
    ],
)
def test_broken_report_is_refused_with_the_path_of_its_fault(kind: str, path: str, value: Any, message: str) -> None:
    broken = getattr(examples, kind)()
    place(broken, path, value)

    with pytest.raises(InvalidInput) as refused:
        validate(broken)

    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("document", [[], "audit", None, {}])
def test_what_is_no_report_at_all_is_refused(document: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^the document: .*report\.schema\.json$"):
        validate(document)


def test_long_value_is_cut_in_the_error(audit: dict[str, Any]) -> None:
    audit["headline"] = "x" * 5000

    with pytest.raises(InvalidInput) as refused:
        validate(audit)

    assert len(str(refused.value)) < 200


def test_report_is_read_from_its_file(tmp_path: Path, document: dict[str, Any]) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(document), encoding="utf-8")

    assert read_document(path) == document


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"# a report", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"format": 1}', ": the document: kind is missing"),
    ],
)
def test_file_that_is_no_report_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(InvalidInput) as refused:
        read_document(path)

    assert str(refused.value).startswith(str(path))
    assert message in str(refused.value)
