"""Which worker runs which tests: what is not said aloud if a later pytest or xdist does otherwise."""

from __future__ import annotations

from typing import Any, cast

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.distribution import LONGEST, ROOT, ModuleScheduling, longest_first


def scope(nodeid: str) -> str:
    return ModuleScheduling._split_scope(cast(Any, None), nodeid)


def test_tests_of_a_module_are_run_by_one_worker_and_federations_one_after_the_other() -> None:
    federations = ["tests/simulations/run/test_run.py::test_one", "tests/simulations/test_run_guarantees.py::test_two"]

    assert scope("tests/test_words.py::test_one[a::b@c]") == scope("tests/test_words.py::TestSome::test_two")
    assert scope("tests/test_words.py::test_one") != scope("tests/test_house.py::test_one")
    assert len(set(map(scope, federations))) == 1


def test_longest_modules_are_there_and_begin_first(request: pytest.FixtureRequest) -> None:
    items = list(request.session.items)
    longest_first(items)
    modules = list(dict.fromkeys(item.nodeid.partition("::")[0] for item in items))
    begun = [module for module in modules if module in LONGEST]

    assert [module for module in LONGEST if not (ROOT / module).is_file()] == []
    assert begun == [module for module in LONGEST if module in modules]
    assert sorted(item.nodeid for item in items) == sorted(item.nodeid for item in request.session.items)


def test_what_is_overridden_is_what_xdist_asks(request: pytest.FixtureRequest) -> None:
    assert hasattr(request.config.hook, "pytest_xdist_make_scheduler")
    assert callable(LoadScopeScheduling._split_scope)
