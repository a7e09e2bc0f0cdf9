"""One word, one thing: words that once meant several do not come back where they may not stand."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP_FOLDERS = ("common", "client", "server", "protos", "simulations")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "deploy")

# A word as a regular expression, where it may not stand, and lines that may hold it: what was written before is read.
FORBIDDEN = {
    "members join, they do not enrol": (r"enrol", ("server", "protos", "common/identities"), r"enrolled_at|enrolment"),
    "an identity is a member's": (
        r"identit(y|ies)\b",
        (
            "client/key_store",
            "client/records",
            "client/learning",
            "client/predicting",
            "common/model",
            "common/deletions",
        ),
        r'"identities"|TABLE identities|\.identity\b|: Identity\b',
    ),
    "the officer has one name": (
        r"data-protection-officer|--requester|DATA_PROTECTION_OFFICER",
        (*TOP_FOLDERS, *DOCUMENTS),
        r"^FORMER_OFFICER = ",
    ),
    "a key alone is MUNKEY's": (r"(?<!key)store\.keys\b|munkey-client keys\b", (*TOP_FOLDERS, *DOCUMENTS), r"$^"),
    "the house is imported under one name": (
        r"(?<![\w.])(from|import|python -m) (common|client|server|protos|simulations)\b",
        (*TOP_FOLDERS, *DOCUMENTS),
        r"$^",
    ),
}
MODULES_OF_THEIR_OWN = ("proofs", "deletion_service", "training", "deployment", "faults")
CLASSES_OF_THEIR_OWN = {
    *("Question", "Trial", "Subject", "Target", "Records", "Plan", "Answering", "Stage", "Step", "Role", "Refusal"),
    *("Acknowledgement", "Recipe"),
}


def lines_of(place: str) -> Iterator[tuple[str, str]]:
    """Yield where each line of a file, or of all files below a folder, stands, and the line."""
    path = ROOT / place
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        written = file.suffix in {".py", ".proto", ".md", ".toml", ".service", ".html"}
        if written and "_pb2" not in file.name and "decisions" not in file.parts:
            for number, line in enumerate(file.read_text().splitlines(), start=1):
                yield f"{file.relative_to(ROOT)}:{number}", line


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_old_word_does_not_stand_where_it_may_not(rule: str) -> None:
    word, places, allowed = FORBIDDEN[rule]

    found = [
        where
        for place in places
        for where, line in lines_of(place)
        if re.search(word, line, re.IGNORECASE) and not re.search(allowed, line)
    ]

    assert found == [], rule


def product_files() -> list[Path]:
    return [path for top in TOP_FOLDERS for path in sorted((ROOT / top).rglob("*.py")) if "_pb2" not in path.name]


def test_modules_have_names_of_their_own() -> None:
    names = Counter(path.parent.name if path.stem == "__init__" else path.stem for path in product_files())

    assert {name: names[name] for name in MODULES_OF_THEIR_OWN if names[name] > 1} == {}


def test_classes_have_names_of_their_own() -> None:
    names = Counter(
        node.name
        for path in product_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )

    assert {name: names[name] for name in CLASSES_OF_THEIR_OWN if names[name] > 1} == {}
