"""What is not imported, and not needed: torch where nothing is computed, and what only simulations bring."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "sklearn", "scipy", "matplotlib", "ray", "pydicom", "nibabel")
WITHOUT = ("ray", "matplotlib", "jsonschema", "sklearn", "scipy", "dp_accounting", "psycopg")
"""What an installation without the extra lacks, as far as nothing else brings it."""
LATE = {"sklearn", "scipy.stats", "dp_accounting", "pandas"}
"""What few calls need, and takes longer to import than a round to run."""

_IMPORTED = """
import sys
sys.argv = {words}
from {module} import main
try:
    main()
finally:
    found = [name for name in {heavy} if name in sys.modules]
    sys.stderr.write("imported: " + " ".join(found))
"""
_HIDDEN = """
import sys
from importlib.machinery import PathFinder
class WithoutSome(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden} else super().find_spec(name, path, target)
sys.meta_path[:] = [WithoutSome if finder is PathFinder else finder for finder in sys.meta_path]
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", code]
    return subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)  # noqa: S603


def run(module: str, *words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    code = before + _IMPORTED.format(words=["program", *words], module=f"fedmunkey.{module}", heavy=HEAVY)
    return python(code)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("client.cli", ["--help"]),
        ("client.cli", ["status", "--site-dir", "none"]),
        ("client.cli", ["agent", "--site-dir", "none"]),
        ("client.cli", ["forget", "--everything", "--site-dir", "none", "--yes"]),
        ("client.cli", ["verify", "none", "--keys", "none"]),
        ("client.cli", ["verify-erasure", "1", "--site-dir", "none"]),
        ("client.cli", ["trust", "show", "--in", "none.json"]),
        ("client.cli", ["up", "none.toml", "--check"]),
        ("server.cli", ["--help"]),
        ("server.cli", ["up", "none.toml", "--check"]),
        ("simulations.cli", ["--help"]),
        ("client.supernode.supernode_program", ["none.toml"]),
        ("client.supernode.apps_program", ["none.toml"]),
        ("server.superlink.superlink_program", ["none.toml"]),
    ],
)
def test_command_that_computes_nothing_imports_nothing_that_computes(module: str, words: list[str]) -> None:
    ended = run(module, *words)

    assert ended.stderr.endswith("imported: "), ended.stderr


def test_site_and_coordinator_need_nothing_of_simulations() -> None:
    modules = (
        "client.app",
        "client.commands.import_",
        "client.commands.predict",
        "client.commands.verify_exact",
        "client.commands.orders",
        "client.importing.pictures.dicom",
        "client.supernode.supernode_program",
        "server.app",
        "server.cli",
        "server.superlink.superlink_program",
        "server.superlink.run_command",
        "common.proofs.certificate_page",
    )
    imports = "\n".join(f"import fedmunkey.{module}" for module in modules)
    ended = python(f"{_HIDDEN.format(hidden=WITHOUT)}\n{imports}\nprint({LATE} & sys.modules.keys())")

    assert (ended.returncode, ended.stdout) == (0, "set()\n"), ended.stderr


def test_simulation_without_what_it_needs_says_what_to_install() -> None:
    ended = run("simulations.cli", "run", before=_HIDDEN.format(hidden=("ray",)))

    assert ended.returncode == 2
    assert ended.stderr.startswith("error: munkey-sim needs ray")
    assert "pip install 'fedmunkey[simulation]'" in ended.stderr


@pytest.mark.parametrize(
    ("code", "hidden", "extra"),
    [
        ("from fedmunkey.common.privacy import accounting", "scipy", "certified"),
        (
            "from fedmunkey.client.learning.secret_noise import SecretNoise; SecretNoise(bytes(16)).normal(1)",
            "scipy",
            "certified",
        ),
        ("from fedmunkey.server.ledger.ledger import Ledger; Ledger('postgresql://a@b/c')", "psycopg", "postgresql"),
        (
            "from fedmunkey.common.privacy.accounting import epsilon_of; from fedmunkey.common.privacy.noisy_steps "
            "import NoisySteps; epsilon_of([NoisySteps(5, 0.1, 1.0)], 1e-5)",
            "dp_accounting",
            "certified",
        ),
    ],
)
def test_what_an_extra_brings_is_named_where_it_is_missing(code: str, hidden: str, extra: str) -> None:
    ended = python(f"{_HIDDEN.format(hidden=(hidden,))}\n{code}")

    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("fedmunkey.common.errors.NotInstalled: "), ended.stderr
    assert f"pip install 'fedmunkey[{extra}]'" in last


def test_extra_is_what_brings_ray() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    names = (*WITHOUT, "scikit-learn", "dp-accounting")
    assert not [name for name in project["dependencies"] if "simulation" in name or name.startswith(names)]
    assert [name for name in project["optional-dependencies"]["simulation"] if name.startswith("flwr[simulation]")]
    assert any("simulation" in name for name in project["optional-dependencies"]["dev"])
