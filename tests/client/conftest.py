"""Small records, encodings, key stores and orders, as the tests of one site need them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmunkey.client.key_store import KeyStore, StoreDescription, Tokens
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, Records, Subject, Target, WholeSite
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.privacy.guarantees import Guarantee, Influence
from fedmunkey.common.privacy.noisy_steps import NoisySteps
from fedmunkey.common.settings.settings import ImagePath, Settings

Encode = Callable[[Dataset], Encoding]
Fill = Callable[..., Dataset]
Make = Callable[..., KeyStore]
MakeModel = Callable[[ModelShape], Munkey]
MakeRecords = Callable[..., Dataset]
Opinionated = Callable[[Munkey], Munkey]
Order = Callable[..., DeletionOrder]
Reopen = Callable[[KeyStore], KeyStore]
SubjectTarget = Callable[[int], Subject]

SITE = "hospital-1"
CLASSES = 4
IMAGE = (1, 8, 8)
FEATURES = (4, 6)
KEY = 16
EXEMPLAR = 8
PROMISE = (Guarantee.EMPIRICAL, 3.0, 1e-5)
DESCRIPTION = StoreDescription(SITE, "encoder-1", KEY, ImagePath.PATCHES, IMAGE, EXEMPLAR, 12, *PROMISE)

PATCHES = ModelShape(ImagePath.PATCHES, IMAGE, 4, CLASSES, width=16, depth=2, heads=2, exemplar_size=EXEMPLAR)
FROZEN = replace(PATCHES, image_path=ImagePath.FROZEN, input_shape=(2, 12), patch_size=0)
SHAPES = [
    pytest.param(PATCHES, id="patches"),
    pytest.param(FROZEN, id="frozen"),
    pytest.param(replace(FROZEN, depth=0), id="without-blocks"),
]
# Every record takes part in every step, for which epsilon has a closed form.
TRAINING = NoisySteps(1, 1.0, 4.0)


def release(store: KeyStore, training: int | None, *, generation: int | None = None) -> None:
    """Write tokens of all entries as a training's."""
    entries, _ = store.records.read_entries(Split.TRAIN)
    tokens = Tokens.zeros(len(entries), store.description.exemplar_size)
    tokens.steps.fill_(1)
    generation = store.generation if generation is None else generation
    store.records.write_tokens(generation, entries, tokens, used=Influence.BOUNDED, training=training)


def train(store: KeyStore, round_number: int = 1) -> int:
    number = store.privacy.begin(TRAINING, round_number)
    release(store, number)
    return number


def inputs_of(shape: ModelShape, count: int) -> torch.Tensor:
    """Return what a model of a shape reads of some records."""
    draws = torch.Generator().manual_seed(1)
    if shape.image_path is ImagePath.PATCHES:
        return torch.randint(0, 256, (count, *shape.input_shape), generator=draws, dtype=torch.uint8)
    return torch.randn(count, *shape.input_shape, generator=draws)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Models this small lose by threads, far more so where other processes run.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _logging_reaches_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    # Flower's logger keeps its records to itself.
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)


@pytest.fixture
def secret() -> FederationSecret:
    return FederationSecret(b"a secret that sites share")


def record_id(number: int) -> str:
    # Lengths differ, so that SQLite has to move rows about as it does with real ones.
    return f"examination-{number:06d}-of-the-chest{'-again' * (number % 4)}"


def subject_id(number: int) -> str:
    return f"patient-{number:06d}-in-the-register"


@pytest.fixture
def make_records() -> MakeRecords:
    """Return records by number: a number always stands for the same record, and each is its own subject by default."""

    def make(
        numbers: Sequence[int],
        *,
        split: Split = Split.TRAIN,
        subjects: Sequence[int] | None = None,
        labels: Sequence[int] | None = None,
        consent: Consent = Consent.REVOCABLE,
    ) -> Dataset:
        numbers = list(numbers)
        images = [np.random.default_rng(n).integers(0, 256, IMAGE, dtype=np.uint8) for n in numbers]
        return Dataset(
            images=np.array(images, dtype=np.uint8).reshape(-1, *IMAGE),
            labels=np.array([n % CLASSES for n in numbers] if labels is None else labels, dtype=np.int64),
            record_ids=np.array([record_id(n) for n in numbers], dtype=np.str_),
            subject_ids=np.array([subject_id(n) for n in (subjects or numbers)], dtype=np.str_),
            splits=np.full(len(numbers), split.value),
            consents=np.full(len(numbers), consent.value),
            class_names=tuple(f"class {c}" for c in range(CLASSES)),
        )

    return make


