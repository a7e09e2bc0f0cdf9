"""One simulation from data to report: prepare, open the hospitals, train and forget, compare, write down."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.release import Release
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.errors import FederationStopped, InvalidDeletion, InvalidSetting
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.model_choice import choose_encoder, choose_shape, first_model
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import MOST_ROUNDS, Settings
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.rounds.run_record import EVENTS, FINISHED, LAST, ROUND, STOPPED, WAITING
from fedmunkey.simulations.federation.consent import donate
from fedmunkey.simulations.federation.encoded_set import dataset_digest
from fedmunkey.simulations.federation.enrolling import HELD_OUT, enrol_all, share_held_out
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital, encode_all, share_out
from fedmunkey.simulations.federation.partition import homes_of
from fedmunkey.simulations.federation.scanners import as_scanned
from fedmunkey.simulations.federation.sources import load_dataset
from fedmunkey.simulations.programs.machine import torch_threads
from fedmunkey.simulations.programs.progress import Progress
from fedmunkey.simulations.run.agents import running_agents
from fedmunkey.simulations.run.baselines import Comparison, run_baselines
from fedmunkey.simulations.run.changes import Change, Timeline, parse_changes
from fedmunkey.simulations.run.deletions import DeletionDriver, read_weights
from fedmunkey.simulations.run.experiment import Experiment
from fedmunkey.simulations.run.flower_runtime import running_federation
from fedmunkey.simulations.run.kept_run import COORDINATOR, KeptRun
from fedmunkey.simulations.run.left import same_weights, what_is_left
from fedmunkey.simulations.run.plan import PlannedDeletion, ResolvedDeletion, parse_plan, resolve
from fedmunkey.simulations.run.presence import Presence
from fedmunkey.simulations.run.report import run_document

LOGS = "logs"
_POLL_SECONDS = 0.1
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_EXCEPTION = re.compile(r"\s*(?:\w+\.)*\w*(?:Error|Exception): ")
_SHOWN = 200
"""Characters of an exception that are shown."""

_OWN = {
    "deletion-service": "use --deletion-service",
    "image-shape": "it comes from --data",
    "min-sites": "use --hospitals",
    "num-classes": "it comes from --data",
    "output-dir": "use --output",
    "sites-dir": "use --output",
}
"""Settings that follow from what a simulation is asked to do, and where to ask."""


@dataclass(frozen=True)
class _Prepared:
    """Everything that is known and checked before anything is written; `data` is the data set's digest."""

    settings: Settings
    shape: ModelShape
    first_model: Munkey | Release
    encoder: Encoder
    hospitals: list[Hospital]
    held_out: Encoded
    plan: tuple[ResolvedDeletion, ...]
    data: str
    timeline: Timeline


def simulate(experiment: Experiment, progress: Progress, *, resume: bool = False) -> dict[str, Any]:
    """Run a simulation and return the document of its report.

    `resume` goes on with what the output folder holds: with the round after the last that has ended, or from the
    beginning where not all hospitals had enrolled their records. What a strategy other than `fedavg` remembers from
    round to round is lost with the process that was cut off.

    Raises `FedmunkeyError` if something that was asked for cannot be used, before anything is written; or if the
    federation stopped.
    """
    start = time.perf_counter()
    kept = KeptRun(experiment.output)
    prepared = _prepare(experiment, progress, kept if resume else None)
    earlier = kept.prepared_seconds() if resume else None
    if earlier is None:
        secret = _enrol(experiment, prepared, kept, progress)
        prepared_seconds = time.perf_counter() - start
        kept.note_prepared(prepared_seconds)
    else:
        secret, prepared_seconds = prepared.hospitals[0].folder.read_secret(), earlier
    settings, rounds_before = prepared.settings, kept.rounds()
    if len(rounds_before) < settings.rounds:
        prepared = replace(prepared, settings=settings.replace(resume_run=kept.take_up_rounds()))
    names = [hospital.name for hospital in prepared.hospitals]
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(Ledger(experiment.output / "ledger.sqlite"))
        for place, name in enumerate(names):
            if prepared.timeline.is_member(place, 1) and name not in ledger.positions():
                ledger.register(name)
        settings, driver = stack.enter_context(_served(experiment, prepared, ledger, secret, kept, progress))
        stack.enter_context(_logged(experiment.output / LOGS / "simulation.log"))
        driver.hear = stack.enter_context(
            running_agents(prepared.hospitals, settings, come_and_go=bool(experiment.changes))
        )
        training_start = time.perf_counter()
        driver.take_up()
        rounds = rounds_before
        if len(rounds) < settings.rounds:
            rounds = _train(experiment, settings, progress)
        # What comes from here on is about the whole run.
        settings = settings.replace(resume_run=False)
        training_seconds = time.perf_counter() - training_start + sum(event["seconds"] for event in rounds_before)
        weights = read_weights(Path(settings.output_dir) / LAST)
        final = driver.measure_now(weights)
    left, forgotten = what_is_left(prepared.hospitals, prepared.plan, prepared.timeline, settings.rounds)
    same = same_weights(weights, left, forgotten, settings, prepared.shape) if isinstance(weights, Release) else None
    alike = settings.replace(num_rounds=0) if settings.guarantee is Guarantee.EXACT else settings
    comparison = Comparison(left, forgotten, alike, prepared.shape)
    with progress.counting("training the baselines", len(experiment.baselines)) as count:
        baselines = run_baselines(experiment.baselines, comparison, processes=experiment.cores, done=lambda _: count(1))
    return run_document(
        experiment=experiment,
        settings=settings,
        hospitals=prepared.hospitals,
        rounds=rounds,
        deletions=driver.done,
        final=final,
        baselines=baselines,
        preparation_seconds=prepared_seconds,
        training_seconds=training_seconds,
        timeline=prepared.timeline,
        same=same,
    )


