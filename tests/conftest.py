"""What tests of several packages need."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from fedmunkey.common.model.model import Munkey
from tests.distribution import ModuleScheduling, longest_first

# How fast an example is drawn and runs says something about the machine, not about the code.
settings.register_profile("fedmunkey", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fedmunkey")

# A shell ignores Ctrl-C for what it starts in the background, and so would every program that a test starts from there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ModuleScheduling:
    """Give whole modules to the workers of pytest-xdist, in the order in which they are collected."""
    config.option.loadscopereorder = False
    return ModuleScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the longest tests begin first, where there are several workers."""
    if hasattr(config, "workerinput"):
        longest_first(items)


Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Return a function that runs a program on words as a person types them: exit code, stdout and stderr."""

    def run(main: Callable[[], object], *words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def opinionated() -> Callable[[Munkey], Munkey]:
    """Return a function that draws those weights of a model that are zero at first, so that it has an opinion."""

    def draw(model: Munkey) -> Munkey:
        draws = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.startswith(("linear.", "head.")):
                    weight.normal_(generator=draws)
        return model

    return draw


@pytest.fixture
def within_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be one that runs a task of Flower's, as it makes messages only there."""
    # Flower takes seconds to import, and few tests need it.
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
