"""One site beside a deletion service, and a coordinator that asks it, for the tests of the site's Flower app."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from sklearn.datasets import load_digits

from fedmunkey.client.app import app
from fedmunkey.client.importing.encoding import encode, enrol
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.bank import read_bank
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.client.rounds import descended
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionRequest, Records
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.programs.round_messages import ARRAYS, CONFIG, ROUND
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger

NAME = "hospital-1"
SECRET = FederationSecret(b"a secret that sites share")
TRAIN, VAL, TEST = 24, 4, 8
ENCODER = DescriptorEncoder(1)


def digits() -> Dataset:
    """Return a few digits of each split."""
    count = TRAIN + VAL + TEST
    found = load_digits()
    names = np.array([f"digit-{row}" for row in range(count)])
    splits = [Split.TRAIN] * TRAIN + [Split.VAL] * VAL + [Split.TEST] * TEST
    return Dataset(
        images=np.rint(found.images[:count] * 15).astype(np.uint8)[:, None],
        labels=found.target[:count].astype(np.int64),
        record_ids=names,
        subject_ids=names,
        splits=np.array([split.value for split in splits]),
        consents=np.full(count, Consent.REVOCABLE.value),
        class_names=tuple(str(name) for name in range(10)),
    )


@dataclass
class Federation:
    """One site beside a deletion service, and a coordinator that asks it."""

    settings: Settings
    folder: SiteFolder
    service: LedgerService
    model: Munkey

    def context(self, **said: bool | float | str) -> Context:
        """Return what a SuperNode keeps for the site, which tells all by default, as a simulated one."""
        node: dict[str, bool | float | int | str] = {"site-dir": str(self.folder.path), "insecure-orders": True}
        node |= said or {"evaluation": "full"}
        return Context(0, 1, node, RecordDict(), dict(self.settings.to_config()))

    def ask(
        self, what: str, *, model: Munkey | None = None, context: Context | None = None, **config: float
    ) -> Message:
        """Send the site a message, and return its reply."""
        content = RecordDict(
            {
                ARRAYS: ArrayRecord((model or self.model).state_dict()),
                CONFIG: ConfigRecord({ROUND: 1, **{key.replace("_", "-"): value for key, value in config.items()}}),
            }
        )
        return app(Message(content, dst_node_id=1, message_type=what), context or self.context())

    def order_deletion(self, *records: int) -> None:
        """Ask the deletion service for a deletion; the site has not heard of it when this returns."""
        references = frozenset(SECRET.reference(f"digit-{row}") for row in records)
        self.service.submit(DeletionRequest(f"request-{min(records)}", NAME, Records(references, NAME)))

    def delete(self, *records: int) -> None:
        """Order a deletion, and let the site's agent carry it out."""
        self.order_deletion(*records)
        self.carry_out_orders()

    def carry_out_orders(self) -> None:
        """Let the site's agent do what it has been ordered to."""
        with self.folder.open() as agent:
            for order in self.service.watch(NAME, 0):
                agent.orders.apply(order)


Make = Callable[..., Federation]
"""Makes a site, as `deletion_service` says."""


@contextmanager
def deletion_service(parent: Path) -> Iterator[Make]:
    """Yield a function that makes a site with digits, all of them with the same deletion service."""
    settings = Settings().replace(
        guarantee="empirical",
        width=16,
        depth=1,
        heads=2,
        exemplar_size=8,
        neighbours=3,
        local_epochs=8,
        batch_size=8,
        num_rounds=4,
        device="cpu",
        deletion_patience=0.0,
    )
    with Ledger(parent / "ledger.sqlite") as ledger:
        ledger.register(NAME)
        service = LedgerService(ledger)
        with DeletionServer(service) as server:
            settings = settings.replace(deletion_service=server.address)

            def make(
                folder: str = NAME,
                records: Dataset | None = None,
                *,
                promised: str | None = None,
                noise_key: bytes | None = None,
                **changes: object,
            ) -> Federation:
                """Make a site that promises what the federation of the changed settings guarantees, or something else.

                It holds some digits of each split, unless records are given; its noise key is random by default.
                """
                chosen, site = settings.replace(**changes), SiteFolder(parent / folder)
                shape = ModelShape.of(Recipe.of(chosen), ENCODER.feature_shape)
                torch.manual_seed(0)
                model = Munkey(shape)
                promise = chosen if promised is None else chosen.replace(guarantee=promised)
                with site.create(NAME, promise, ENCODER, shape, noise_key=noise_key) as store:
                    enrol(store, encode(ENCODER, digits() if records is None else records), SECRET)
                return Federation(chosen, site, service, model)

            yield make


def weights_of(reply: Message) -> dict[str, torch.Tensor]:
    assert reply.has_content(), reply.error.reason
    return dict(reply.content.array_records[ARRAYS].to_torch_state_dict())


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def reason_of(reply: Message) -> str:
    assert reply.has_error()
    assert reply.error.code == 1000
    assert "\n" not in (reply.error.reason or "")
    return reply.error.reason or ""


def tokens_of(federation: Federation) -> list[list[float]]:
    with federation.folder.open() as store:
        found: list[list[float]] = read_bank(store, 3).tokens.offsets.tolist()
        return found


def delete_during_training(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, records: list[int], at: Callable[[int, int], bool]
) -> list[int]:
    """Let an agent delete a record after the step of the first training that `at` names; return all steps."""
    steps: list[int] = []
    watch = descended._watch

    def watched(store: KeyStore, *rest: object) -> Callable[[int, int], None]:
        look = watch(store, *rest)  # type: ignore[arg-type]

        def step(done: int, total: int) -> None:
            steps.append(done)
            if at(done, total) and store.orders.last == 0:
                federation.delete(*records)
            look(done, total)

        return step

    monkeypatch.setattr(descended, "_watch", watched)
    return steps