def _enrol(experiment: Experiment, prepared: _Prepared, kept: KeptRun, progress: Progress) -> FederationSecret:
    """Make the run's folder and its hospitals; return the secret that they share."""
    secret = FederationSecret.generate()
    _make_folder(experiment.output)
    # What an earlier process has begun and not finished.
    shutil.rmtree(prepared.settings.sites_dir, ignore_errors=True)
    kept.begin(experiment, prepared.data)
    since = prepared.timeline.since
    begin_with = [
        replace(hospital, given=hospital.given.select(rounds == 1))
        for hospital, rounds in zip(prepared.hospitals, since, strict=True)
    ]
    with progress.counting("enrolling records", sum(len(h.given.records) for h in begin_with)) as count:
        about = prepared.settings, prepared.encoder, prepared.shape, secret
        enrol_all(begin_with, *about, cores=experiment.cores, progress=count)
    folder = experiment.shared_folder.resolve() / HELD_OUT
    share_held_out(prepared.held_out, prepared.hospitals, folder, secret, prepared.shape, shares=experiment.in_shares)
    return secret


def _prepare(experiment: Experiment, progress: Progress, resumed: KeptRun | None) -> _Prepared:
    """Read and check everything; nothing is written."""
    output = experiment.output
    for folder, option in ((output, "--output"), (experiment.shared_folder, "--storage")):
        if resumed is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InvalidSetting(f"{folder} is there already and not empty; name another folder with {option}")
    own = next((name for name in experiment.overrides if name in _OWN), None)
    if own is not None:
        raise InvalidSetting(f"{own} = {experiment.overrides[own]}: a simulation sets this itself; {_OWN[own]}")
    settings = Settings.parse(experiment.overrides)
    if experiment.deletion_service:
        settings = settings.replace(deletion_service=experiment.deletion_service)
    settings, plan, changes = _plan(experiment, settings)
    if "fewest-changed" not in experiment.overrides:
        # Everybody here may know who is asked for; the plan says how many go at a time.
        settings = settings.replace(fewest_changed=0)
    if plan and experiment.deletion_service:
        raise InvalidDeletion("a plan of deletions needs the simulation's own deletion service; leave one of them out")
    dataset = load_dataset(experiment.data, data_dir=experiment.data_dir, seed=settings.seed)
    data = dataset_digest(dataset)
    if resumed is not None:
        resumed.check_data(data)
    dataset = donate(dataset, experiment.permanent or 0.0, settings.seed)
    settings = settings.replace(
        num_classes=dataset.num_classes,
        image_shape=str(dataset.image_shape),
        min_sites=experiment.hospitals,
        sites_dir=str((experiment.shared_folder / "sites").resolve()),
        output_dir=str((output / COORDINATOR).resolve()),
        encoder_weights=str(Path(settings.encoder_weights).resolve()) if settings.encoder_weights else "",
        initial_weights=str(Path(settings.initial_weights).resolve()) if settings.initial_weights else "",
    )
    shape = choose_shape(settings)
    model: Munkey | Release
    if settings.guarantee is Guarantee.EXACT:
        read = FeatureMap.of(Recipe.of(settings), shape)
        model = Release.nothing(read, settings.num_classes, settings.encoder)
    else:
        model = first_model(settings, shape)
    encoder = choose_encoder(settings)
    count, seed = experiment.hospitals, settings.seed
    homes = homes_of(dataset, count, alpha=experiment.alpha, seed=seed, by=experiment.divide_by)
    # Before anything that takes long: what cannot be deleted is refused at once.
    parts = [dataset.select(homes == place) for place in range(count)]
    timeline = Timeline.draw(changes, parts, seed)
    resolved = resolve(plan, parts, seed, timeline)
    dataset = as_scanned(dataset, homes, count, experiment.feature_shift, seed)
    with progress.counting("encoding images", len(dataset)) as done, torch_threads(experiment.cores):
        everything = encode_all(encoder, dataset, done)
    folder = Path(settings.sites_dir)
    hospitals = share_out(everything, homes, count, folder, shares=experiment.in_shares)
    held_out = everything.select(homes < 0)
    return _Prepared(settings, shape, model, encoder, hospitals, held_out, resolved, data, timeline)


