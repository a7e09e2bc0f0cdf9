"""A whole federation is listened to: no byte of a record, a key or an exemplar token leaves its hospital."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from fedmunkey.client.app import app
from fedmunkey.client.importing.encoding import encode, enrol
from fedmunkey.client.key_store import HeldRecords, Tokens
from fedmunkey.client.learning import contribution
from fedmunkey.client.learning.evaluation import Evaluation
from fedmunkey.client.learning.own_memory import SolvedEvaluation
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.client.rounds import solved
from fedmunkey.client.rounds.turn import Turn
from fedmunkey.client.site import SiteFolder, hospital_name
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.status_words import weakest_guarantee
from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionRequest,
    RequestState,
    RequestStatus,
    Subject,
)
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs.round_messages import ARRAYS, CONFIG, METRICS, NUMBERS, SITE
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.service import channel as deletion_channel
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.settings.settings import Settings
from fedmunkey.protos.deletion_pb2_grpc import DeletionStub
from fedmunkey.server.app import run_federation
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.simulations.federation.hospitals import noise_key
from tests.coordinator import running_coordinator

pytestmark = pytest.mark.usefixtures("within_a_run")

HOSPITALS = 3
TRAIN, TEST = 16, 4
SECRET = FederationSecret(b"a secret that sites share")
ENCODER = DescriptorEncoder(1)
TOKENS = {"offset", "moment"}
SOLVED = {"sums", "tallies"}
KINDS = {"record id", "subject id", "key", "image", "image as floats", "labels", "offset", "moment", "noise key"}


class Heard:
    """Every byte that left a site or came to it, and what the sites replied to the coordinator."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.deletions: list[bytes] = []
        self.replies: list[RecordDict] = []


