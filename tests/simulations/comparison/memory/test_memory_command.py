"""`munkey-sim memory` as a person uses it, and what a memory can and cannot add."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.comparison.memory import memory_command
from fedmunkey.simulations.comparison.memory.memory_figures import Asked, ask
from fedmunkey.simulations.federation.encoded_set import EncodedSet, load_encoded
from fedmunkey.simulations.programs.progress import Progress
from tests.simulations.conftest import MunkeySim


@pytest.fixture(scope="module")
def digits() -> EncodedSet:
    return load_encoded("digits", {"random-features": 100, "image-path": "frozen"}, None, Progress.quiet())


def test_class_that_no_weight_has_seen_is_known_by_memory_alone(digits: EncodedSet) -> None:
    answered = ask(Asked.NEW, digits.images, digits.settings, 3, 0)

    assert answered.weights == 0
    assert answered.memory > 50
    assert answered.neighbours > 50


def test_late_and_shifted_hospitals_gain_by_their_memory(digits: EncodedSet) -> None:
    late, shifted = (ask(asked, digits.images, digits.settings, 3, 1) for asked in (Asked.LATE, Asked.SHIFTED))

    assert late.memory > late.weights + 1
    assert shifted.memory > shifted.weights + 1
    # The images are others, not only the words for them.
    assert shifted != late


def test_transformer_knows_a_new_class_without_training(digits: EncodedSet) -> None:
    values = {**digits.settings.to_config(), "guarantee": "empirical", "num-rounds": 1, "width": 16, "heads": 2}
    settings = Settings.parse(values)

    answered = ask(Asked.NEW, digits.images, settings, 3, 0)

    assert answered.memory > answered.weights


def test_table_and_document_have_every_question(
    munkey_sim: MunkeySim, few_npz: Path, tmp_path: Path, tasks_here: Callable[[ModuleType], list[Any]]
) -> None:
    tasks = tasks_here(memory_command)
    words = ["--hospitals", "2", "--seeds", "2", "--set", "random-features=50", "--output", str(tmp_path / "m.json")]
    code, out, err = munkey_sim("memory", "--data", str(few_npz), *words)

    assert code == 0, err
    assert len(tasks) == len(Asked) * 2
    results = json.loads((tmp_path / "m.json").read_text())["results"]
    assert {one["asked"] for one in results} == {asked.value for asked in Asked}
    assert all(0 <= one[name] <= 100 for one in results for name in ("weights", "memory", "neighbours"))
    assert all(asked.value in out for asked in Asked)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--hospitals", "1"], "--hospitals 1: one of them comes late; give at least 2"),
        (["--guarantee", "certified"], "--guarantee certified: is not asked here"),
        (["--output", "."], "--output .: must be a file"),
    ],
)
def test_what_cannot_be_asked_is_one_line(munkey_sim: MunkeySim, few_npz: Path, words: list[str], reason: str) -> None:
    code, _, err = munkey_sim("memory", "--data", str(few_npz), *words)

    assert code == EXIT_CODE
    assert reason in err.splitlines()[-1]