def _plan(
    experiment: Experiment, settings: Settings
) -> tuple[Settings, tuple[PlannedDeletion, ...], tuple[Change, ...]]:
    """Read what is to happen; return it with the settings, which have as many rounds as it takes."""
    solved = settings.guarantee is Guarantee.EXACT and not settings.num_rounds
    most = MOST_ROUNDS if solved else settings.rounds
    plan = parse_plan(experiment.deletions, hospitals=experiment.hospitals, num_rounds=most)
    changes = parse_changes(experiment.changes, hospitals=experiment.hospitals, num_rounds=most)
    if changes and (settings.guarantee is not Guarantee.EXACT or experiment.deletion_service):
        raise InvalidSetting(
            "hospitals come and go under guarantee = exact and with the simulation's own deletion service only; leave "
            "--change out"
        )
    if solved:
        # Each round solves anew, so there are as many as the plan has moments.
        moments = [planned.round for planned in plan] + [change.until or change.round for change in changes]
        settings = settings.replace(num_rounds=max([1, *moments]))
    return settings, plan, changes


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSetting(f"{path} cannot be made ({error.strerror}); name another folder with --output") from None


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Keep what the agents and the deletion service log in a file: the terminal is for progress and results."""
    path.parent.mkdir(exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(threadName)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


@contextlib.contextmanager
def _served(
    experiment: Experiment,
    prepared: _Prepared,
    ledger: Ledger,
    secret: FederationSecret,
    kept: KeptRun,
    progress: Progress,
) -> Iterator[tuple[Settings, DeletionDriver]]:
    """Serve deletions, and yield the settings that name the address and the driver that carries out the plan."""

    def driver_for(settings: Settings) -> DeletionDriver:
        plan, hospitals, first_model = prepared.plan, prepared.hospitals, prepared.first_model
        return DeletionDriver(
            *(plan, hospitals, settings, secret, first_model, kept),
            on_deletion=lambda done: progress.say(done.summary),
        )

    if experiment.deletion_service:
        yield prepared.settings, driver_for(prepared.settings)
        return
    service = LedgerService(ledger, on_round=lambda number: driver.open_round(number))
    with contextlib.closing(service), DeletionServer(service) as server:
        settings = prepared.settings.replace(deletion_service=server.address)
        driver = driver_for(settings)
        about = prepared.timeline, prepared.hospitals, ledger, secret, settings.guarantee
        driver.presence = Presence(*about) if prepared.timeline.changes else None
        yield settings, driver


def _train(experiment: Experiment, settings: Settings, progress: Progress) -> list[dict[str, Any]]:
    """Run the federation on Flower and return its rounds, those before the first one as well."""
    logs = experiment.output / LOGS
    events = Path(settings.output_dir) / EVENTS
    cores = min(experiment.cores, experiment.hospitals)
    with (
        progress.counting("training", settings.rounds) as count,
        running_federation(
            settings, sites=experiment.hospitals, cores=cores, logs=logs, ray_address=experiment.ray_address
        ) as run,
    ):
        seen: list[dict[str, Any]] = []
        for event in _follow(events, run):
            seen.append(event)
            if event["event"] == ROUND:
                count(1)
                progress.round(event)
            elif event["event"] == WAITING:
                progress.waiting(event)
    last = seen[-1] if seen else {"event": "none"}
    if last["event"] == STOPPED:
        raise FederationStopped(last["reason"])
    if last["event"] != FINISHED:
        log = logs / "run.log"
        raise FederationStopped(f"the federation ended before its last round{_last_error(log)}; see {log}")
    return [event for event in seen if event["event"] == ROUND]


def _last_error(log: Path) -> str:
    """Return the last exception that a log tells of, behind a colon; nothing where there is none."""
    lines = _COLOUR.sub("", log.read_text(encoding="utf-8", errors="replace")).splitlines()
    errors = [line.strip() for line in lines if _EXCEPTION.match(line)]
    return f": {errors[-1][:_SHOWN]}" if errors else ""


def _follow(events: Path, run: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """Yield events as they are written, until the run is over."""
    position = 0
    while True:
        ended = run.poll() is not None
        if events.exists():
            with events.open() as file:
                file.seek(position)
                for line in file:
                    if not line.endswith("\n"):
                        break
                    position += len(line.encode())
                    event = json.loads(line)
                    yield event
                    if event["event"] in (FINISHED, STOPPED):
                        return
        if ended:
            return
        time.sleep(_POLL_SECONDS)
