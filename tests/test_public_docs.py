from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "client", "server", "protos", "simulations")

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def undocumented(root: Path) -> list[str]:
    """Name every public module, class, function and method without a docstring; generated protos are left out."""
    missing = []
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if "_pb2" in path.name or is_private(path.stem):
                continue
            where = str(path.relative_to(root))
            found = public(ast.parse(path.read_text()), where)
            missing += [name for name, node in found if not ast.get_docstring(node)]
    return missing


def public(node: Documented, name: str) -> Iterator[tuple[str, Documented]]:
    """Yield a module or class and what is public in it; what functions define inside is theirs."""
    yield name, node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield from public(child, f"{name}:{child.name}")


def is_private(stem: str) -> bool:
    return stem.startswith("_") and stem != "__init__"


def test_everything_public_has_a_docstring() -> None:
    assert undocumented(ROOT) == []


def test_checker_names_what_has_no_docstring(tmp_path: Path) -> None:
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "agent.py").write_text(
        '"""A module."""\n'
        "class Agent:\n"
        '    """A class."""\n'
        "    def __init__(self): ...\n"
        "    def _inner(self): ...\n"
        "    def run(self):\n"
        "        def step(): ...\n"
        "async def follow(): ...\n"
        "class _Hidden:\n"
        "    def run(self): ...\n"
    )
    (tmp_path / "client" / "__init__.py").write_text("")
    (tmp_path / "client" / "deletion_pb2.py").write_text("")

    assert undocumented(tmp_path) == ["client/__init__.py", "client/agent.py:Agent:run", "client/agent.py:follow"]


def cited_tests(text: str) -> set[tuple[str, str]]:
    """Return file and name of each test that a document cites."""
    return set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text))


def test_security_document_cites_tests_that_exist() -> None:
    cited = cited_tests((ROOT / "SECURITY.md").read_text())

    assert len(cited) > 20
    assert [(path, name) for path, name in cited if f"def {name}(" not in (ROOT / path).read_text()] == []


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()

    assert [path.name for path in folder.glob("0*.md") if f"({path.name})" not in index] == []
