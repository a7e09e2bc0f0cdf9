"""Carrying out a plan of deletions while the federation trains: real requests over gRPC to the hospitals' agents."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.learning.bank import read_bank
from fedmunkey.common.closed_form.release import Release, is_release, read_release
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.status_words import combined_loss, weakest_guarantee
from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionRequest,
    Records,
    RequestState,
    RequestStatus,
    SiteState,
    Subject,
    Target,
    WholeSite,
)
from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.model.checkpoints import read_checkpoint
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.deletion_service import DeletionService
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.rounds.run_record import LAST
from fedmunkey.simulations.federation.answers import Answers, HospitalBank, MunkeyAnswers
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.federation.measurement import Measurement, measure
from fedmunkey.simulations.federation.solved_federation import SolvedAnswers, SolvedPlace, solve_federation
from fedmunkey.simulations.run.agents import Hear
from fedmunkey.simulations.run.kept_run import KeptRun
from fedmunkey.simulations.run.plan import DeletionKind, ResolvedDeletion, forget_rows
from fedmunkey.simulations.run.presence import Presence

_ANSWER_SECONDS = 120.0
_POLL_SECONDS = 0.01
_BEFORE, _AFTER = "before", "after"


@dataclass(frozen=True)
class CarriedOut:
    """One deletion of the plan, the completed requests that it took, and what was known before and after.

    Before is measured with the banks just before, after with those just after: of the same shared weights, or of those
    that the next round solves for from what is left.
    """

    deletion: ResolvedDeletion
    statuses: tuple[RequestStatus, ...]
    before: Measurement
    after: Measurement

    @property
    def summary(self) -> str:
        """What happened, in one line; requests are under way at the same time, so the slowest says how long it took."""
        requests = f"{len(self.statuses)} request{'s' if len(self.statuses) > 1 else ''}"
        guarantee = f" ({self.guarantee})" if self.guarantee else ""
        planned = self.deletion.planned
        return (
            f"before round {planned.round}: {planned} over gRPC: {requests}, {self.entries} entries gone in "
            f"{max(self.seconds, default=0.0):.2f} s{guarantee}"
        )

    @property
    def records(self) -> int:
        """Records erased, over all sites; held-out ones count too."""
        return sum(status.erased for status in self.statuses)

    @property
    def entries(self) -> int:
        """Bank entries erased, over all sites."""
        return sum(answer.entries for answer in self._erased)

    @property
    def guarantee(self) -> Guarantee | None:
        """What may be claimed of the deletion as a whole, the weakest of all answers; None before any answer."""
        given = [found for status in self.statuses if (found := weakest_guarantee(status)) is not None]
        return Guarantee.weakest(given) if given else None

    @property
    def record_loss(self) -> PrivacyLoss | None:
        """What the shared weights may tell of one erased record, the most of all; None unless `CERTIFIED`."""
        return self._worst(answer.record_loss for answer in self._erased)

    @property
    def subject_loss(self) -> PrivacyLoss | None:
        """What they may tell of one subject, over all sites that held it, the most of all; None unless `CERTIFIED`."""
        return self._worst(combined_loss(status) for status in self.statuses)

    @property
    def _erased(self) -> Iterator[Acknowledgement]:
        for status in self.statuses:
            answers = (site.acknowledgement for site in status.sites)
            yield from (answer for answer in answers if answer is not None and answer.state is SiteState.ERASED)

    def _worst(self, losses: Iterable[PrivacyLoss | None]) -> PrivacyLoss | None:
        known = [loss for loss in losses if loss is not None]
        if self.guarantee is not Guarantee.CERTIFIED or not known:
            return None
        return max(known, key=lambda loss: (loss.epsilon, loss.delta))

    @property
    def seconds(self) -> tuple[float, ...]:
        """For each request, the seconds from its submission until the last site's answer was in the ledger."""
        return tuple(status.seconds or 0.0 for status in self.statuses)

    @property
    def site_seconds(self) -> tuple[float, ...]:
        """For each request, the seconds that the slowest site took to erase: no file holds the bytes afterwards."""
        return tuple(
            max((site.acknowledgement.seconds for site in status.sites if site.acknowledgement), default=0.0)
            for status in self.statuses
        )