@pytest.fixture
def encode_records() -> Encode:
    """Return a key and features for each record, drawn from its image alone."""

    def encode(records: Dataset) -> Encoding:
        keys, features = [], []
        for image in records.images:
            draw = np.random.default_rng(image.ravel().tolist())
            key = draw.normal(size=KEY).astype(np.float32)
            keys.append(key / np.linalg.norm(key))
            features.append(draw.normal(size=FEATURES).astype(np.float32))
        return Encoding(
            torch.from_numpy(np.array(keys, dtype=np.float32).reshape(-1, KEY)),
            torch.from_numpy(np.array(features, dtype=np.float32).reshape(-1, *FEATURES)),
        )

    return encode


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Make]:
    """Return a function that makes an empty key store in a folder of its own; all are closed at the end."""
    with ExitStack() as stack:
        folders = count(1)

        def make(**changes: object) -> KeyStore:
            folder = tmp_path / f"store-{next(folders)}"
            folder.mkdir()
            description = replace(DESCRIPTION, **changes)  # type: ignore[arg-type]
            return stack.enter_context(KeyStore.create(folder / "keystore.sqlite", description))

        yield make


@pytest.fixture
def store(make_store: Make) -> KeyStore:
    return make_store()


@pytest.fixture
def reopen() -> Iterator[Reopen]:
    """Return a function that opens one more connection to a store, as another process would."""
    with ExitStack() as stack:
        yield lambda store: stack.enter_context(KeyStore.open(store.path))


@pytest.fixture
def fill(make_records: MakeRecords, encode_records: Encode, secret: FederationSecret) -> Fill:
    """Return a function that enrols records by number, and returns them."""

    def fill(store: KeyStore, numbers: Sequence[int], **properties: object) -> Dataset:
        records = make_records(numbers, **properties)
        store.records.enrol(records, encode_records(records), secret)
        return records

    return fill


@pytest.fixture
def records_target(secret: FederationSecret) -> Callable[..., Records]:
    """Return a function that names records by number."""
    return lambda *numbers: Records(frozenset(secret.reference(record_id(n)) for n in numbers), SITE)


@pytest.fixture
def subject_target(secret: FederationSecret) -> SubjectTarget:
    """Return a function that names a subject by number."""
    return lambda number: Subject(secret.reference(subject_id(number)))


@pytest.fixture
def order(records_target: Callable[..., Records]) -> Order:
    """Return a function that makes an order for some records by number, or for another target."""

    def order(number: int, *numbers: int, target: Target | None = None, site: str = SITE) -> DeletionOrder:
        target = target or (records_target(*numbers) if numbers else WholeSite(site))
        return DeletionOrder(number, site, DeletionRequest(f"request-{number}", site, target))

    return order


@pytest.fixture
def make_model(opinionated: Opinionated) -> MakeModel:
    """Return what makes the same model of a shape each time, none of whose weights is zero."""

    def make(shape: ModelShape) -> Munkey:
        torch.manual_seed(0)
        return opinionated(Munkey(shape)).eval()

    return make


@pytest.fixture
def make_federation(tmp_path: Path, within_a_run: None) -> Iterator[Callable[..., Any]]:
    """Return what makes a site beside a deletion service: `tests.client.one_site.Make`."""
    del within_a_run
    # It imports the coordinator's half, which few tests need.
    from tests.client.one_site import deletion_service

    with deletion_service(tmp_path) as make:
        yield make


@pytest.fixture
def small() -> Settings:
    """Settings of a model that is quick to train on the records of these tests."""
    return Settings().replace(
        guarantee="empirical",
        num_classes=CLASSES,
        width=16,
        depth=1,
        heads=2,
        exemplar_size=EXEMPLAR,
        neighbours=3,
        local_epochs=1,
        batch_size=8,
        num_rounds=4,
        device="cpu",
    )
