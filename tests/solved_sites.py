"""Hospitals whose weights are solved for, each with a key store of digits, and a grid that asks them as Flower does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from fedmunkey.client.app import app
from fedmunkey.client.importing.encoding import encode, enrol
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.client.site import SiteFolder, hospital_name
from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, Records
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.programs.round_messages import ARRAYS, CONFIG, ROUND
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.settings.settings import Settings
from tests.coordinator import Coordinator, Killed

SECRET = FederationSecret(b"a secret that sites share")
ENCODER = DescriptorEncoder(1)
CLASSES = 10


def digits(rows: Sequence[int], split: Split = Split.TRAIN, consent: Consent = Consent.REVOCABLE) -> Dataset:
    """Return some of scikit-learn's digits, each of a subject of its own."""
    found, chosen = load_digits(), np.array(rows, dtype=np.int64)
    names = np.array([f"digit-{row}" for row in rows], dtype=np.str_)
    return Dataset(
        images=np.rint(found.images[chosen] * 15).astype(np.uint8)[:, None],
        labels=found.target[chosen].astype(np.int64),
        record_ids=names,
        subject_ids=names,
        splits=np.full(len(chosen), split.value),
        consents=np.full(len(chosen), consent.value),
        class_names=tuple(str(name) for name in range(CLASSES)),
    )


def solved_settings(folder: Path, address: str, **changes: Any) -> Settings:
    """Return settings of a small federation whose weights are solved for."""
    chosen = {"random_features": 40, "device": "cpu", "deletion_patience": 0.0, "exemplar_size": 8, **changes}
    return Settings().replace(deletion_service=address, output_dir=str(folder / "output"), **chosen)


def deletion_of(site: str, *rows: int) -> DeletionRequest:
    """Return a site's request to forget some digits."""
    references = frozenset(SECRET.reference(f"digit-{row}") for row in rows)
    return DeletionRequest(f"request-{min(rows)}", site, Records(references, site))


@dataclass
class Hospital:
    """A site: its folder, and how it is asked."""

    folder: SiteFolder
    settings: Settings
    node_config: dict[str, bool | float | int | str]

    def ask(self, message: Message) -> Message:
        """Let the site's app answer, as a SuperNode does."""
        context = Context(0, 1, self.node_config, RecordDict(), dict(self.settings.to_config()))
        return app(message, context)

    def send(self, kind: str, arrays: dict[str, NDArray[Any]] | None = None, **config: Any) -> Message:
        """Ask for something; return the reply."""
        told: dict[str, Any] = {ROUND: 1, **{name.replace("_", "-"): value for name, value in config.items()}}
        content = RecordDict({CONFIG: ConfigRecord(told)})
        if arrays is not None:
            content[ARRAYS] = ArrayRecord({name: Array(array) for name, array in arrays.items()})
        return self.ask(Message(content, dst_node_id=1, message_type=kind))

    def enrol(self, records: Dataset) -> None:
        with self.folder.open() as store:
            enrol(store, encode(ENCODER, records), SECRET)

    def delete(self, *rows: int) -> None:
        """Carry an order out, as the site's agent does."""
        with self.folder.open() as store:
            number, name = store.orders.last + 1, store.description.site
            store.orders.apply(DeletionOrder(number, name, deletion_of(name, *rows)))


def make_hospital(
    folder: Path,
    number: int,
    settings: Settings,
    records: Iterable[Dataset] = (),
    *,
    coordinator: Coordinator | None = None,
    promised: str | None = None,
    **node_config: bool | str,
) -> Hospital:
    """Make a site with some records; with a coordinator it is a member, and has an identity.

    It tells all that a simulated one does, unless the node's settings say something else.
    """
    name = hospital_name(number)
    promise = settings if promised is None else settings.replace(guarantee=promised)
    shape = ModelShape.of(Recipe.of(promise), ENCODER.feature_shape)
    site = SiteFolder(folder / name)
    with site.create(name, promise, ENCODER, shape) as store:
        for some in records:
            enrol(store, encode(ENCODER, some), SECRET)
    if coordinator is not None:
        coordinator.member(name).folder.rename(site.identity)
        TrustedKeys().write(site.trust)
        SECRET.write(site.secret)
    return Hospital(
        site, settings, {"site-dir": str(site.path), "insecure-orders": True, "evaluation": "full", **node_config}
    )


def feature_map(settings: Settings) -> FeatureMap:
    recipe = Recipe.of(settings)
    return FeatureMap.of(recipe, ModelShape.of(recipe, ENCODER.feature_shape))


Change = Callable[[int, Message, Message], Message | None]
"""Turns a node's reply to a message into another, or into none."""


def unchanged(_node: int, _message: Message, reply: Message) -> Message:
    return reply


@dataclass
class SitesGrid:
    """A grid whose nodes, from 1, are hospitals in this process; one that is killed does not answer."""

    hospitals: list[Hospital]
    change: Change
    asked: list[tuple[str, int]] = field(default_factory=list)
    replies: list[tuple[str, int, Message]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.grid: Any = create_autospec(Grid, instance=True)
        self.grid.get_node_ids.side_effect = lambda: list(range(1, len(self.hospitals) + 1))
        self.grid.send_and_receive.side_effect = self._send

    def _send(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        del timeout
        found = []
        for message in messages:
            kind, node = message.metadata.message_type, message.metadata.dst_node_id
            self.asked.append((kind, node))
            try:
                reply = self.change(node, message, self.hospitals[node - 1].ask(message))
            except Killed:
                continue
            if reply is not None:
                self.replies.append((kind, node, reply))
                found.append(reply)
        return found


def refusing(message: Message, reason: str) -> Message:
    return Message(Error(code=1000, reason=reason), reply_to=message)