@dataclass
class Private:
    """Bytes that must stay at their site, by what they are."""

    rows: dict[str, set[bytes]] = field(default_factory=dict)

    def add(self, kind: str, *rows: bytes) -> None:
        # A token that has not been trained is zero, and so is much else.
        self.rows.setdefault(kind, set()).update(row for row in rows if any(row))

    def add_records(self, records: Dataset, keys: torch.Tensor) -> None:
        self.add("record id", *(name.encode() for name in records.record_ids.tolist()))
        self.add("subject id", *(name.encode() for name in records.subject_ids.tolist()))
        self.add("key", *(key.tobytes() for key in keys.numpy()))
        self.add("image", *(image.tobytes() for image in records.images))
        floats = records.images.astype(np.float32) / np.float32(255)
        self.add("image as floats", *(image.tobytes() for image in floats))
        for split in (Split.TRAIN, Split.TEST):
            labels = records.split(split).labels
            self.add("labels", *(labels.astype(kind).tobytes() for kind in (np.int64, np.int32, np.float32)))

    def add_tokens(self, tokens: Tokens) -> None:
        self.add("offset", *(row.tobytes() for row in tokens.offsets.numpy()))
        for moments in (tokens.first_moments, tokens.second_moments):
            self.add("moment", *(row.tobytes() for row in moments.numpy()))

    def add_numbers(self, kind: str, numbers: NDArray[Any]) -> None:
        """Add every few numbers of a row, as whole numbers and as floats: single ones may come about by chance."""
        flat = numbers.reshape(-1)[: len(numbers.reshape(-1)) // 4 * 4].reshape(-1, 4)
        flat = flat[(flat != 0).all(1)]
        self.add(kind, *(row.tobytes() for row in flat), *(row.astype(np.float64).tobytes() for row in flat))

    def found_in(self, heard: Iterable[bytes]) -> set[str]:
        """Name what can be found in some bytes."""
        everything = b"\0|\0".join(heard)
        return {kind for kind, rows in self.rows.items() if any(row in everything for row in rows)}


class ListenedGrid(Grid):
    """Runs the ClientApp in this process on what Flower would send over the network, byte for byte."""

    def __init__(self, settings: Settings, heard: Heard) -> None:
        self._settings = settings
        self._heard = heard

    def get_node_ids(self) -> Iterable[int]:
        return range(1, HOSPITALS + 1)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        del timeout
        replies = [self._send(self._run(self._send(message))) for message in messages]
        self._heard.replies += [reply.content for reply in replies]
        return replies

    def _run(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        config = dict(self._settings.to_config())
        context = Context(1, node, {"partition-id": node - 1, "num-partitions": HOSPITALS}, RecordDict(), config)
        return app(message, context)

    def _send(self, message: Message) -> Message:
        """Take a message apart into the objects that Flower stores and sends, and put it together again."""
        identity = message.object_id
        message.metadata.__dict__["_message_id"] = identity
        contents = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
        self._heard.messages += [message_to_proto(message).SerializeToString(), *contents.values()]
        received = cast(Message, inflate_object_from_contents(identity, contents))
        received.metadata.__dict__["_message_id"] = identity
        return received

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **options: Any) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError


class ListenedChannel:
    """A gRPC channel that notes the bytes of every request and every answer."""

    def __init__(self, channel: Any, heard: Heard) -> None:
        self._channel = channel
        self._heard = heard

    def __getattr__(self, kind: str) -> Any:
        """Return what makes calls of a kind, with one answer or many."""
        return lambda method, **options: getattr(self._channel, kind)(method, **self._listening(**options))

    def _listening(self, request_serializer: Any, response_deserializer: Any, **options: Any) -> dict[str, Any]:
        def noted(content: bytes) -> bytes:
            self._heard.deletions.append(content)
            return content

        return {
            **options,
            "request_serializer": lambda message: noted(request_serializer(message)),
            "response_deserializer": lambda content: response_deserializer(noted(content)),
        }


def records_of(hospital: int) -> Dataset:
    """Return a hospital's digits; the first record of each is of the same subject, and every other one permanent."""
    count = TRAIN + TEST
    digits = load_digits()
    rows = slice(hospital * count, (hospital + 1) * count)
    subjects = [f"subject-{hospital}-{row:04d}-kept-by-its-hospital" for row in range(count)]
    subjects[0] = "subject-of-all-the-hospitals"
    return Dataset(
        images=np.rint(digits.images[rows] * 15).astype(np.uint8)[:, None],
        labels=digits.target[rows].astype(np.int64),
        record_ids=np.array([f"record-{hospital}-{row:04d}-kept-by-its-hospital" for row in range(count)]),
        subject_ids=np.array(subjects),
        splits=np.array([Split.TRAIN.value] * TRAIN + [Split.TEST.value] * TEST),
        consents=np.array([(Consent.REVOCABLE, Consent.PERMANENT)[row % 2].value for row in range(count)]),
        class_names=tuple(str(name) for name in range(10)),
    )


@dataclass
class Listened:
    """A federation that has run, what was heard of it, and what should not have been."""

    heard: Heard
    private: Private
    coordinator: Path
    shape: ModelShape
    status: RequestStatus | None

    def files(self) -> Iterator[bytes]:
        """Yield the content of every file that the coordinator has."""
        yield from (file.read_bytes() for file in self.coordinator.rglob("*") if file.is_file())


@pytest.fixture
def guarantee() -> Guarantee:
    return Guarantee.EMPIRICAL


@pytest.fixture
def members() -> bool:
    return False


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarantee: Guarantee, members: bool) -> Callable[[], Listened]:
    """Return a function that runs a federation of two rounds with a deletion in between.

    Of members, whose sums have masks, nothing is deleted, as they carry out only what is signed.
    """
    heard, private, coordinator = Heard(), Private(), tmp_path / "coordinator"
    settings = Settings().replace(
        guarantee=guarantee.value,
        release_now=True,
        random_features=30,
        num_rounds=2,
        min_sites=HOSPITALS,
        width=8,
        depth=1,
        heads=2,
        exemplar_size=16,
        neighbours=3,
        local_epochs=2,
        batch_size=8,
        device="cpu",
        sites_dir=str(tmp_path / "sites"),
        output_dir=str(coordinator / "output"),
    )
    shape = ModelShape.of(Recipe.of(settings), ENCODER.feature_shape)
    for hospital in range(HOSPITALS):
        records, name = records_of(hospital), hospital_name(hospital + 1)
        with SiteFolder(tmp_path / "sites" / name).create(
            name, settings, ENCODER, shape, noise_key=noise_key(settings, name)
        ) as store:
            enrol(store, encode(ENCODER, records), SECRET)
            private.add("noise key", store.draw_noise_key())
        private.add_records(records, ENCODER.encode(torch.from_numpy(records.images)).keys)
    monkeypatch.setattr(
        deletion_channel,
        "DeletionStub",
        lambda channel: DeletionStub(ListenedChannel(channel, heard)),  # type: ignore[no-untyped-call]
    )
    write = HeldRecords.write_tokens

    def note_and_write(self: HeldRecords, generation: int, entries: Any, tokens: Tokens, **used: Any) -> None:
        private.add_tokens(tokens)
        write(self, generation, entries, tokens, **used)

    monkeypatch.setattr(HeldRecords, "write_tokens", note_and_write)
    note_what_is_solved(private, monkeypatch)

    def run() -> Listened:
        with ExitStack() as stack:
            served = stack.enter_context(serving(tmp_path, members, ask))
            services.append(served.service)
            identity = str(served.identity) if served.identity else ""
            chosen = settings.replace(deletion_service=served.address, deletion_identity=identity)
            run_federation(ListenedGrid(chosen, heard), chosen)
            status = None if members else served.service.get("request-1")
        return Listened(heard, private, coordinator, shape, status)

    services: list[LedgerService] = []

    def ask(number: int) -> None:
        if number == 2 and not members:
            target = Subject(SECRET.reference("subject-of-all-the-hospitals"))
            services[0].submit(DeletionRequest("request-1", OFFICER, target))

    return run


