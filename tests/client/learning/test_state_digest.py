"""A site's state after deletions has the digest of one in which the deleted records never were."""

from __future__ import annotations

import dataclasses
import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmunkey.client.importing.encoding import encode, enrol
from fedmunkey.client.key_store import KeyStore, StoreDescription, Tokens
from fedmunkey.client.key_store.on_disk.facts import Facts, seal_facts
from fedmunkey.client.key_store.on_disk.similarity_masks import mask, unmask
from fedmunkey.client.learning import state_digest
from fedmunkey.client.learning.bank import read_bank, read_held_out
from fedmunkey.client.learning.neighbour_index import list_arrivals
from fedmunkey.client.records import dataset
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.client.site import describe_store
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, Records, Subject, Target
from fedmunkey.common.errors import BankChanged, KeyStoreError
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.encoders.torchvision_models import TorchvisionEncoder
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.model.torchvision_import import import_torchvision
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath, ImageShape, Settings
from tests.client.conftest import Fill, Make, MakeRecords, Order, Reopen

SITE = "hospital-1"
SECRET = FederationSecret(b"a secret that sites share")
K = 2
SIDE = 6

digest_of = state_digest.state_digest


@dataclasses.dataclass(frozen=True)
class Record:
    """A record to be; equal patterns are equal images, and neighbouring ones differ by little."""

    pattern: int
    label: int
    subject: int
    split: Split
    consent: Consent


