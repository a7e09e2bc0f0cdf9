from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "protos": {"protos"},
    "common": {"common", "protos"},
    "client": {"client", "common", "protos"},
    "server": {"server", "common", "protos"},
    "simulations": {"simulations", "server", "client", "common", "protos"},
}
OURS = {*MAY_IMPORT, "tests"}


def wrong_imports(root: Path) -> list[str]:
    """Name every import, wherever it stands in a file, that runs against the direction of `MAY_IMPORT`."""
    wrong = []
    for package, allowed in MAY_IMPORT.items():
        for path in sorted((root / package).rglob("*.py")):
            where = path.relative_to(root)
            for line, module in imported_modules(ast.parse(path.read_text()), where):
                root_name, _, inner = module.partition(".")
                named = inner.partition(".")[0] if root_name == "fedmunkey" else root_name
                # Under a second name a module would be a second module.
                if named in OURS and (root_name != "fedmunkey" or named not in allowed):
                    wrong.append(f"{where}:{line} imports {module}")
    return wrong


def imported_modules(tree: ast.AST, path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of each module that a file imports, by statement or by literal name."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield node.lineno, module
            case ast.ImportFrom():
                above = "fedmunkey", *path.parent.parts[: len(path.parent.parts) - node.level + 1]
                yield from ((node.lineno, ".".join([*above, node.module or alias.name])) for alias in node.names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield node.lineno, module


def test_imports_run_one_way() -> None:
    assert wrong_imports(ROOT) == []
    assert all(list((ROOT / package).rglob("*.py")) for package in MAY_IMPORT)


@pytest.mark.parametrize(
    ("path", "source", "wrong"),
    [
        ("server/app.py", "import fedmunkey.client.records.dataset", 1),
        ("server/app.py", "from fedmunkey.client import dataset", 1),
        ("client/app.py", "from fedmunkey.server.ledger.ledger import Ledger", 1),
        ("client/app.py", "def run():\n    import fedmunkey.simulations", 1),
        ("client/app.py", "from tests.common import test_model", 1),
        ("common/model/model.py", "if True:\n    from fedmunkey.client.records.dataset import Dataset", 1),
        ("common/model/encoders/registry.py", "import torch, fedmunkey.server", 1),
        ("protos/wire.py", "from fedmunkey.common.errors import FedmunkeyError", 1),
        ("server/app.py", "import importlib\nimportlib.import_module('fedmunkey.client.records.dataset')", 1),
        ("server/app.py", "from .. import client", 1),
        ("simulations/cli.py", "import tests", 1),
        ("simulations/cli.py", "from common import model", 1),
        ("simulations/cli.py", "import fedmunkey.server, fedmunkey.client\nfrom fedmunkey.common import model", 0),
        ("client/app.py", "from fedmunkey.common.model.model import Munkey\nfrom . import dataset\nimport torch", 0),
        ("common/model/encoders/registry.py", "from ..settings import Settings\nimport clientele", 0),
        ("protos/deletion_pb2_grpc.py", "from fedmunkey.protos import deletion_pb2", 0),
    ],
)
def test_checker_finds_imports_against_the_direction_alone(tmp_path: Path, path: str, source: str, wrong: int) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)

    found = wrong_imports(tmp_path)

    assert len(found) == wrong
    assert all(line.startswith(f"{path}:") for line in found)
