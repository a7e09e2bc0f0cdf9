"""Example reports, one of each kind; every test gets its own to change."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulations.reporting import examples


@pytest.fixture
def audit() -> dict[str, Any]:
    return examples.audit()


@pytest.fixture
def comparison() -> dict[str, Any]:
    return examples.comparison()


@pytest.fixture
def run() -> dict[str, Any]:
    return examples.run()


@pytest.fixture(params=["run", "audit", "comparison"])
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    made: dict[str, Any] = getattr(examples, request.param)()
    return made
