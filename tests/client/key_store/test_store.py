"""Opening a key store, enrolling records into it, and writing back what training changed."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmunkey.client.key_store import Enrolled, HeldRecords, KeyStore, Tokens
from fedmunkey.client.learning.neighbour_index import list_arrivals
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, Subject
from fedmunkey.common.errors import BankChanged, KeyStoreError
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.model.neighbours import NeighbourLists
from fedmunkey.common.settings.settings import ImagePath

Fill = Callable[..., Dataset]
Make = Callable[..., KeyStore]
Order = Callable[..., DeletionOrder]
MakeRecords = Callable[..., Dataset]
Encode = Callable[[Dataset], Encoding]


def random_tokens(count: int, size: int, seed: int = 0) -> Tokens:
    draw = torch.Generator().manual_seed(seed)
    rows = [torch.randn(count, size, generator=draw) for _ in range(3)]
    return Tokens(rows[0], rows[1], rows[2], torch.arange(1, count + 1))


def equal(left: Tokens, right: Tokens) -> bool:
    names = ("offsets", "first_moments", "second_moments", "steps")
    return all(torch.equal(getattr(left, name), getattr(right, name)) for name in names)


# Creating and opening.


def test_store_can_be_read_by_its_owner_only(store: KeyStore, fill: Fill) -> None:
    fill(store, range(3))

    files = list(store.path.parent.iterdir())

    assert {file.name for file in files} == {
        "keystore.keys",
        "keystore.journal",
        "keystore.journal-wal",
        "keystore.journal-shm",
        "keystore.master",
        "keystore.sqlite",
        "keystore.sqlite-wal",
        "keystore.sqlite-shm",
    }
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_description_survives_reopening(make_store: Make, reopen: Callable[[KeyStore], KeyStore]) -> None:
    store = make_store(image_path=ImagePath.FROZEN, input_shape=(4, 6), list_length=5)

    assert reopen(store).description == store.description
    assert store.description.input_shape == (4, 6)


def test_second_store_at_the_same_place_is_refused(store: KeyStore) -> None:
    with pytest.raises(KeyStoreError, match=r"keystore\.sqlite is there already; open it, or choose another folder"):
        KeyStore.create(store.path, store.description)


def test_absent_store_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError, match=r"no key store .*absent\.sqlite; .*munkey-client enrol"):
        KeyStore.open(tmp_path / "absent.sqlite")


@pytest.mark.parametrize("content", [b"not a database at all, however long it may be" * 100, b""])
def test_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keystore.sqlite"
    path.write_bytes(content)

    with pytest.raises(KeyStoreError, match=r"keystore\.sqlite (is not a readable key store|has key store schema 0)"):
        KeyStore.open(path)


def test_store_whose_creation_was_cut_short_is_refused(store: KeyStore) -> None:
    store.close()
    connection = sqlite3.connect(store.path)
    connection.execute("DELETE FROM description")
    connection.commit()
    connection.close()

    with pytest.raises(KeyStoreError, match="not finished when it was made; remove it and enrol the records again"):
        KeyStore.open(store.path)


def test_refused_file_is_not_kept_open(store: KeyStore) -> None:
    store.close()
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(KeyStoreError):
        KeyStore.open(store.path)

    # The last connection to a database removes its log; it would stay beside one that is still open.
    names = {file.name for file in store.path.parent.iterdir()}
    assert names == {"keystore.sqlite", "keystore.keys", "keystore.master", "keystore.journal"}


# Enrolling.


@pytest.mark.parametrize("path", [ImagePath.PATCHES, ImagePath.FROZEN])
def test_arrays_come_back_bit_for_bit(
    make_store: Make,
    make_records: MakeRecords,
    encode_records: Encode,
    secret: FederationSecret,
    reopen: Callable[[KeyStore], KeyStore],
    path: ImagePath,
) -> None:
    store = make_store(image_path=path, input_shape=(1, 8, 8) if path is ImagePath.PATCHES else (4, 6))
    records = make_records(range(5))
    encoding = encode_records(records)

    enrolled = store.records.enrol(records, encoding, secret)

    again = reopen(store)
    entries, labels = again.records.read_entries(Split.TRAIN)
    inputs = again.records.read_inputs(entries)
    expected = torch.from_numpy(records.images) if path is ImagePath.PATCHES else encoding.features
    assert enrolled == Enrolled(added=5)
    assert labels.tolist() == records.labels.tolist()
    assert torch.equal(again.records.read_keys(entries), encoding.keys)
    assert inputs.dtype == expected.dtype
    assert torch.equal(inputs, expected)


def test_held_out_records_are_not_in_the_bank(store: KeyStore, fill: Fill) -> None:
    fill(store, range(3))
    fill(store, range(3, 5), split=Split.VAL)
    fill(store, [5], split=Split.TEST, labels=[3])

    assert [store.records.count(split) for split in Split] == [3, 2, 1]
    assert [store.records.read_entries(split)[0].tolist() for split in Split] == [[1, 2, 3], [4, 5], [6]]
    assert store.records.read_entries(Split.TEST)[1].tolist() == [3]
    assert store.records.count_labels() == {0: 1, 1: 1, 2: 1}
    assert store.records.count_consents() == {Consent.REVOCABLE: 6}


def test_record_that_is_known_is_left_as_it_was(
    store: KeyStore, make_records: MakeRecords, encode_records: Encode, secret: FederationSecret, fill: Fill
) -> None:
    first = fill(store, range(3))
    changed = make_records(range(5), labels=[3] * 5)
    changed.images[:] = 0

    enrolled = store.records.enrol(changed, encode_records(changed), secret)

    entries, labels = store.records.read_entries(Split.TRAIN)
    assert enrolled == Enrolled(added=2, known=3)
    assert labels.tolist() == [0, 1, 2, 3, 3]
    assert torch.equal(store.records.read_inputs(entries[:3]), torch.from_numpy(first.images))


def test_failing_enrolment_adds_nothing(
    store: KeyStore, make_records: MakeRecords, encode_records: Encode, secret: FederationSecret
) -> None:
    records = make_records(range(3))
    records.splits[2] = "none"

    with pytest.raises(sqlite3.IntegrityError):
        store.records.enrol(records, encode_records(records), secret)

    assert store.records.count(Split.TRAIN) == 0


def test_counts_of_batches_add_up() -> None:
    assert Enrolled(1, 2, 3) + Enrolled(10, 20, 30) == Enrolled(11, 22, 33)


@pytest.fixture
def enrol(
    store: KeyStore, make_records: MakeRecords, encode_records: Encode, secret: FederationSecret
) -> Callable[..., Enrolled]:
    """Return a function that enrols records by number, some of them with new consent."""

    def enrol(*numbers: int, consented: tuple[int, ...] = (), subjects: Sequence[int] | None = None) -> Enrolled:
        records = make_records(numbers, subjects=subjects)
        given = frozenset(make_records(consented).record_ids.tolist())
        return store.records.enrol(records, encode_records(records), secret, new_consent=given)

    return enrol


def same(number: int) -> int:
    return number


def seven(_number: int) -> int:
    return 7


def seven_or_eight(number: int) -> int:
    return 8 - number % 2


@pytest.mark.parametrize(
    ("held", "subject_of", "deleted", "again"),
    [
        pytest.param((1, 2), same, (1,), [((1, 2, 3), (), Enrolled(1, 1, 1))], id="deleted-record"),
        pytest.param((), same, (5,), [((5, 6), (), Enrolled(added=1, refused=1))], id="named-before-it-arrived"),
        pytest.param((1, 2), same, (), [((1, 2, 3), (), Enrolled(added=1, refused=2))], id="emptied-site"),
        pytest.param((1, 2), seven_or_eight, None, [((1, 2, 3, 4), (), Enrolled(1, 1, 2))], id="subject-never-here"),
        pytest.param(
            (1, 2),
            same,
            (1, 2),
            [((1, 2), (1,), Enrolled(added=1, refused=1)), ((1, 2), (), Enrolled(known=1, refused=1))],
            id="new-consent",
        ),
        pytest.param(
            (1, 2),
            seven,
            None,
            [((1, 2), (1,), Enrolled(added=1, refused=1)), ((2, 3), (), Enrolled(refused=2))],
            id="new-consent-for-one-of-a-subject",
        ),
    ],
)
def test_what_was_deleted_stays_out_without_new_consent(
    store: KeyStore,
    enrol: Callable[..., Enrolled],
    order: Order,
    subject_target: Callable[[int], Subject],
    held: tuple[int, ...],
    subject_of: Callable[[int], int],
    deleted: tuple[int, ...] | None,
    again: list[tuple[tuple[int, ...], tuple[int, ...], Enrolled]],
) -> None:
    enrol(*held, subjects=[subject_of(number) for number in held])

    store.orders.apply(order(1, *(deleted or ()), target=subject_target(7) if deleted is None else None))

    for numbers, consented, expected in again:
        assert enrol(*numbers, consented=consented, subjects=[subject_of(number) for number in numbers]) == expected


def test_record_with_new_consent_can_be_deleted_again_and_refusal_survives_reopening(
    store: KeyStore,
    enrol: Callable[..., Enrolled],
    order: Order,
    make_records: MakeRecords,
    secret: FederationSecret,
    reopen: Callable[[KeyStore], KeyStore],
) -> None:
    enrol(1)
    store.orders.apply(order(1, 1))
    enrol(1, consented=(1,))
    store.orders.apply(order(2, 1))

    assert enrol(1) == Enrolled(refused=1)
    assert reopen(store).records.has_deleted(secret.reference(make_records([1]).record_ids[0]))


def test_subject_of_the_same_name_is_no_deleted_record(
    store: KeyStore, order: Order, make_records: MakeRecords, secret: FederationSecret
) -> None:
    # Where nobody says whose a record is, it is its own subject, and both have one reference.
    name = secret.reference(str(make_records([1]).record_ids[0]))
    store.orders.apply(order(1, target=Subject(name)))

    assert not store.records.has_deleted(name)
    assert store.records.refuses(name, name)


# Tokens and lists.


def test_untrained_tokens_are_zero(store: KeyStore, fill: Fill) -> None:
    fill(store, range(3))
    entries, _ = store.records.read_entries(Split.TRAIN)

    assert equal(store.records.read_tokens(entries), Tokens.zeros(3, 8))
    assert store.records.count_trained() == 0


def test_tokens_come_back_bit_for_bit(store: KeyStore, fill: Fill, reopen: Callable[[KeyStore], KeyStore]) -> None:
    fill(store, range(5))
    entries, _ = store.records.read_entries(Split.TRAIN)
    first, second = random_tokens(5, 8), random_tokens(5, 8, seed=1)

    store.records.write_tokens(store.generation, entries, first)
    store.records.write_tokens(store.generation, entries, second)

    assert equal(reopen(store).records.read_tokens(entries), second)
    assert store.records.count_trained() == 5


def test_tokens_are_read_in_the_order_asked_for(store: KeyStore, fill: Fill) -> None:
    fill(store, range(5))
    entries, _ = store.records.read_entries(Split.TRAIN)
    tokens = random_tokens(5, 8)
    store.records.write_tokens(store.generation, entries, tokens)

    some = store.records.read_tokens(entries[[1, 4]])

    assert torch.equal(some.offsets, tokens.offsets[[1, 4]])
    assert some.steps.tolist() == [2, 5]


@pytest.mark.parametrize("what", ["tokens", "neighbours"])
def test_nothing_that_was_computed_with_a_deleted_entry_is_written(
    store: KeyStore, fill: Fill, order: Order, reopen: Callable[[KeyStore], KeyStore], what: str
) -> None:
    fill(store, range(5))
    list_arrivals(store)
    generation = store.generation
    entries, _ = store.records.read_entries(Split.TRAIN)
    reopen(store).orders.apply(order(1, 2))
    kept = entries[[0, 1, 3, 4]]
    before = store.records.read_neighbours(kept, kept)

    def write() -> None:
        if what == "tokens":
            store.records.write_tokens(generation, entries, random_tokens(5, 8))
        else:
            store.records.write_neighbours(generation, entries, NeighbourLists.empty(5, 12), entries)

    with pytest.raises(BankChanged):
        write()

    assert store.records.count_trained() == 0
    assert torch.equal(store.records.read_neighbours(kept, kept).indices, before.indices)


def test_list_of_a_held_out_record_that_was_deleted_is_not_written(store: KeyStore, fill: Fill, order: Order) -> None:
    fill(store, range(3))
    fill(store, [3], split=Split.TEST)
    generation = store.generation
    bank, held_out = store.records.read_entries(Split.TRAIN)[0], store.records.read_entries(Split.TEST)[0]
    store.orders.apply(order(1, 3))
    lists = NeighbourLists(torch.tensor([[0]]), torch.tensor([[0.5]]))

    with pytest.raises(BankChanged, match="deleted while its neighbours were being searched"):
        store.records.write_neighbours(generation, held_out, lists, bank)


@pytest.mark.parametrize("read", [HeldRecords.read_keys, HeldRecords.read_inputs])
def test_reading_an_entry_that_was_deleted_says_that_the_bank_changed(
    store: KeyStore, fill: Fill, order: Order, read: Callable[[HeldRecords, object], object]
) -> None:
    fill(store, range(3))
    entries, _ = store.records.read_entries(Split.TRAIN)
    store.orders.apply(order(1, 0))

    with pytest.raises(BankChanged):
        read(store.records, entries)


def test_neighbours_come_back_nearest_first_as_positions(store: KeyStore, fill: Fill) -> None:
    fill(store, range(4))
    entries, _ = store.records.read_entries(Split.TRAIN)
    lists = NeighbourLists(torch.tensor([[3, 1], [2, -1]]), torch.tensor([[0.9, 0.1], [0.5, -torch.inf]]))
    store.records.write_neighbours(store.generation, entries[[0, 1]], lists, entries)

    found = store.records.read_neighbours(entries, entries)
    among_some = store.records.read_neighbours(entries[[0]], entries[[0, 3]])

    assert found.indices.shape == (4, 12)
    assert found.indices[:, :2].tolist() == [[3, 1], [2, -1], [-1, -1], [-1, -1]]
    assert torch.equal(found.similarities[:2, :2], lists.similarities)
    assert among_some.indices[0, :2].tolist() == [1, -1]
    assert len(store.records.read_neighbours(np.empty(0, dtype=np.int64), entries).indices) == 0


def test_another_secret_is_noticed(store: KeyStore, fill: Fill, secret: FederationSecret) -> None:
    other = FederationSecret(b"a secret of another federation")
    assert store.records.agrees_with(other)
    fill(store, [1])

    assert store.records.agrees_with(secret)
    assert not store.records.agrees_with(other)
