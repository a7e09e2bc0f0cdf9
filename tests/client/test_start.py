"""What only forgets starts at once: torch, which takes seconds to import, is left to the commands that need it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedmunkey.client.key_store import KeyStore

ROOT = Path(__file__).parents[2]

_PROGRAM = """
import sys
from fedmunkey.client.cli import app
from fedmunkey.common.programs import command_line
sys.argv = ["munkey-client", *sys.argv[1:]]
try:
    command_line.run(app)
finally:
    heavy = sorted({"torch", "torchvision", "scipy", "flwr", "sqlalchemy", "ray"} & set(sys.modules))
    print("imported:", *heavy)
"""


def run(*words: str) -> list[str]:
    """Run a command in a process of its own and return its lines."""
    command = [sys.executable, "-c", _PROGRAM, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)  # noqa: S603
    return done.stdout.splitlines()


@pytest.mark.processes
def test_commands_that_compute_nothing_do_not_import_torch() -> None:
    names = ["agent", "catch-up", "forget", "status", "verify", "certificate", "verify-erasure"]
    program = (
        "import sys, typer; from fedmunkey.client.cli import app; "
        f"commands = typer.main.get_command(app).commands; print(*(commands[name].name for name in {names})); "
        "print(*sorted({'torch', 'flwr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=900)  # noqa: S603

    assert done.stdout.splitlines() == [" ".join(names), ""]


# A port of this machine at which nobody listens: catching up does all that the agent does, and ends.
CATCH_UP = ["catch-up", "--service", "127.0.0.1:1", "--patience", "0"]


@pytest.mark.processes
@pytest.mark.parametrize("words", [["status"], [*CATCH_UP, "--insecure-orders"]])
def test_command_of_a_site_does_not_import_torch(store: KeyStore, words: list[str]) -> None:
    lines = run(*words, "--site-dir", str(store.path.parent))

    assert words[0] != "status" or any("hospital-1" in line for line in lines)
    assert lines[-1] == "imported:"
