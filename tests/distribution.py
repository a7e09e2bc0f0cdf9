"""Which worker of pytest-xdist runs which tests, and what begins first."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]
FEDERATIONS = "modules that run Flower"
LONGEST = (
    "tests/simulations/faults/test_command.py",
    "tests/simulations/test_bench.py",
    "tests/test_deletion_between_processes.py",
    "tests/test_no_identity_leaks.py",
    "tests/simulations/audit/test_cheats.py",
    "tests/simulations/audit/test_command.py",
    "tests/simulations/comparison/test_command.py",
    "tests/simulations/reporting/test_html.py",
    "tests/test_light_imports.py",
    "tests/test_installation.py",
    "tests/test_restored_members.py",
    "tests/server/test_two_services.py",
)
"""Modules that take longest; the last to begin would be waited for."""


class ModuleScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Keeps a module's tests in one process, for its fixtures, and runs one Flower federation at a time.

    xdist's groups would do so by marks: pytest 9.2 does not read the ids any more in which xdist 3.8 writes them, and
    says nothing.
    """

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid.partition("::")[0])


@cache
def scope_of(module: str) -> str:
    """Return the name of what is run in one process with a module, whose path is from the root on."""
    return FEDERATIONS if "pytest.mark.flower" in (ROOT / module).read_text() else module


def longest_first(items: list[pytest.Item]) -> None:
    """Put tests of the longest modules first, and federations before them, each module's together and in its order."""
    places = {module: place for place, module in enumerate(LONGEST)}

    def place(item: pytest.Item) -> tuple[bool, int]:
        module = item.nodeid.partition("::")[0]
        return scope_of(module) != FEDERATIONS, places.get(module, len(places))

    items.sort(key=place)
