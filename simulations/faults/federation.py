"""The federation that faults are done to: its sites with their records, and the programs that make it run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.client.site import SiteFolder, hospital_name
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionRequest
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.model_choice import choose_shape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.faults.jumping_clock import TIME, WRONG, JumpingClock
from fedmunkey.simulations.faults.model import FederationModel, ModelRecord, SiteModel
from fedmunkey.simulations.faults.processes import Program
from fedmunkey.simulations.faults.run_ledger import RunLedger
from fedmunkey.simulations.faults.signers import LOG_KEY, TRUST, Signers
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital, open_hospital

CLASSES = 2
TRAINED = "trained and evaluated"
"""Ends the line that a site's training writes for each round held to its end."""

_RECORDS_PER_DELETION = 2.2
_FEWEST_RECORDS = 60
_HELD_OUT = 8
"""One subject in so many is held out."""
_PROGRAMS = "fedmunkey.simulations.faults.timed_programs"
_RECORDS_PER_SUBJECT = 2
"""At each site."""

SETTINGS = Settings().replace(
    guarantee="empirical",
    num_classes=CLASSES,
    width=16,
    depth=1,
    heads=2,
    exemplar_size=16,
    neighbours=3,
    local_steps=12,
    batch_size=32,
    num_rounds=1000,
    device="cpu",
    deletion_patience=120.0,
)
"""A model that trains a round in a fraction of a second. Under `empirical` every record has a token that learns."""


@dataclass(frozen=True)
class Site:
    """One site: its folder, and its records by number in the order in which they were enrolled."""

    name: str
    folder: SiteFolder
    numbers: tuple[int, ...]

    @property
    def data(self) -> Path:
        """The file of its records, outside of its folder."""
        return self.folder.path.with_suffix(".npz")


@dataclass(frozen=True)
class Federation:
    """Everything that the driver starts from; ledger, sites and logs lie in its folder.

    Each site has records of its own, a subject has some at several. `records` holds each by number, with its key;
    `model` is what the federation should be.
    """

    folder: Path
    sites: tuple[Site, ...]
    records: Encoded
    model: FederationModel
    secret: FederationSecret
    signers: Signers
    run_ledger: RunLedger

    @property
    def clock(self) -> JumpingClock:
        """The ledger's clock, which can be wrong."""
        return JumpingClock(self.folder / WRONG)

    @property
    def time(self) -> JumpingClock:
        """The time, which passes for everybody."""
        return JumpingClock(self.folder / TIME)

    def sign(self, request: DeletionRequest) -> DeletionRequest:
        """Return a request as its requester signs it now."""
        return self.signers.sign(request, self.now())

    def now(self) -> datetime:
        """Return the run's time."""
        return self.time()

    def record_reference(self, number: int) -> bytes:
        """Return a record's reference."""
        return self.secret.reference(record_id(number))

    def subject_reference(self, number: int) -> bytes:
        """Return a subject's reference."""
        return self.secret.reference(subject_id(number))

    def server(self, address: str) -> Program:
        """Return the deletion service."""
        words = [word for site in self.sites for word in ("--site", site.name)]
        return replace(self.coordinator("serve", "--address", address, *words), log=self.folder / "server.log")

    def coordinator(self, *words: str) -> Program:
        """Return `munkey-server` with the words that a person types at the coordinator, and where its files are."""
        files = ("--database", self.run_ledger.url, "--log-key", str(self.folder / LOG_KEY))
        typed = (*words, *files, "--keys", str(self.folder / TRUST))
        return Program(f"{_PROGRAMS}:act_as_coordinator", typed, self.folder / "coordinator-commands.log")

    def agent(self, site: Site, address: str, entry: str = "") -> Program:
        """Return a site's deletion agent."""
        words = ("agent", "--site-dir", str(site.folder.path), "--service", address)
        return Program(entry or f"{_PROGRAMS}:act_as_site", words, self.folder / f"{site.name}-agent.log")

    def command(self, site: Site, *words: str) -> Program:
        """Return `munkey-client` with the words that a person types at a site."""
        return Program(f"{_PROGRAMS}:act_as_site", words, self.folder / f"{site.name}-commands.log")

    def trusting(self, folder: Path, *words: str) -> Program:
        """Return what says in a folder, of a site or the coordinator's, whose keys are believed."""
        typed = (*words, "--in", str(folder))
        return Program(f"{_PROGRAMS}:act_as_site", typed, self.folder / f"{folder.name}-trust.log")

    def trainer(self, site: Site, address: str, seed: int) -> Program:
        """Return a site's training."""
        words = (str(site.folder.path), *changed(SETTINGS.replace(deletion_service=address, seed=seed)))
        return Program(f"{_PROGRAMS}:train", words, self.folder / f"{site.name}-training.log", nice=5)


