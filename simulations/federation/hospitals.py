"""Simulated hospitals: each gets a folder with a key store of its own, filled as a real site's is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmunkey.client.importing.encoding import encode, enrol
from fedmunkey.client.key_store import Tokens
from fedmunkey.client.key_store.on_disk.contents import SLACK
from fedmunkey.client.learning.bank import Bank, HeldOut
from fedmunkey.client.learning.neighbour_index import list_arrivals
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.client.site import SiteFolder, hospital_name
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.model.encoders import Encoder, Encoding
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.neighbours import nearest
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.federation.consent import donate
from fedmunkey.simulations.federation.partition import DivideBy, partition


@dataclass(frozen=True)
class Encoded:
    """N records with what the encoder made of their images, in the same order."""

    records: Dataset
    encoding: Encoding

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Encoded:
        """Return some of the records, by position or by mask."""
        chosen = torch.from_numpy(rows)
        return Encoded(self.records.select(rows), Encoding(self.encoding.keys[chosen], self.encoding.features[chosen]))

    def split(self, split: Split) -> Encoded:
        """Return the records of one split."""
        return self.select(self.records.splits == split.value)

    def inputs(self, shape: ModelShape) -> Tensor:
        """Return what the image path reads: (N, C, H, W) images or (N, tokens, size) features."""
        if shape.image_path is ImagePath.PATCHES:
            return torch.from_numpy(self.records.images)
        return self.encoding.features


@dataclass(frozen=True)
class Hospital:
    """A simulated site and, for measuring only, the records that it was given.

    `given` is every record that it began with: a measurement needs those that it has forgotten. What it is tested on is
    among them, unless it is `tested` on records that hospitals share, and `validated` on so many.
    """

    name: str
    folder: SiteFolder
    given: Encoded
    tested: Encoded | None = None
    validated: int | None = None

    @property
    def test(self) -> Encoded:
        """The records that the hospital is tested on."""
        return self.given.split(Split.TEST) if self.tested is None else self.tested


def encode_all(encoder: Encoder, dataset: Dataset, progress: Callable[[int], None] | None = None) -> Encoded:
    """Encode a data set once, for all hospitals."""
    parts = []
    for batch, encoding in encode(encoder, dataset):
        parts.append(encoding)
        if progress is not None:
            progress(len(batch))
    return Encoded(dataset, Encoding(torch.cat([p.keys for p in parts]), torch.cat([p.features for p in parts])))


def give(everything: Encoded, parts: Sequence[Dataset], sites_dir: Path) -> list[Hospital]:
    """Return the hospitals to which the parts of a data set belong; nothing is written."""
    row_of = {record: row for row, record in enumerate(everything.records.record_ids.tolist())}
    hospitals = []
    for number, part in enumerate(parts, start=1):
        rows = np.array([row_of[record] for record in part.record_ids.tolist()], dtype=np.int64)
        name = hospital_name(number)
        hospitals.append(Hospital(name, SiteFolder(sites_dir / name), everything.select(rows)))
    return hospitals


def share_out(
    everything: Encoded, homes: NDArray[np.int64], hospitals: int, sites_dir: Path, *, shares: bool
) -> list[Hospital]:
    """Return hospitals that hold their training records only; nothing is written.

    `homes` (n,) says where each record is, -1 for held-out ones. All hospitals are tested on the same test records, or
    with `shares` each on as many of its own.
    """
    test = everything.split(Split.TEST)
    count, validation = len(test.records), int((everything.records.splits == Split.VAL.value).sum())
    order = np.argsort(homes, kind="stable")
    places = np.split(order, np.searchsorted(homes[order], np.arange(hospitals + 1)))[1:-1]
    found = []
    for number, rows in enumerate(places, start=1):
        name = hospital_name(number)
        tested = test.select(np.arange(number - 1, count, hospitals)) if shares else test
        validated = len(range(number - 1, validation, hospitals)) if shares else validation
        found.append(Hospital(name, SiteFolder(sites_dir / name), everything.select(rows), tested, validated))
    return found


def divide(
    images: Encoded,
    hospitals: int,
    *,
    alpha: float,
    permanent: float,
    seed: int,
    by: DivideBy = DivideBy.LABELS,
) -> list[Hospital]:
    """Divide records among hospitals without key stores, some of them given for good; each seed divides another way."""
    dataset = donate(images.records, permanent, seed)
    parts = partition(dataset, hospitals, alpha=alpha, seed=seed, by=by)
    return give(replace(images, records=dataset), parts, Path())


def open_hospital(
    hospital: Hospital,
    settings: Settings,
    encoder: Encoder,
    shape: ModelShape,
    secret: FederationSecret,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Make a hospital's folder, enrol its records and list their neighbours."""
    key = noise_key(settings, hospital.name)
    with hospital.folder.create(hospital.name, settings, encoder, shape, noise_key=key) as store:
        secret.write(hospital.folder.secret)
        # One transaction: a hospital has all of its records or none.
        enrol(store, [(hospital.given.records, hospital.given.encoding)], secret, progress=progress)
        if settings.guarantee is not Guarantee.EXACT:
            list_arrivals(store)


def noise_key(settings: Settings, site: str) -> bytes:
    """Return the noise key that a simulated site gets, so that a simulation can be repeated; real ones draw theirs."""
    return hashlib.sha256(f"noise {derive_seed(settings.seed, 'noise', site)}".encode()).digest()


def bank_of(records: Encoded, settings: Settings, shape: ModelShape) -> Bank:
    """Return an untrained bank of records, without any key store: for baselines and the oracle."""
    count = len(records.records)
    keys = records.encoding.keys
    return Bank(
        generation=0,
        entries=np.arange(count),
        labels=torch.from_numpy(records.records.labels),
        inputs=records.inputs(shape),
        tokens=Tokens.zeros(count, shape.exemplar_size),
        lists=nearest(keys, keys, Recipe.of(settings).neighbours + SLACK, own=torch.arange(count)),
        permanent=torch.from_numpy(records.records.consents == Consent.PERMANENT.value),
    )


def held_out_of(queries: Encoded, bank: Encoded, settings: Settings, shape: ModelShape) -> HeldOut:
    """Return records with their neighbours among a bank's records."""
    lists = nearest(queries.encoding.keys, bank.encoding.keys, Recipe.of(settings).neighbours + SLACK)
    return HeldOut(queries.inputs(shape), torch.from_numpy(queries.records.labels), lists)
