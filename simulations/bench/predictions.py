"""What a hospital waits for: answers about picture files by a predictor that is loaded, and by the local service."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from fedmunkey.client.commands.serve_predictions import PREDICTIONS_READY
from fedmunkey.client.importing.encoding import encode, enrol
from fedmunkey.client.predicting.warm_predictor import Asked, WarmPredictor
from fedmunkey.client.records.dataset import Consent, Dataset, Split, batches
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.model_choice import choose_encoder
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.model.torchvision_import import import_torchvision
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_least, at_most
from fedmunkey.simulations.programs.machine import torch_threads

_RATE = Figure("predictions-rate", "answers about picture files by a loaded predictor", "1/s", at_least(20.0))
_COST = Figure("predictions-cost", "processor time of one of these answers", "ms")
_SERVICE = Figure("service-answer", "one picture answered by serve-predictions, median", "ms", at_most(100.0))
_SLOWEST = Figure("service-answer-p95", "the same, 95% of the answers", "ms")

_ENCODER = "squeezenet1_0"
_THREADS = 2
_SIDE = 224
_END_SECONDS = 30.0


def _measure(bench: Bench) -> Iterator[Measured]:
    """Ask about digits, drawn large, with SqueezeNet; its weights are random, which changes no time."""
    records, pictures, asked = (20, 4, 3) if bench.quick else (500, 1000, 100)
    with bench.folder() as folder, bench.progress.counting("predictions", pictures + asked) as count:
        site, given = _make_site(folder, records)
        files = _draw(folder / "pictures", pictures)
        predictor = WarmPredictor(site, Asked(given))
        with torch_threads(_THREADS):
            predictor.answer([(files[0], "first")])
            start, spent = time.perf_counter(), time.process_time()
            for some in batches(files):
                predictor.answer([(path, path.name) for path in some])
                count(len(some))
            seconds, processor = time.perf_counter() - start, time.process_time() - spent
        note = f"{pictures:,} PNG files of {_SIDE} x {_SIDE}, {records} records, {_ENCODER}, {_THREADS} threads"
        yield bench.result(_RATE, pictures / seconds, note, seconds=seconds)
        yield bench.result(_COST, 1000 * processor / pictures, "both threads together")
        took = 1000 * np.array(_ask_service(folder, site, given, files, asked, count))
        note = f"{asked} answers one after the other, over a Unix socket, {_THREADS} threads"
        yield bench.result(_SERVICE, float(np.median(took)), note, milliseconds=took.tolist())
        yield bench.result(_SLOWEST, float(np.quantile(took, 0.95)))


def _make_site(folder: Path, records: int) -> tuple[SiteFolder, dict[str, bool | int | float | str]]:
    """Make a site whose encoder is a SqueezeNet, and return the settings that say so."""
    weights = folder / "encoder.pth"
    torch.manual_seed(0)
    torch.save(import_torchvision().models.squeezenet1_0(weights=None).state_dict(), weights)
    given: dict[str, bool | int | float | str] = {
        "encoder": _ENCODER,
        "encoder-weights": str(weights),
        "image-shape": "1x8x8",
        "num-classes": 10,
        "image-path": ImagePath.FROZEN.value,
    }
    settings = Settings.parse(given)
    encoder = choose_encoder(settings)
    site = SiteFolder(folder / "hospital-1")
    secret = FederationSecret.generate()
    shape = ModelShape.of(Recipe.of(settings), encoder.feature_shape)
    with site.create("hospital-1", settings, encoder, shape) as store:
        for some in encode(encoder, _digits(records)):
            enrol(store, [some], secret)
    return site, given


def _digits(count: int) -> Dataset:
    found = load_digits()
    names = np.array([f"digit-{row}" for row in range(count)])
    return Dataset(
        images=np.rint(found.images[:count] * 15).astype(np.uint8)[:, None],
        labels=found.target[:count].astype(np.int64),
        record_ids=names,
        subject_ids=names,
        splits=np.full(count, Split.TRAIN.value),
        consents=np.full(count, Consent.REVOCABLE.value),
        class_names=tuple(str(label) for label in range(10)),
    )


def _draw(folder: Path, count: int) -> list[Path]:
    """Write so many digits as PNG files of a size that an encoder reads."""
    folder.mkdir()
    images = np.rint(load_digits().images * 15).astype(np.uint8)
    files = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.fromarray(images[number % len(images)]).resize((_SIDE, _SIDE)).save(path)
        files.append(path)
    return files


def _ask_service(
    folder: Path,
    site: SiteFolder,
    given: dict[str, bool | int | float | str],
    files: list[Path],
    asked: int,
    count: Callable[[int], None],
) -> list[float]:
    """Return how long each of some answers took, in seconds, after a first one."""
    took = []
    with _serving(folder, site, given) as path:
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=60.0) as client:
            for number in range(asked + 1):
                content = files[number % len(files)].read_bytes()
                start = time.perf_counter()
                client.post("/predictions", content=content).raise_for_status()
                took.append(time.perf_counter() - start)
                count(int(number > 0))
    return took[1:]


@contextmanager
def _serving(folder: Path, site: SiteFolder, given: dict[str, bool | int | float | str]) -> Iterator[Path]:
    """Run `munkey-client serve-predictions` while the context lasts; yield its socket."""
    path = folder / "predictions.sock"
    words = ["serve-predictions", "--site-dir", str(site.path), "--socket", str(path)]
    words += [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    with (folder / "service.log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603 (our own program)
            own_program("fedmunkey.client.cli", *words),
            env={**os.environ, "OMP_NUM_THREADS": str(_THREADS)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith(PREDICTIONS_READY):
            raise FederationStopped(f"the prediction service did not start: {(folder / 'service.log').read_text()}")
        yield path
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


GROUP = Group("predictions", (_RATE, _COST, _SERVICE, _SLOWEST), _measure)