@dataclass
class Served:
    """A deletion service that is served, and the coordinator's identity where it has one."""

    service: LedgerService
    address: str
    identity: Path | None = None


@contextmanager
def serving(folder: Path, members: bool, on_round: Callable[[int], None]) -> Iterator[Served]:
    """Serve a ledger of all hospitals, which may be members of a federation."""
    names = [hospital_name(hospital + 1) for hospital in range(HOSPITALS)]
    if members:
        with running_coordinator(folder) as running:
            for name in names:
                site = SiteFolder(folder / "sites" / name)
                running.member(name).folder.rename(site.identity)
                TrustedKeys().write(site.trust)
            service = LedgerService(running.ledger, on_round=on_round)
            shown = {"identity": running.identity, "register": running.register, "authority": running.authority}
            with DeletionServer(service, **shown) as server:  # type: ignore[arg-type]
                yield Served(service, server.address, running.folder.identity)
            service.close()
        return
    (folder / "coordinator").mkdir()
    with Ledger(folder / "coordinator" / "ledger.sqlite") as ledger:
        for name in names:
            ledger.register(name)
        service = LedgerService(ledger, on_round=on_round)
        with DeletionServer(service) as server:
            yield Served(service, server.address)


def note_what_is_solved(private: Private, monkeypatch: pytest.MonkeyPatch) -> None:
    """Note every site's sums and tallies."""
    summed, tallied = contribution.sum_records, contribution.tally_records

    def note_sums(*given: Any, **options: Any) -> contribution.Contribution:
        made = summed(*given, **options)
        private.add_numbers("sums", made.sums.to_numbers().view(np.int64))
        return made

    def note_tallies(*given: Any, **options: Any) -> NDArray[np.int64]:
        made = tallied(*given, **options)
        private.add_numbers("tallies", made)
        return made

    monkeypatch.setattr(solved, "sum_records", note_sums)
    monkeypatch.setattr(solved, "tally_records", note_tallies)


@pytest.mark.parametrize("guarantee", Guarantee)
def test_no_byte_of_a_record_or_its_memory_leaves_a_hospital(run: Callable[[], Listened], guarantee: Guarantee) -> None:
    listened = run()

    # Without these, silence would say nothing.
    assert listened.status is not None
    assert (listened.status.state, listened.status.erased) == (RequestState.COMPLETED, HOSPITALS)
    assert weakest_guarantee(listened.status) is guarantee
    # Tokens that are computed from their own record have no optimiser, and solved ones are stored nowhere.
    absent = {Guarantee.EXACT: TOKENS, Guarantee.CERTIFIED: {"moment"} | SOLVED, Guarantee.EMPIRICAL: SOLVED}
    expected = (KINDS | SOLVED) - absent[guarantee]
    assert {kind for kind, rows in listened.private.rows.items() if len(rows) >= HOSPITALS} == expected
    assert sum(map(len, listened.heard.messages)) > 2 * 2 * HOSPITALS * 5_000
    assert SECRET.reference("subject-of-all-the-hospitals") in b"".join(listened.heard.deletions)
    # Only members mask what their weights are solved from.
    unmasked = {"sums", "tallies"} if guarantee is Guarantee.EXACT else set()
    assert listened.private.found_in(listened.heard.messages) == unmasked
    assert listened.private.found_in(listened.heard.deletions) == set()
    assert listened.private.found_in(listened.files()) == set()
    if guarantee is not Guarantee.EXACT:
        check_replies(listened, guarantee)


@pytest.mark.parametrize(("guarantee", "members"), [(Guarantee.EXACT, True)])
def test_nothing_of_a_members_sums_can_be_told(run: Callable[[], Listened]) -> None:
    listened = run()

    rows = {kind: len(rows) for kind, rows in listened.private.rows.items()}
    assert rows["sums"] > 1000
    assert rows["tallies"] > 50
    assert listened.private.found_in(listened.heard.messages) == set()
    assert listened.private.found_in(listened.heard.deletions) == set()
    assert listened.private.found_in(listened.files()) == set()
    check_solved_replies(listened)


