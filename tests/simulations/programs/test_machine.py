"""A figure is worth something only with the machine that it was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest
import torch

from fedmunkey.simulations.programs.machine import describe_machine


def test_machine_is_described_by_what_matters_for_a_figure() -> None:
    machine = describe_machine()

    assert machine["processor"]
    assert machine["cores"] == len(os.sched_getaffinity(0))
    assert isinstance(machine["memory_gib"], int)
    assert machine["memory_gib"] > 0
    assert str(machine["system"]).startswith(platform.system())
    assert machine["accelerator"] == (torch.cuda.get_device_name() if torch.cuda.is_available() else "none")


def test_accelerator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")

    assert describe_machine()["accelerator"] == "NVIDIA H100"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("processor\t: 0\nmodel name\t: Fast: 3000 @ 2 GHz\n", "Fast: 3000 @ 2 GHz"),
        ("processor\t: 0\n", platform.processor() or platform.machine()),
        (None, platform.processor() or platform.machine()),
    ],
)
def test_processor_is_named_as_well_as_the_system_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, name: str
) -> None:
    information = tmp_path / "cpuinfo"
    if content is not None:
        information.write_text(content)
    monkeypatch.setattr("fedmunkey.simulations.programs.machine.Path", lambda _: information)

    assert describe_machine()["processor"] == name