def images(patterns: Sequence[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    some = [np.random.default_rng(pattern // 3).integers(0, 256, (1, SIDE, SIDE)) for pattern in patterns]
    for image, pattern in zip(some, patterns, strict=True):
        image[0, 0, 0] = pattern % 3
    return np.array(some, dtype=np.uint8).reshape(-1, 1, SIDE, SIDE)


def to_dataset(numbered: Iterable[tuple[int, Record]]) -> Dataset:
    numbers, records = zip(*numbered, strict=True)
    return Dataset(
        images([record.pattern for record in records]),
        np.array([record.label for record in records], dtype=np.int64),
        np.array([f"record-{number}" for number in numbers]),
        np.array([f"subject-{record.subject}" for record in records]),
        np.array([record.split.value for record in records]),
        np.array([record.consent.value for record in records]),
        ("a", "b", "c"),
    )


def describe(
    encoder: Encoder, image_path: ImagePath = ImagePath.PATCHES, guarantee: Guarantee = Guarantee.EXACT
) -> StoreDescription:
    image_shape = ImageShape((1, SIDE, SIDE))
    chosen = Settings(neighbours=K, image_path=image_path, image_shape=image_shape, guarantee=guarantee)
    shape = ModelShape.of(Recipe.of(chosen), encoder.feature_shape)
    # Lists with one place to spare are often searched again.
    return dataclasses.replace(describe_store(SITE, chosen, encoder, shape), list_length=K + 1)


class Site:
    """A key store, and the records that should be in it, in order."""

    def __init__(
        self,
        stack: ExitStack,
        encoder: Encoder,
        image_path: ImagePath = ImagePath.PATCHES,
        guarantee: Guarantee = Guarantee.EXACT,
    ) -> None:
        self.stack, self.description = stack, describe(encoder, image_path, guarantee)
        self.encoder = encoder
        self.store = self._empty()
        self.held: dict[int, Record] = {}
        self.deleted: dict[int, Record] = {}
        self.refused_numbers: set[int] = set()
        self.refused_subjects: set[int] = set()
        self.refused_patterns: set[int] = set()
        self.orders: list[DeletionOrder] = []
        self._count = 0

    def _empty(self) -> KeyStore:
        path = Path(self.stack.enter_context(tempfile.TemporaryDirectory())) / "keystore.sqlite"
        return self.stack.enter_context(KeyStore.create(path, self.description))

    def arrive(self, records: Sequence[Record]) -> None:
        numbered = dict(enumerate(records, self._count))
        self._count += len(records)
        self._enrol(numbered, frozenset())
        self.held |= {
            n: record
            for n, record in numbered.items()
            if n not in self.refused_numbers
            and record.subject not in self.refused_subjects
            and record.pattern not in self.refused_patterns
        }

    def come_back(self, places: set[int]) -> None:
        """Enrol deleted records again, with new consent."""
        chosen = {n: record for place, (n, record) in enumerate(self.deleted.items()) if place in places}
        if chosen:
            self._enrol(chosen, frozenset(f"record-{n}" for n in chosen))
            self.held |= chosen
            self.refused_patterns -= {record.pattern for record in chosen.values()}
            self.deleted = {n: record for n, record in self.deleted.items() if n not in chosen}

    def _enrol(self, numbered: dict[int, Record], new_consent: frozenset[str]) -> None:
        batches = encode(self.encoder, to_dataset(numbered.items()))
        enrol(self.store, batches, SECRET, new_consent=new_consent)

    def leave(self, numbers: set[int]) -> None:
        self._apply(Records(frozenset(SECRET.reference(f"record-{n}") for n in numbers), SITE))
        # An order may name a record before it arrives.
        self.refused_numbers |= numbers
        self._forget({n: record for n, record in self.held.items() if n in numbers})

    def leave_subject(self, subject: int) -> None:
        self._apply(Subject(SECRET.reference(f"subject-{subject}")))
        self.refused_subjects.add(subject)
        self._forget({n: record for n, record in self.held.items() if record.subject == subject})

    def _apply(self, target: Target) -> None:
        number = len(self.orders) + 1
        self.orders.append(DeletionOrder(number, SITE, DeletionRequest(f"request-{number}", SITE, target)))
        self.store.orders.apply(self.orders[-1])

    def _forget(self, gone: dict[int, Record]) -> None:
        self.deleted |= gone
        self.refused_patterns |= {record.pattern for record in gone.values()}
        self.held = {n: record for n, record in self.held.items() if n not in gone}

    def use(self) -> None:
        """Read what training and evaluation read; it searches lists again that deletions made short."""
        bank = read_bank(self.store, K)
        read_held_out(self.store, Split.TEST, bank, K)

    def built_anew(self) -> KeyStore:
        store = self._empty()
        if self.held:
            everything = to_dataset(self.held.items())
            enrol(store, [(everything, self.encoder.encode(torch.from_numpy(everything.images)))], SECRET)
        return store


def own_tokens(store: KeyStore) -> None:
    """Give every entry the token that its own input makes."""
    entries, _ = store.records.read_entries(Split.TRAIN)
    inputs = store.records.read_inputs(entries).flatten(1).float()
    size = store.description.exemplar_size
    tokens = Tokens.zeros(len(entries), size)
    tokens.offsets[:] = inputs.amax(1, keepdim=True) / (1 + torch.arange(size))
    tokens.steps[:] = inputs[:, 0].long()
    store.records.write_tokens(store.generation, entries, tokens)


records = st.builds(
    Record,
    st.integers(0, 11),
    st.integers(0, 2),
    st.integers(0, 5),
    st.sampled_from([Split.TRAIN, Split.TRAIN, Split.TRAIN, Split.VAL, Split.TEST]),
    st.sampled_from(Consent),
)
numbers = st.integers(0, 20)
steps = st.one_of(
    st.tuples(st.just("arrive"), st.lists(records, min_size=1, max_size=9)),
    st.tuples(st.just("arrive"), st.lists(records, min_size=1, max_size=9)),
    st.tuples(st.just("leave"), st.sets(numbers, min_size=1, max_size=6)),
    st.tuples(st.just("leave_subject"), st.integers(0, 5)),
    st.tuples(st.just("come_back"), st.sets(st.integers(0, 5), min_size=1, max_size=3)),
    st.tuples(st.just("apply_again"), st.none()),
    st.tuples(st.just("list"), st.none()),
    st.tuples(st.just("use"), st.none()),
    st.tuples(st.just("train"), st.none()),
)


def take(site: Site, what: str, value: Any) -> None:
    if what == "apply_again":
        for order in site.orders:
            site.store.orders.apply(order)
    elif what == "list":
        list_arrivals(site.store)
    elif what == "use":
        site.use()
    elif what == "train":
        own_tokens(site.store)
    else:
        getattr(site, what)(value)


@pytest.mark.parametrize("guarantee", [Guarantee.EXACT, Guarantee.CERTIFIED])
@settings(max_examples=20)
@given(first=st.lists(records, min_size=6, max_size=12), steps=st.lists(steps, max_size=12))
def test_deletions_leave_the_state_of_a_store_without_the_records(
    guarantee: Guarantee, first: list[Record], steps: list[Any]
) -> None:
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "BATCH", 4)
        site = Site(stack, DescriptorEncoder(1), guarantee=guarantee)
        site.arrive(first)
        for what, value in steps:
            take(site, what, value)
        anew = site.built_anew()
        for store in (site.store, anew):
            own_tokens(store)

        assert digest_of(site.store, K) == digest_of(anew, K)
        # What reading the state has written leaves it as it was.
        assert digest_of(site.store, K) == digest_of(anew, K)


def test_convolutions_leave_no_trace_of_what_was_encoded_with_a_record(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(import_torchvision().models.squeezenet1_1(weights=None).state_dict(), tmp_path / "weights.pth")
    weights, device = str(tmp_path / "weights.pth"), torch.device("cpu")
    encoder = TorchvisionEncoder("squeezenet1_1", weights=weights, size=48, device=device)
    splits = [Split.TEST if n % 5 == 4 else Split.TRAIN for n in range(14)]
    some = [Record(min(n, 12), n % 3, n, split, Consent.REVOCABLE) for n, split in enumerate(splits)]
    with ExitStack() as stack:
        site = Site(stack, encoder, ImagePath.FROZEN)
        site.arrive(some[:9])
        site.use()
        site.leave({0, 3, 4, 7})
        site.arrive(some[9:])
        site.leave_subject(10)
        torch.set_num_threads(2)

        anew = site.built_anew()

        assert digest_of(site.store, K) == digest_of(anew, K)
        assert anew.records.count(Split.TRAIN) == 8


# A site's own digest, and what changes it.


@pytest.fixture
def filled(store: KeyStore, fill: Fill) -> KeyStore:
    fill(store, range(8))
    fill(store, range(8, 10), split=Split.TEST)
    digest_of(store, K)
    return store


def flip_a_bit(store: KeyStore, table: str) -> None:
    connection = sqlite3.connect(store.path)
    with connection:
        blob = connection.blobopen(table, "content", 3)
        blob.seek(-1, 2)
        byte = blob.read(1)[0]
        blob.seek(-1, 2)
        blob.write(bytes([byte ^ 1]))
        blob.close()
    connection.close()


@pytest.mark.parametrize("table", ["keys", "inputs", "tokens", "ids"])
def test_every_bit_of_key_input_token_and_ids_counts(filled: KeyStore, table: str) -> None:
    flip_a_bit(filled, table)

    with pytest.raises(KeyStoreError, match=rf"entry 3 of the key store is damaged \(table {table}\)"):
        digest_of(filled, K)


def change(store: KeyStore, statement: str) -> None:
    """Update the file by itself, and add a tombstone, which is no part of the state."""
    connection = sqlite3.connect(store.path)
    key = store.database.secrets.mask_key
    connection.create_function("hidden", 3, lambda *row: int(mask(key, *(np.array([value]) for value in row))[0]))
    connection.create_function("seen", 3, lambda *row: float(unmask(key, *(np.array([value]) for value in row))[0]))
    with connection:
        assert connection.execute(f"UPDATE {statement}").rowcount
        connection.execute("INSERT OR IGNORE INTO tombstones (hash) VALUES (x'00')")
    connection.close()


SEEN = "seen(entry, neighbour, masked)"


def lists_set(similarity: str, which: str, entry: int) -> str:
    """Return what changes the similarity of the nearest (max) or farthest (min) neighbour of an entry."""
    end = f"(SELECT {which}({SEEN}) FROM neighbours WHERE entry = {entry})"  # noqa: S608
    return f"neighbours SET masked = hidden(entry, neighbour, {similarity}) WHERE entry = {entry} AND {SEEN} = {end}"


@pytest.mark.parametrize(
    ("statement", "counts"),
    [
        ("records SET split = 'val' WHERE entry = 9", True),
        ("description SET site = 'hospital-2'", True),
        ("description SET encoder = 'encoder-2'", True),
        ("description SET guarantee = 'exact'", True),
        # The nearest of one entry, and of a held-out record.
        (lists_set(f"{SEEN} + 0.0001", "max", 3), True),
        (lists_set("1.0", "min", 9), True),
        # What no prediction depends on does not count.
        (lists_set(f"{SEEN} - 0.0001", "min", 3), False),
        ("description SET generation = generation + 1", False),
        ("records SET influence = 'unbounded'", False),
    ],
)
def test_every_property_of_a_record_counts(filled: KeyStore, reopen: Reopen, statement: str, counts: bool) -> None:
    before = digest_of(filled, K)

    change(filled, statement)

    assert (digest_of(reopen(filled), K) != before) is counts


@pytest.mark.parametrize("changed", [Facts(0, permanent=False), Facts(2, permanent=True)])
def test_label_and_consent_count(filled: KeyStore, reopen: Reopen, changed: Facts) -> None:
    before = digest_of(filled, K)
    number = np.array([3])
    assert filled.records.read_entries(Split.TRAIN)[1][2] == 2
    (key,), (ids,) = filled.ciphers.read(number), filled.records.read_ids(number)

    for facts in (Facts(2, permanent=False), changed):
        sealed = seal_facts(key, 3, *ids, facts).hex()
        change(filled, f"ids SET content = x'{sealed}' WHERE entry = 3")
        assert (digest_of(reopen(filled), K) == before) is (facts is not changed)


@pytest.mark.parametrize(
    ("order", "subjects", "labels"),
    [([1, 0, 2], None, [1, 0, 2]), ([0, 1, 3], None, None), ([0, 1, 2], [0, 1, 1], None), ([0, 1], None, None)],
)
def test_records_and_their_order_count(
    make_store: Make, fill: Fill, order: list[int], subjects: list[int] | None, labels: list[int] | None
) -> None:
    first, second, third = make_store(), make_store(), make_store()
    for store in (first, second):
        fill(store, [0, 1, 2])
    fill(third, order, subjects=subjects, labels=labels)

    assert digest_of(first, K) == digest_of(second, K)
    assert digest_of(first, K) != digest_of(third, K)


def test_neighbours_that_count_are_k(filled: KeyStore) -> None:
    assert digest_of(filled, K) != digest_of(filled, K + 1)


def test_what_is_found_where_it_is_needed_does_not_count_under_exact(make_store: Make, fill: Fill) -> None:
    store, other = make_store(guarantee=Guarantee.EXACT), make_store(guarantee=Guarantee.EXACT)
    for each in (store, other):
        fill(each, range(8))
    own_tokens(store)
    list_arrivals(store)

    assert digest_of(store, K) == digest_of(other, K) == digest_of(store, K + 1)


def test_empty_stores_have_one_digest(make_store: Make) -> None:
    assert digest_of(make_store(), K) == digest_of(make_store(), K)
    assert digest_of(make_store(), K) != digest_of(make_store(exemplar_size=9), K)


@pytest.mark.parametrize("rows", [1, 3])
def test_digest_does_not_depend_on_the_batch(filled: KeyStore, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    before = digest_of(filled, K)

    monkeypatch.setattr(state_digest, "_ROWS", rows)

    assert digest_of(filled, K) == before


def test_deletion_meanwhile_leads_to_the_state_without_the_record(
    filled: KeyStore, make_store: Make, fill: Fill, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    anew, orders = make_store(), [order(1, 7)]
    fill(anew, range(7))
    fill(anew, range(8, 10), split=Split.TEST)
    read_inputs = filled.records.read_inputs

    def delete_and_read(entries: np.ndarray[Any, np.dtype[np.int64]]) -> torch.Tensor:
        while orders:
            filled.orders.apply(orders.pop())
        return read_inputs(entries)

    monkeypatch.setattr(filled.records, "read_inputs", delete_and_read)

    assert digest_of(filled, K) == digest_of(anew, K)


def test_identities_are_those_that_were_enrolled(filled: KeyStore, make_records: MakeRecords) -> None:
    enrolled = make_records([2, 5])

    identities = filled.records.read_ids(np.array([3, 6]))

    assert identities == list(zip(enrolled.record_ids.tolist(), enrolled.subject_ids.tolist(), strict=True))
    with pytest.raises(BankChanged, match="an entry was deleted"):
        filled.records.read_ids(np.array([3, 99]))