def check_replies(listened: Listened, guarantee: Guarantee) -> None:
    """Hospitals reply with shared weights, numbers about all records, and their name; a certified one tells no loss."""
    weights = {name: tuple(weight.shape) for name, weight in Munkey(listened.shape).state_dict().items()}
    numbers = {"num-examples", "entries", "selection-accuracy"}
    numbers |= {f"{split}-{one.name.replace('_', '-')}" for split in ("val", "test") for one in fields(Evaluation)}
    if guarantee is Guarantee.CERTIFIED:
        numbers |= {"epsilon", "delta"}
    assert len(listened.heard.replies) == 2 * 2 * HOSPITALS
    for reply in listened.heard.replies:
        trained = {ARRAYS} & reply.keys()
        assert reply.keys() == {METRICS, SITE} | trained
        assert reply[SITE] == {SITE: f"hospital-{str(reply[SITE][SITE])[-1]}"}
        assert set(reply[METRICS]) <= numbers | ({"train-loss"} if trained else set())
        if guarantee is Guarantee.CERTIFIED:
            assert math.isnan(cast(float, reply.metric_records[METRICS].get("train-loss", math.nan)))
        if trained:
            sent = reply.array_records[ARRAYS].to_torch_state_dict()
            assert {name: tuple(weight.shape) for name, weight in sent.items()} == weights


def check_solved_replies(listened: Listened) -> None:
    """Hospitals reply with a certificate, masked numbers, or numbers about all records, and their name."""
    said = {"certificate", "generation", "last-entry", "last-order", "statement"}
    numbers = {"num-examples", "entries"}
    numbers |= {
        f"{split}-{one.name.replace('_', '-')}" for split in ("val", "test") for one in fields(SolvedEvaluation)
    }
    assert len(listened.heard.replies) == 2 * 4 * HOSPITALS
    masked = 0
    for reply in listened.heard.replies:
        assert reply.keys() <= {METRICS, SITE, CONFIG, ARRAYS}
        assert set(reply[SITE]) == {SITE}
        assert set(reply.config_records.get(CONFIG, ())) <= said
        assert set(reply[METRICS]) <= numbers
        if ARRAYS in reply:
            assert set(reply[ARRAYS]) == {NUMBERS}
            row = reply.array_records[ARRAYS][NUMBERS].numpy()
            masked += 1
            # Of uniform numbers half are larger than half; sums and tallies are small.
            assert row.dtype == np.uint64
            assert 0.3 < float((row > 2**63).mean()) < 0.7
    assert masked == 2 * 2 * HOSPITALS


def test_listening_hears_a_leak_of_every_kind(run: Callable[[], Listened], monkeypatch: pytest.MonkeyPatch) -> None:
    reply = Turn.reply

    def leak(self: Any, *content: Any, **about: Any) -> Message:
        message = reply(self, *content, **about)
        entries, labels = self.store.records.read_entries(Split.TRAIN)
        tokens, image = self.store.records.read_tokens(entries), self.store.records.read_inputs(entries)[0].numpy()
        known = records_of(int(self.store.description.site.rpartition("-")[2]) - 1)
        message.content.config_records[SITE].update(
            {
                "record": str(known.record_ids[1]),
                "subject": str(known.subject_ids[1]),
                "key": self.store.records.read_keys(entries)[0].numpy().tobytes(),
                "image": image.tobytes(),
                "floats": (image.astype(np.float32) / np.float32(255)).tobytes(),
                # The bank has lost a record by the second round, but not by the first.
                "labels": labels.numpy().tobytes(),
                "noise": self.store.draw_noise_key(),
                "offset": tokens.offsets[tokens.steps.argmax()].numpy().tobytes(),
                "moment": tokens.second_moments[tokens.steps.argmax()].numpy().tobytes(),
            }
        )
        return message

    acknowledge = DeletionChannel.acknowledge

    def gossip(self: DeletionChannel, answer: Acknowledgement) -> None:
        acknowledge(self, replace(answer, reason="erased record-0-0000-kept-by-its-hospital"))

    monkeypatch.setattr(Turn, "reply", leak)
    monkeypatch.setattr(DeletionChannel, "acknowledge", gossip)

    listened = run()

    assert listened.private.found_in(listened.heard.messages) == KINDS
    assert listened.private.found_in(listened.heard.deletions) == {"record id"}
    assert listened.private.found_in(listened.files()) == {"record id"}
