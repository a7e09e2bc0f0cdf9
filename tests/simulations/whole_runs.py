"""Whole runs of `munkey-sim run` in a process of their own, and the weights that they have to come to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fedmunkey.common.model.model_choice import choose_encoder, choose_shape
from fedmunkey.common.programs.flower import IMPORT_ROOT
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.hospitals import encode_all, give
from fedmunkey.simulations.federation.partition import partition
from fedmunkey.simulations.federation.solved_federation import solve_records
from fedmunkey.simulations.federation.sources import load_dataset
from fedmunkey.simulations.run.plan import forget_rows, parse_plan, resolve

RUN_SECONDS = 900.0
"""The longest that a run may take, on a machine that has much else to do."""


def started(*words: str, temporary: Path, mark: str = "") -> subprocess.Popen[bytes]:
    """Start `munkey-sim run`; the mark is in the environment of all processes that descend from it."""
    command = [sys.executable, "-P", "-c", "from fedmunkey.simulations.cli import main; main()", "run", *words]
    environment = {**os.environ, "PYTHONPATH": str(IMPORT_ROOT), "TMPDIR": str(temporary), "MUNKEY_TEST_MARK": mark}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603


def wait_for(so: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not so() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(so())


def expected_weights(settings: Settings, hospitals: int, plan: Sequence[str]) -> str:
    """Return the digest of what is solved for, here, from the digits that a plan leaves to some hospitals."""
    digits = load_dataset("digits", data_dir=None, seed=settings.seed)
    parts = partition(digits, hospitals, alpha=1.0, seed=settings.seed)
    resolved = resolve(parse_plan(plan, hospitals=hospitals, num_rounds=settings.rounds), parts, settings.seed)
    everything = encode_all(choose_encoder(settings), digits)
    left = {}
    for hospital, gone in zip(give(everything, parts, Path()), forget_rows(resolved, hospitals), strict=True):
        kept = hospital.given.records.splits == "train"
        kept[gone] = False
        left[hospital.name] = hospital.given.select(kept)
    return solve_records(left, settings, choose_shape(settings)).release.digest()
