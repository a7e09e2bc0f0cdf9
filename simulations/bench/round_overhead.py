"""What a round costs more than on plain Flower: the same sums, tallies and weights, sites and machine, side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedmunkey.common.closed_form.folds import folds_of
from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.model.model_choice import choose_encoder
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_most
from fedmunkey.simulations.bench.plain_flower import APPS, RECORDS, SECONDS
from fedmunkey.simulations.federation.hospitals import encode_all, share_out
from fedmunkey.simulations.federation.partition import homes_of
from fedmunkey.simulations.federation.sources import load_dataset
from fedmunkey.simulations.programs.machine import usable_cores
from fedmunkey.simulations.programs.progress import Progress
from fedmunkey.simulations.run.experiment import Experiment
from fedmunkey.simulations.run.flower_runtime import running_federation
from fedmunkey.simulations.run.run import simulate

_OVERHEAD = Figure(
    "round-overhead",
    "a round of 10 hospitals with the digits, catching up with deletions included, over the same on plain Flower",
    "x",
    at_most(1.1),
)
_SEED = 3
_HOSPITALS = 10


def _measure(bench: Bench) -> Iterator[Measured]:
    """Run both in turn; the first round of each run, which waits for the workers' imports, does not count."""
    turns, rounds, hospitals = (1, 2, 3) if bench.quick else (3, 5, _HOSPITALS)
    ours: list[float] = []
    plain: list[float] = []
    with bench.progress.counting("rounds beside plain Flower", 2 * turns) as count:
        for _ in range(turns):
            with bench.folder() as folder:
                settings, seconds = _ours(folder / "run", hospitals, rounds)
                ours += seconds
                count(1)
                plain += _plain(folder / "plain", settings, hospitals)
                count(1)
    note = f"median of {len(ours)} rounds: {np.median(ours):.2f} s and {np.median(plain):.2f} s"
    yield bench.result(_OVERHEAD, float(np.median(ours) / np.median(plain)), note, ours=ours, plain=plain)


def _ours(folder: Path, hospitals: int, rounds: int) -> tuple[Settings, list[float]]:
    """Run a simulation that deletes before each round but the first; return its settings and the rounds' seconds."""
    plan = [f"records:1%@{number}" for number in range(2, rounds + 1)]
    experiment = Experiment(
        data="digits",
        data_dir=None,
        hospitals=hospitals,
        alpha=float("inf"),
        permanent=None,
        deletions=plan,
        overrides={"seed": _SEED},
        baselines=[],
        output=folder,
        cores=min(usable_cores(), hospitals),
    )
    with Progress.quiet() as progress:
        document = simulate(experiment, progress)
    # What a round takes once its deletions have been carried out and measured.
    seconds = [event["release_seconds"] for event in document["rounds"]]
    return Settings.parse(document["settings"]), seconds[1:]


def _plain(folder: Path, settings: Settings, hospitals: int) -> list[float]:
    """Run as many rounds on plain Flower, with the records that the hospitals were given; return their seconds."""
    folder.mkdir()
    settings = settings.replace(sites_dir=str(folder), output_dir=str(folder))
    digits = load_dataset("digits", data_dir=None, seed=settings.seed)
    homes = homes_of(digits, hospitals, alpha=float("inf"), seed=settings.seed)
    given = share_out(encode_all(choose_encoder(settings), digits), homes, hospitals, folder, shares=False)
    for place, hospital in enumerate(given):
        records, encoding = hospital.given.records, hospital.given.encoding
        np.savez(
            folder / RECORDS.format(place),
            keys=encoding.keys.numpy(),
            features=encoding.features.numpy(),
            labels=records.labels,
            folds=folds_of(records.subject_ids.tolist()),
        )
    cores = min(usable_cores(), hospitals)
    with running_federation(settings, sites=hospitals, cores=cores, logs=folder / "logs", apps=APPS) as run:
        run.wait()
    try:
        found: list[float] = json.loads((folder / SECONDS).read_text(encoding="utf-8"))
    except OSError:
        raise FederationStopped(f"plain Flower ended before its last round; see {folder / 'logs'}") from None
    return found[1:]


GROUP = Group("rounds", (_OVERHEAD,), _measure)
