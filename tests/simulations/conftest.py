"""Three small hospitals with real key stores, as the simulation's tests need them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch

from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.model_choice import choose_encoder, choose_shape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.cli import main
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital, encode_all, give, open_hospital
from fedmunkey.simulations.federation.partition import partition
from fedmunkey.simulations.federation.sources import load_dataset
from tests.typed import runner

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.serverapp import Grid

MunkeySim = Callable[..., tuple[int, str, str]]

_RECORDS = {Split.TRAIN: 60, Split.VAL: 6, Split.TEST: 20}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Models this small lose by threads, far more so where other processes run.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def first_digits(counts: Mapping[Split, int]) -> Dataset:
    """Return so many of scikit-learn's digits of each split."""
    digits = load_dataset("digits", data_dir=None, seed=0)
    rows = np.concatenate([np.flatnonzero(digits.splits == split.value)[:n] for split, n in counts.items()])
    return digits.select(np.sort(rows))


def write_npz(digits: Dataset, path: Path) -> Path:
    """Write digits as a file in the MedMNIST layout."""
    arrays: dict[str, Any] = {}
    for split in Split:
        records = digits.split(split)
        arrays |= {f"{split}_images": records.images[:, 0], f"{split}_labels": records.labels[:, None]}
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def few_digits() -> Dataset:
    """Some digits of each split; two records each make a subject."""
    few = first_digits(_RECORDS)
    subjects = np.empty(len(few), dtype="<U20")
    for split in Split:
        own = np.flatnonzero(few.splits == split.value)
        subjects[own] = [f"{split}-subject-{place // 2}" for place in range(len(own))]
    return Dataset(few.images, few.labels, few.record_ids, subjects, few.splits, few.consents, few.class_names)


@pytest.fixture
def few_npz(few_digits: Dataset, tmp_path: Path) -> Path:
    """The few digits as a file in the MedMNIST layout."""
    return write_npz(few_digits, tmp_path / "few.npz")


@pytest.fixture
def munkey_sim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> MunkeySim:
    """Run `munkey-sim` with some words; return its exit code, stdout and stderr."""
    return runner("munkey-sim", main, monkeypatch, capsys)


@pytest.fixture
def tasks_here(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], list[Any]]:
    """Return a function that makes a module run its tasks in this process, and returns a list of those that it ran."""

    def here(module: ModuleType) -> list[Any]:
        ran: list[Any] = []

        def run_tasks(
            work: Callable[..., Any],
            tasks: Sequence[Any],
            arguments: Callable[[Any], tuple[Any, ...]],
            *,
            cores: int,
            done: Callable[[Any, Any], None],
        ) -> None:
            assert cores >= 1
            for task in tasks:
                ran.append(task)
                done(task, work(*arguments(task)))

        monkeypatch.setattr(module, "run_tasks", run_tasks)
        return ran

    return here


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a federation that is quick to train."""
    return Settings().replace(
        guarantee="empirical",
        num_rounds=3,
        min_sites=3,
        width=16,
        depth=1,
        heads=2,
        exemplar_size=8,
        neighbours=3,
        local_epochs=1,
        batch_size=16,
        sites_dir=str(tmp_path / "sites"),
        output_dir=str(tmp_path / "coordinator"),
        deletion_patience=5,
    )


@pytest.fixture
def encoder(settings: Settings) -> Encoder:
    return choose_encoder(settings)


@pytest.fixture
def shape(settings: Settings) -> ModelShape:
    return choose_shape(settings)


@pytest.fixture
def secret() -> FederationSecret:
    return FederationSecret(bytes(range(32)))


@pytest.fixture
def everything(few_digits: Dataset, encoder: Encoder) -> Encoded:
    return encode_all(encoder, few_digits)


@pytest.fixture
def hospitals(everything: Encoded, settings: Settings) -> list[Hospital]:
    """Three hospitals without key stores."""
    parts = partition(everything.records, 3, alpha=1.0, seed=0)
    return give(everything, parts, Path(settings.sites_dir))


@pytest.fixture
def open_hospitals(
    hospitals: list[Hospital], settings: Settings, encoder: Encoder, shape: ModelShape, secret: FederationSecret
) -> list[Hospital]:
    """Three hospitals with key stores that hold what they were given."""
    for hospital in hospitals:
        open_hospital(hospital, settings, encoder, shape, secret)
    return hospitals


@pytest.fixture
def make_grid(within_a_run: None) -> Callable[[Settings, int], Grid]:
    """Return a function that makes nodes in this process, which run the sites' Flower app; the last answers first."""
    del within_a_run
    # Flower takes seconds to import, and few tests need it.
    from flwr.app import Context, RecordDict
    from flwr.serverapp import Grid

    from fedmunkey.client.app import app

    def make(settings: Settings, sites: int) -> Grid:
        contexts = {
            100 + place: Context(1, 100 + place, {"partition-id": place}, RecordDict(), settings.to_config())
            for place in range(sites)
        }

        def answer(messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
            del timeout
            asked = sorted(messages, key=lambda message: -message.metadata.dst_node_id)
            return [app(message, contexts[message.metadata.dst_node_id]) for message in asked]

        grid = create_autospec(Grid, instance=True)
        grid.get_node_ids.return_value = list(contexts)
        grid.send_and_receive.side_effect = answer
        return cast(Grid, grid)

    return make


@pytest.fixture(scope="session")
def marked_processes() -> Callable[[str], list[str]]:
    """Return the commands of the running processes that were started with a word in their environment.

    Unlike a process group, the environment is also inherited by those that start a session of their own, as Ray's do.
    """

    def find(mark: str) -> list[str]:
        found = []
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdecimal() and mark.encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                # It ended while we looked, or is another user's.
                continue
        return found

    return find
