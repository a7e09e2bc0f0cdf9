"""A deletion request over gRPC against retraining without what it deletes."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fedmunkey.client.learning.bank import read_bank
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, Subject
from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.model.model_choice import choose_encoder, choose_shape
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_least
from fedmunkey.simulations.federation.hospitals import Hospital, encode_all, give, open_hospital
from fedmunkey.simulations.federation.partition import partition
from fedmunkey.simulations.federation.sources import load_dataset
from fedmunkey.simulations.programs.machine import torch_threads
from fedmunkey.simulations.run.agents import running_agents
from fedmunkey.simulations.run.baselines import Baseline, Comparison, run_baseline

_TARGET = at_least(1000.0)
_ONE_SITE = Figure(
    "deletion-speed",
    "deletion of a hospital's own subject over gRPC: how many times faster than retraining, digits, 5 hospitals",
    "x",
    _TARGET,
)
_EVERY_SITE = Figure(
    "deletion-speed-everywhere",
    "deletion of a subject at all 5 hospitals over gRPC: how many times faster than retraining",
    "x",
    _TARGET,
)
_HOSPITALS = 5
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.1


def _measure(bench: Bench) -> Iterator[Measured]:
    """Delete subjects before and after the federation is trained again without them, each request by itself."""
    requests = 2 if bench.quick else 20
    settings = Settings(guarantee=Guarantee.EMPIRICAL)
    if bench.quick:
        settings = settings.replace(num_rounds=1, local_epochs=1)
    secret = FederationSecret.generate()
    with bench.folder() as folder:
        settings, hospitals = _hospitals(settings, folder, secret)
        subjects = [str(name) for name in hospitals[0].given.split(Split.TRAIN).records.subject_ids[: 4 * requests]]
        orders = [
            DeletionRequest(f"bench-{number}", requester, Subject(secret.reference(subject)))
            for number, (subject, requester) in enumerate(
                zip(subjects, itertools.cycle((hospitals[0].name, OFFICER)), strict=False)
            )
        ]
        with (
            bench.progress.counting("deleting, retraining", len(orders) + 1) as count,
            _deletions(settings, hospitals, folder) as delete,
        ):
            seconds = _time(delete, orders[: 2 * requests], count)
            with torch_threads(1):
                retraining = run_baseline(Baseline.ORACLE, _without(subjects, settings, hospitals)).seconds
            count(1)
            seconds += _time(delete, orders[2 * requests :], count)
    for figure, found in ((_ONE_SITE, seconds[::2]), (_EVERY_SITE, seconds[1::2])):
        median = float(np.median(found))
        note = (
            f"from the request's submission to the last answer in the ledger, median of {len(found)}; "
            f"retraining: {settings.rounds} rounds of {settings.local_epochs} epochs, 1 thread, without Flower"
        )
        details = {"request_seconds": median, "slowest_request_seconds": max(found), "retraining_seconds": retraining}
        yield bench.result(figure, retraining / median, note, **details)


def _hospitals(settings: Settings, folder: Path, secret: FederationSecret) -> tuple[Settings, list[Hospital]]:
    """Return the settings of five hospitals on digits, and these, with trained entries in their key stores."""
    dataset = load_dataset("digits", data_dir=None, seed=settings.seed)
    settings = settings.replace(
        num_classes=dataset.num_classes, image_shape=str(dataset.image_shape), sites_dir=str(folder / "sites")
    )
    encoder, shape = choose_encoder(settings), choose_shape(settings)
    parts = partition(dataset, _HOSPITALS, alpha=1.0, seed=settings.seed)
    hospitals = give(encode_all(encoder, dataset), parts, Path(settings.sites_dir))
    for hospital in hospitals:
        open_hospital(hospital, settings, encoder, shape, secret)
        with hospital.folder.open() as store:
            bank = read_bank(store, Recipe.of(settings).neighbours)
            store.records.write_tokens(bank.generation, bank.entries, bank.tokens)
    return settings, hospitals


def _without(subjects: Sequence[str], settings: Settings, hospitals: Sequence[Hospital]) -> Comparison:
    forgotten = {h.name: np.flatnonzero(np.isin(h.given.records.subject_ids, subjects)) for h in hospitals}
    return Comparison(hospitals, forgotten, settings, choose_shape(settings))


@contextlib.contextmanager
def _deletions(
    settings: Settings, hospitals: Sequence[Hospital], folder: Path
) -> Iterator[Callable[[DeletionRequest], float]]:
    """Run a deletion service and the hospitals' agents; yield what sends a request and returns its seconds."""
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(Ledger(folder / "ledger.sqlite"))
        for hospital in hospitals:
            ledger.register(hospital.name)
        service = stack.enter_context(contextlib.closing(LedgerService(ledger)))
        server = stack.enter_context(DeletionServer(service))
        stack.enter_context(running_agents(hospitals, settings.replace(deletion_service=server.address)))
        channel = stack.enter_context(DeletionChannel(server.address))

        def delete(request: DeletionRequest) -> float:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            status = channel.submit(request)
            while status.seconds is None:
                if time.monotonic() > deadline:
                    raise FederationStopped(f"a deletion had no answer in {_PATIENCE_SECONDS:.0f} s")
                time.sleep(_POLL_SECONDS)
                status = channel.get(request.request_id)
            return status.seconds

        yield delete


def _time(
    delete: Callable[[DeletionRequest], float], requests: Sequence[DeletionRequest], count: Callable[[int], None]
) -> list[float]:
    seconds = []
    for request in requests:
        seconds.append(delete(request))
        count(1)
    return seconds


GROUP = Group("deletion-speed", (_ONE_SITE, _EVERY_SITE), _measure)
