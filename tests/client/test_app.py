"""The Flower ClientApp, with real messages, key stores of digits and a deletion service on this machine."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from sklearn.datasets import load_digits

from client import app as client_app
from client.app import app
from client.bank import read_bank, read_held_out
from client.dataset import Consent, Dataset, Split
from client.enrolment import encode, enrol
from client.key_store import KeyStore
from client.site import SiteFolder
from client.training import train
from common.deletion import DeletionRequest, Records
from common.encoders.descriptor import DescriptorEncoder
from common.federation import ARRAYS, CONFIG, METRICS, ROUND, SITE
from common.guarantees import Guarantee
from common.model import ModelShape, Munkey
from common.randomness import generator
from common.references import FederationSecret
from common.settings import Settings
from server.deletion_server import DeletionServer
from server.deletion_service import LedgerService
from server.ledger import Ledger

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

    def ask(self, what: str, *, model: Munkey | None = None, **config: int | float) -> Message:
        """Send the site a message, and return its reply."""
        content = RecordDict(
            {
                ARRAYS: ArrayRecord((model or self.model).state_dict()),
                CONFIG: ConfigRecord({ROUND: 1, **{key.replace("_", "-"): value for key, value in config.items()}}),
            }
        )
        context = Context(0, 1, {"site-dir": str(self.folder.path)}, RecordDict(), dict(self.settings.to_config()))
        return app(Message(content, dst_node_id=1, message_type=what), context)

    def order_deletion(self, *records: int) -> None:
        """Ask the deletion service for a deletion; the site has not heard of it when this returns."""
        references = frozenset(SECRET.reference(f"digit-{row}") for row in records)
        self.service.submit(DeletionRequest(f"request-{min(records)}", NAME, Records(references, NAME)))


@pytest.fixture(autouse=True)
def _task(monkeypatch: pytest.MonkeyPatch) -> None:
    # Flower makes messages for the task that its process runs.
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def make_federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Return a function that makes a site with digits, all of them with the same deletion service."""
    settings = Settings().replace(
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
    shape = ModelShape.from_settings(settings, feature_shape=ENCODER.feature_shape, pretrained=False)
    torch.manual_seed(0)
    model = Munkey(shape)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.register(NAME)
        service = LedgerService(ledger)
        with DeletionServer(service) as server:
            settings = settings.replace(deletion_service=server.address)

            def make(folder: str = NAME, records: Dataset | None = None) -> Federation:
                site = SiteFolder(tmp_path / folder)
                with site.create(NAME, settings, ENCODER, shape) as store:
                    enrol(store, encode(ENCODER, digits() if records is None else records), SECRET)
                return Federation(settings, site, service, model)

            yield make


@pytest.fixture
def federation(make_federation: Callable[..., Federation]) -> Federation:
    return make_federation()


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


# What a reply holds.


def test_training_replies_with_weights_numbers_and_a_name_only(federation: Federation) -> None:
    reply = federation.ask(MessageType.TRAIN)

    assert set(reply.content) == {ARRAYS, METRICS, SITE}
    assert {name: tuple(w.shape) for name, w in weights_of(reply).items()} == {
        name: tuple(w.shape) for name, w in federation.model.state_dict().items()
    }
    assert set(reply.content.metric_records[METRICS]) == {"num-examples", "train-loss"}
    assert reply.content.metric_records[METRICS]["num-examples"] == TRAIN
    assert dict(reply.content.config_records[SITE]) == {SITE: NAME}


def test_training_starts_from_the_weights_that_came_and_is_that_of_the_bank(federation: Federation) -> None:
    reply = federation.ask(MessageType.TRAIN, proximal_mu=0.5)

    expected = Munkey(federation.model.shape)
    expected.load_state_dict(federation.model.state_dict())
    with federation.folder.open() as store:
        bank = read_bank(store, 3)
        tokens = store.read_tokens(bank.entries)
    bank.tokens.offsets[:] = bank.tokens.first_moments[:] = bank.tokens.second_moments[:] = 0
    bank.tokens.steps[:] = 0
    draws = generator(federation.settings.seed, NAME, 1)
    train(expected, bank, federation.settings, round_number=1, generator=draws, proximal_mu=0.5)
    assert same(weights_of(reply), dict(expected.state_dict()))
    assert torch.equal(bank.tokens.offsets, tokens.offsets)
    assert tokens.offsets.any()


def test_tokens_go_on_from_round_to_round(federation: Federation) -> None:
    federation.ask(MessageType.TRAIN)
    with federation.folder.open() as store:
        first = read_bank(store, 3).tokens.steps

    federation.ask(MessageType.TRAIN, server_round=2)

    with federation.folder.open() as store:
        second = read_bank(store, 3).tokens.steps
    assert (second > first).all()


def test_evaluation_replies_with_numbers_and_a_name_only(federation: Federation) -> None:
    reply = federation.ask(MessageType.EVALUATE)

    names = {
        "examples",
        "loss",
        "accuracy",
        "macro-f1",
        "image-accuracy",
        "memory-accuracy",
        "sensitivity",
        "neighbour-accuracy",
    }
    metrics = reply.content.metric_records[METRICS]
    assert set(reply.content) == {METRICS, SITE}
    assert set(metrics) == {"entries", "num-examples"} | {f"{split}-{n}" for split in ("val", "test") for n in names}
    assert (metrics["entries"], metrics["num-examples"], metrics["val-examples"]) == (TRAIN, TEST, VAL)
    assert all(isinstance(value, int | float) for value in metrics.values())


def test_site_without_records_replies_that_it_has_none(make_federation: Callable[..., Federation]) -> None:
    federation = make_federation(records=digits().select(np.zeros(TRAIN + VAL + TEST, dtype=np.bool_)))

    reply = federation.ask(MessageType.TRAIN)

    assert reply.content.metric_records[METRICS]["num-examples"] == 0
    assert same(weights_of(reply), dict(federation.model.state_dict()))
    assert federation.ask(MessageType.EVALUATE).content.metric_records[METRICS]["entries"] == 0


# Deletions.


@pytest.mark.parametrize("what", [MessageType.TRAIN, MessageType.EVALUATE])
def test_site_forgets_before_it_does_anything_else(federation: Federation, what: str) -> None:
    federation.order_deletion(3, 5)

    reply = federation.ask(what)

    metrics = reply.content.metric_records[METRICS]
    assert metrics["num-examples" if what == MessageType.TRAIN else "entries"] == TRAIN - 2
    (progress,) = federation.service.get("request-3").sites
    assert progress.acknowledgement is not None
    assert progress.acknowledgement.records == 2
    assert progress.acknowledgement.guarantee is Guarantee.EMPIRICAL


def delete_during_training(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, records: list[int], at: Callable[[int, int], bool]
) -> list[int]:
    """Let an agent delete a record after the step of the first training that `at` names; return all steps."""
    steps: list[int] = []
    watch = client_app._watch

    def watched(store: KeyStore, *rest: object) -> Callable[[int, int], None]:
        look = watch(store, *rest)  # type: ignore[arg-type]

        def step(done: int, total: int) -> None:
            steps.append(done)
            if at(done, total) and store.last_order == 0:
                federation.order_deletion(*records)
                with federation.folder.open() as agent:
                    for order in federation.service.watch(NAME, 0):
                        agent.apply(order, Guarantee.EMPIRICAL)
            look(done, total)

        return step

    monkeypatch.setattr(client_app, "_watch", watched)
    return steps


@pytest.mark.parametrize("place", ["early", "last"])
def test_training_that_a_deletion_interrupts_is_that_without_the_record(
    make_federation: Callable[..., Federation],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    with monkeypatch.context() as patched:
        federation = make_federation()
        steps = delete_during_training(
            federation, patched, [3], lambda done, total: done == (3 if place == "early" else total)
        )
        with caplog.at_level(logging.WARNING):
            interrupted = federation.ask(MessageType.TRAIN)
    # Three batches of the 24 entries make an epoch, and three of the 23.
    assert steps == [*range(1, 17 if place == "early" else 25), *range(1, 25)]
    assert "entries were deleted during training; this round's training starts again" in caplog.text

    # The ledger knows the order by now, so the other site has forgotten the record before it begins.
    undisturbed = make_federation("before").ask(MessageType.TRAIN)
    with_record = make_federation("never", digits())
    monkeypatch.setattr(client_app, "catch_up_patiently", lambda *_, **__: [])
    ignorant = with_record.ask(MessageType.TRAIN)

    assert interrupted.content.metric_records[METRICS]["num-examples"] == TRAIN - 1
    assert same(weights_of(interrupted), weights_of(undisturbed))
    assert not same(weights_of(interrupted), weights_of(ignorant))
    assert tokens_of(federation) == tokens_of(with_folder(federation, "before"))


def with_folder(federation: Federation, name: str) -> Federation:
    return Federation(
        federation.settings, SiteFolder(federation.folder.path.parent / name), federation.service, federation.model
    )


def tokens_of(federation: Federation) -> list[list[float]]:
    with federation.folder.open() as store:
        found: list[list[float]] = read_bank(store, 3).tokens.offsets.tolist()
        return found


def test_deletion_after_tokens_were_written_is_not_replied_to_with_the_record(
    make_federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = make_federation()
    write = KeyStore.write_tokens

    def write_and_delete(self: KeyStore, generation: int, entries: object, tokens: object) -> None:
        patched.undo()
        write(self, generation, entries, tokens)  # type: ignore[arg-type]
        federation.order_deletion(3)
        with federation.folder.open() as agent:
            for order in federation.service.watch(NAME, 0):
                agent.apply(order, Guarantee.EMPIRICAL)

    with monkeypatch.context() as patched:
        patched.setattr(KeyStore, "write_tokens", write_and_delete)
        reply = federation.ask(MessageType.TRAIN)

    assert reply.content.metric_records[METRICS]["num-examples"] == TRAIN - 1


def test_deletion_while_held_out_records_are_read_starts_the_evaluation_again(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:

    def delete_and_read(store: KeyStore, *rest: object) -> object:
        patched.undo()
        federation.order_deletion(3)
        with federation.folder.open() as agent:
            for order in federation.service.watch(NAME, 0):
                agent.apply(order, Guarantee.EMPIRICAL)
        return read_held_out(store, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(client_app, "read_held_out", delete_and_read)
        reply = federation.ask(MessageType.EVALUATE)

    assert reply.content.metric_records[METRICS]["entries"] == TRAIN - 1


# What goes wrong.


@pytest.mark.parametrize("what", [MessageType.TRAIN, MessageType.EVALUATE])
def test_site_that_cannot_hear_deletions_does_not_learn(federation: Federation, what: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    federation.settings = federation.settings.replace(deletion_service=address)

    reason = reason_of(federation.ask(what))

    assert reason.startswith(f"the deletion service at {address} cannot be reached: start it with munkey-server serve")
    with federation.folder.open() as store:
        assert store.count_trained() == 0


@pytest.mark.parametrize("what", [MessageType.TRAIN, MessageType.EVALUATE])
def test_weights_of_another_model_are_refused(federation: Federation, what: str) -> None:
    shape = ModelShape.from_settings(
        federation.settings.replace(width=32), feature_shape=ENCODER.feature_shape, pretrained=False
    )

    reason = reason_of(federation.ask(what, model=Munkey(shape)))

    assert reason == "the coordinator sent weights of another model; check the site's settings"


def test_site_with_more_classes_than_the_federation_says_so(federation: Federation) -> None:
    federation.settings = federation.settings.replace(num_classes=5)

    assert "num-classes = 5: this site has records of class 9" in reason_of(federation.ask(MessageType.TRAIN))


def test_site_without_a_key_store_says_so(federation: Federation) -> None:
    federation.folder = SiteFolder(federation.folder.path / "elsewhere")

    assert "there is no key store" in reason_of(federation.ask(MessageType.TRAIN))


def test_store_for_other_settings_says_so(federation: Federation) -> None:
    federation.settings = federation.settings.replace(exemplar_size=4)

    assert "exemplar tokens of 8 numbers" in reason_of(federation.ask(MessageType.TRAIN))


def test_threads_are_those_of_the_settings(federation: Federation) -> None:
    federation.settings = federation.settings.replace(threads=2)
    federation.ask(MessageType.EVALUATE)
    assert torch.get_num_threads() == 2

    federation.settings = federation.settings.replace(threads=0)
    federation.ask(MessageType.EVALUATE)
    assert torch.get_num_threads() == 2
