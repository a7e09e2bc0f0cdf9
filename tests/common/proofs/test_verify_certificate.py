"""The verifier as a stranger runs it: these files, two packages, the certificate and the keys."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.common.proofs.verify_certificate import main
from tests.proof_case import TRUST, make_case

ROOT = Path(__file__).parents[3]
# Refuses everything but Python's own modules, this project's `common`, and the two packages with what they need.
BLOCKER = """
import runpy, sys
ALLOWED = {*sys.stdlib_module_names, "cryptography", "rfc8785", "cffi", "_cffi_backend", "typing_extensions"}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        ours = name == "fedmunkey" or name.startswith("fedmunkey.common")
        if not ours and name.partition(".")[0] not in ALLOWED:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
sys.argv[:] = ["verify", *sys.argv[1:]]
runpy.run_module("fedmunkey.common.proofs.verify_certificate", run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "certificate.json").write_bytes(make_case(folder).certificate)
    TRUST.write(folder / "keys.json")
    return folder


def test_holding_certificate_is_explained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([str(folder / "certificate.json"), "--keys", str(folder / "keys.json")])
    shown = capsys.readouterr().out

    assert code == 0
    assert shown.startswith("The certificate holds.")
    assert shown.index("Proved") < shown.index("hospital-2 states") < shown.index("Not proved")


def test_changed_certificate_is_one_line_and_a_code(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed.json"
    changed.write_bytes((folder / "certificate.json").read_bytes() + b"\n")

    for path in (changed, tmp_path / "none"):
        code = main([str(path), "--keys", str(folder / "keys.json")])
        shown = capsys.readouterr()
        assert (code, shown.out) == (EXIT_CODE, "")
        assert shown.err.startswith("error: ")
        assert shown.err.count("\n") == 1


@pytest.mark.processes
def test_verifier_needs_nothing_but_two_packages(folder: Path) -> None:
    words = [str(folder / "certificate.json"), "--keys", str(folder / "keys.json"), "--json"]

    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", BLOCKER, *words], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["request_id"] == "request-2"


@pytest.mark.processes
def test_blocker_would_notice_another_package() -> None:
    """Proves that the test above can fail."""
    script = BLOCKER.replace(
        '"fedmunkey.common.proofs.verify_certificate"', '"fedmunkey.common.proofs.certificate_page"'
    )

    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )

    assert "blocked: jinja2" in ended.stderr