def changed(settings: Settings) -> list[str]:
    """Return what differs from the defaults in some settings, as key=value."""
    usual = Settings().to_config()
    return [f"{name}={value}" for name, value in settings.to_config().items() if value != usual[name]]


def record_id(number: int) -> str:
    """Return a record's id."""
    return f"examination-{number:07d}"


def subject_id(number: int) -> str:
    """Return a subject's id."""
    return f"patient-{number:07d}"


def make_federation(folder: Path, deletions: int, sites: int, seed: int, ledger: RunLedger | None = None) -> Federation:
    """Make sites with random images drawn from a seed, enough of them for the deletions to leave some.

    The services keep their ledger in a file in the folder, which is there, unless another is given.
    """
    each = max(_FEWEST_RECORDS, int(_RECORDS_PER_DELETION * deletions / sites))
    drawn = _draw(each * sites, sites, seed)
    encoder = DescriptorEncoder(1)
    encoding = encoder.encode(torch.from_numpy(drawn.images))
    everything = Encoded(drawn, encoding)
    secret = FederationSecret.generate()
    made, models = [], {}
    subjects = [int(subject.rpartition("-")[2]) for subject in drawn.subject_ids.tolist()]
    known = {
        number: ModelRecord(number, subjects[number], drawn.splits[number] == Split.TRAIN.value)
        for number in range(len(drawn))
    }
    for index in range(sites):
        name = hospital_name(index + 1)
        numbers = np.arange(index, len(drawn), sites)
        # As in a file, which has one split after the other.
        numbers = numbers[np.argsort(drawn.splits[numbers] != Split.TRAIN.value, kind="stable")]
        site = Site(name, SiteFolder(folder / "sites" / name), tuple(numbers.tolist()))
        hospital = Hospital(name, site.folder, everything.select(numbers))
        _write(hospital.given.records, site.data)
        open_hospital(hospital, SETTINGS, encoder, choose_shape(SETTINGS), secret)
        models[name] = SiteModel(known, {number: int(drawn.labels[number]) for number in site.numbers})
        made.append(site)
    signers = Signers.make(folder, {site.name: site.folder for site in made}, secret)
    run_ledger = ledger or RunLedger.make("", folder)
    return Federation(folder, tuple(made), everything, FederationModel(models), secret, signers, run_ledger)


def batch(federation: Federation, numbers: list[int]) -> tuple[Dataset, Encoding]:
    """Return some records by number, as they are enrolled."""
    part = federation.records.select(np.array(numbers, dtype=np.int64))
    return part.records, part.encoding


def _write(records: Dataset, path: Path) -> None:
    """Write records to a file as hospitals keep them."""
    arrays: dict[str, Any] = {}
    for split in (Split.TRAIN, Split.TEST):
        part = records.select(records.splits == split.value)
        arrays |= {
            f"{split}_images": part.images[:, 0],
            f"{split}_labels": part.labels,
            f"{split}_ids": part.record_ids,
            f"{split}_subjects": part.subject_ids,
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, class_names=np.array(records.class_names), **arrays)


def _draw(count: int, sites: int, seed: int) -> Dataset:
    random = np.random.default_rng(seed)
    # Records next to each other in number lie at different sites, so a subject has some at each.
    subjects = np.arange(count) // (sites * _RECORDS_PER_SUBJECT)
    held_out = subjects % _HELD_OUT == _HELD_OUT - 1
    return Dataset(
        images=random.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8),
        labels=random.integers(0, CLASSES, count),
        record_ids=np.array([record_id(number) for number in range(count)]),
        subject_ids=np.array([subject_id(number) for number in subjects.tolist()]),
        splits=np.where(held_out, Split.TEST.value, Split.TRAIN.value),
        consents=np.full(count, Consent.REVOCABLE.value),
        class_names=tuple(f"class {number}" for number in range(CLASSES)),
    )