@dataclass
class DeletionDriver:
    """Sends each planned deletion when its round opens, and measures what the model knew before and after.

    Requests go to the `deletion-service` of the settings; the secret makes the references in them. The first model has
    the shared weights before any training. What is measured is kept, so that `take_up` finds what an earlier process
    has done. `hear` is told which hospitals have got orders. `on_deletion` is called with each deletion that was
    carried out. `presence`, where hospitals come and go, brings about how it is in each round before its deletions.
    """

    plan: Sequence[ResolvedDeletion]
    hospitals: Sequence[Hospital]
    settings: Settings
    secret: FederationSecret
    first_model: Munkey | Release
    kept: KeptRun | None = None
    hear: Hear = lambda _: None
    on_deletion: Callable[[CarriedOut], None] | None = None
    presence: Presence | None = None
    done: list[CarriedOut] = field(default_factory=list)
    _places: dict[str, tuple[int, SolvedPlace | None]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def open_round(self, number: int) -> None:
        """Carry out the deletions of a round; a second call for the same round finds nothing left to do."""
        with self._lock:
            if self.presence is not None:
                # Who was asleep hears first what it has missed.
                self.hear(self.presence.take_up(number))
            while len(self.done) < len(self.plan) and self.plan[len(self.done)].planned.round <= number:
                carried_out = self._carry_out(self.plan[len(self.done)])
                self.done.append(carried_out)
                if self.on_deletion is not None:
                    self.on_deletion(carried_out)

    def take_up(self) -> None:
        """Take for done what an earlier process has carried out; what it had only begun is carried out to its end."""
        with self._lock, DeletionChannel(self.settings.deletion_service) as service:
            for position, deletion in enumerate(self.plan):
                before, after = (self._measured(position, when) for when in (_BEFORE, _AFTER))
                if before is None or after is None:
                    break
                statuses = tuple(service.get(each.request_id) for each in self._requests(deletion, position))
                self.done.append(CarriedOut(deletion, statuses, before, after))

    def measure_now(self, model: Munkey | Release) -> Measurement:
        """Measure a model with the banks as they are, on everything that has been forgotten.

        What deletions have come to by now, at hospitals that were asleep when they were asked for, is taken up as well.
        """
        with DeletionChannel(self.settings.deletion_service) as service:
            self.done = [
                replace(done, statuses=tuple(service.get(one.request.request_id) for one in done.statuses))
                if any(not one.state.answered for one in done.statuses)
                else done
                for done in self.done
            ]
        gone = self._rows(self.plan[: len(self.done)])
        return self._measure(model, gone, gone)

    def _carry_out(self, deletion: ResolvedDeletion) -> CarriedOut:
        model = self._model()
        position = len(self.done)
        forgotten = self._rows([deletion])
        gone = self._rows(self.plan[: position + 1])
        before = self._measured(position, _BEFORE) or self._measure(model, forgotten, gone)
        self._keep(position, _BEFORE, before)
        requests = list(self._requests(deletion, position))
        with DeletionChannel(self.settings.deletion_service) as service:
            statuses = _carry_out(service, requests, self.hear, self._away())
        after = self._measure(model, forgotten, gone, renewed=True)
        self._keep(position, _AFTER, after)
        return CarriedOut(deletion, statuses, before, after)

    def _measured(self, position: int, when: str) -> Measurement | None:
        return None if self.kept is None else self.kept.measurement(position, when)

    def _keep(self, position: int, when: str, found: Measurement) -> None:
        if self.kept is not None and self.kept.measurement(position, when) is None:
            self.kept.note_measurement(position, when, found)

    def _requests(self, deletion: ResolvedDeletion, position: int) -> Iterator[DeletionRequest]:
        """Yield one request for each hospital whose records go, each subject, or the site."""
        name = f"simulation-{position + 1}"
        if deletion.planned.kind is DeletionKind.SITE:
            site = self.hospitals[(deletion.planned.hospital or 0) - 1].name
            yield DeletionRequest(f"{name}-{site}", site, WholeSite(site))
        elif deletion.planned.kind is DeletionKind.SUBJECTS:
            for count, subject in enumerate(deletion.subjects, start=1):
                target: Target = Subject(self.secret.reference(subject))
                yield DeletionRequest(f"{name}-subject-{count}", OFFICER, target)
        else:
            for hospital, rows in zip(self.hospitals, deletion.rows, strict=True):
                if len(rows):
                    ids = hospital.given.records.record_ids[rows].tolist()
                    references = frozenset(self.secret.reference(record) for record in ids)
                    yield DeletionRequest(f"{name}-{hospital.name}", hospital.name, Records(references, hospital.name))

    def _rows(self, deletions: Sequence[ResolvedDeletion]) -> dict[str, NDArray[np.int64]]:
        rows = forget_rows(deletions, len(self.hospitals))
        return dict(zip((hospital.name for hospital in self.hospitals), rows, strict=True))

    def _away(self) -> frozenset[str]:
        return frozenset() if self.presence is None else self.presence.away()

    def _there(self) -> Sequence[Hospital]:
        return self.hospitals if self.presence is None else self.presence.there()

    def _not_retained(self, gone: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
        """Return what is gone, and what has not come yet, by hospital."""
        if self.presence is None:
            return gone
        timeline, number = self.presence.timeline, self.presence.round
        lacking = [np.flatnonzero(~timeline.holds(place, number)) for place in range(len(self.hospitals))]
        return {one.name: np.union1d(gone[one.name], rows) for one, rows in zip(self.hospitals, lacking, strict=True)}

    def _model(self) -> Munkey | Release:
        path = Path(self.settings.output_dir) / LAST
        return read_weights(path) if path.exists() else self.first_model

    def _measure(
        self,
        model: Munkey | Release,
        forgotten: dict[str, NDArray[np.int64]],
        gone: dict[str, NDArray[np.int64]],
        *,
        renewed: bool = False,
    ) -> Measurement:
        answers: Answers
        there, gone = self._there(), self._not_retained(gone)
        if isinstance(model, Release):
            places = {hospital.name: self._read_place(hospital, model) for hospital in there}
            answers = SolvedAnswers(model, places, self.settings)
            if renewed:
                answers = solve_federation(places, self.settings, model.feature_map)
        else:
            banks = {hospital.name: _read(hospital, self.settings) for hospital in there}
            answers = MunkeyAnswers(model, banks, self.settings)
        return measure(answers, there, forgotten, gone)

    def _read_place(self, hospital: Hospital, release: Release) -> SolvedPlace:
        """Return what a hospital's key store holds, which is read anew where deletions have changed it."""
        with hospital.folder.open() as store:
            generation, (known, place) = store.generation, self._places.get(hospital.name, (-1, None))
            if place is None or known != generation:
                place = SolvedPlace.of_store(store, release.feature_map)
                self._places[hospital.name] = generation, place
            return place


def read_weights(path: Path) -> Munkey | Release:
    """Read the shared weights that a coordinator wrote, trained or solved for."""
    return read_release(path) if is_release(path) else read_checkpoint(path).model()


def _read(hospital: Hospital, settings: Settings) -> HospitalBank:
    with hospital.folder.open() as store:
        bank = read_bank(store, Recipe.of(settings).neighbours)
        return HospitalBank(bank, store.records.read_keys(bank.entries))


def _carry_out(
    service: DeletionService, requests: Sequence[DeletionRequest], hear: Hear, away: Collection[str]
) -> tuple[RequestStatus, ...]:
    """Submit requests, have the addressed sites hear them, and ask until all that are not away have answered."""
    for request in requests:
        service.submit(request)
    submitted = [service.get(request.request_id) for request in requests]
    hear(sorted({progress.site for status in submitted for progress in status.sites} - set(away)))
    return tuple(_wait_for(service, request.request_id, away) for request in requests)


def _wait_for(service: DeletionService, request_id: str, away: Collection[str]) -> RequestStatus:
    deadline = time.monotonic() + _ANSWER_SECONDS
    while True:
        status = service.get(request_id)
        if status.state.answered:
            if status.state not in (RequestState.ERASED, RequestState.COMPLETED):
                raise FederationStopped(f"deletion request {request_id} is {status.state}; see the ledger")
            return status
        if all(progress.state.final or progress.site in away for progress in status.sites):
            return status
        if time.monotonic() > deadline:
            raise FederationStopped(f"deletion request {request_id} had no answer in {_ANSWER_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)
