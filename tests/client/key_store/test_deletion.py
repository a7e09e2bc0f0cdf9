"""Carrying out deletion orders: all of it or nothing, once, and no file holds the bytes afterwards."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from fedmunkey.client.key_store import KeyStore, Tokens, deletion
from fedmunkey.client.key_store.answers import read_answers
from fedmunkey.client.key_store.on_disk.record_ciphers import Epoch, RecordCiphers
from fedmunkey.client.key_store.on_disk.schema import CONTENTS
from fedmunkey.client.key_store.removal import Hearing
from fedmunkey.client.learning.neighbour_index import list_arrivals
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, SiteState
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath
from tests.client.conftest import Encode, Fill, Make, Order, Reopen, SubjectTarget
from tests.patience import PATIENCE

_OTHERS = ("neighbours", "tombstones", "applied_orders", "description", "fingerprints", "doomed_record_keys")


def rows(store: KeyStore) -> dict[str, list[tuple[Any, ...]]]:
    """Return everything in a store, read over a connection of its own."""
    connection = sqlite3.connect(store.path)
    found = {table: sorted(connection.execute(f"SELECT * FROM {table}")) for table in ("records", *CONTENTS, *_OTHERS)}  # noqa: S608
    connection.close()
    return found


def entries_named(store: KeyStore) -> dict[str, set[object]]:
    """Return the entry numbers of which each table still has something."""
    found = rows(store)
    return {
        "records": {row[0] for row in found["records"]},
        **{table: {entry for entry, content in found[table] if any(content)} for table in CONTENTS},
        "neighbours": {number for row in found["neighbours"] for number in row[:2]},
    }


def write_random_tokens(store: KeyStore, seed: int = 0) -> dict[int, list[bytes]]:
    """Train every entry, so to say; return the bytes of each entry's token."""
    entries, _ = store.records.read_entries(Split.TRAIN)
    draw = np.random.default_rng(seed)
    arrays = [draw.normal(size=(len(entries), store.description.exemplar_size)).astype(np.float32) for _ in range(3)]
    offsets, first, second = (torch.from_numpy(array) for array in arrays)
    steps = torch.full((len(entries),), seed + 1)
    store.records.write_tokens(store.generation, entries, Tokens(offsets, first, second, steps))
    return {entry: [array[row].tobytes() for array in arrays] for row, entry in enumerate(entries.tolist())}


@pytest.fixture
def trained(store: KeyStore, fill: Fill) -> KeyStore:
    """A store with six entries, of which 4 and 5 are one subject's, two held-out records, tokens and lists."""
    fill(store, range(6), subjects=[1, 2, 3, 4, 5, 5])
    fill(store, [6, 7], split=Split.TEST, subjects=[5, 7])
    list_arrivals(store)
    write_random_tokens(store)
    store.records.keep_tokens(store.generation, "ab" * 32, trained=True)
    return store


# What goes, and what comes.


def test_deleted_records_are_gone_from_every_table(trained: KeyStore, order: Order) -> None:
    answer = trained.orders.apply(order(1, 1, 3))

    assert (answer.number, answer.site, answer.request_id) == (1, "hospital-1", "request-1")
    assert (answer.state, answer.records, answer.entries) == (SiteState.ERASED, 2, 2)
    assert answer.guarantee is Guarantee.EMPIRICAL
    assert answer.seconds > 0
    assert entries_named(trained) == {
        "records": {1, 3, 5, 6, 7, 8},
        "keys": {1, 3, 5, 6, 7, 8},
        "inputs": {1, 3, 5, 6, 7, 8},
        "ids": {1, 3, 5, 6, 7, 8},
        "tokens": {1, 3, 5, 6},
        "kept_tokens": {1, 3, 5, 6},
        "neighbours": {1, 3, 5, 6, 7, 8},
    }


def test_deleted_subject_takes_all_its_records(trained: KeyStore, order: Order, subject_target: SubjectTarget) -> None:
    answer = trained.orders.apply(order(1, target=subject_target(5)))

    assert (answer.records, answer.entries) == (3, 2)
    assert [trained.records.count(split) for split in Split] == [4, 0, 1]
    assert entries_named(trained)["neighbours"] == {1, 2, 3, 4, 8}


def test_emptied_site_holds_tombstones_and_answers_only(trained: KeyStore, order: Order) -> None:
    answer = trained.orders.apply(order(1))

    found = rows(trained)
    assert (answer.records, answer.entries) == (8, 6)
    assert {table: len(content) for table, content in found.items() if content} == {
        "tombstones": 16,
        "fingerprints": 1,
        "applied_orders": 1,
        "description": 1,
    }


def test_order_for_what_is_not_here_says_so(trained: KeyStore, order: Order) -> None:
    before = rows(trained)

    answer = trained.orders.apply(order(1, 100))

    changed = {table for table, content in rows(trained).items() if content != before[table]}
    assert (answer.state, answer.records, answer.entries) == (SiteState.NOTHING_HELD, 0, 0)
    assert changed == {"tombstones", "applied_orders", "fingerprints"}


def test_tombstones_name_nobody(trained: KeyStore, order: Order, make_store: Make) -> None:
    other = make_store()
    for store in (trained, other):
        store.orders.apply(order(1, 1))

    ours, theirs = rows(trained)["tombstones"], rows(other)["tombstones"]

    assert (len(ours), len(theirs)) == (2, 1)
    # The hash is keyed by a secret of the store alone, so neither the id nor its reference can be tried out.
    assert ours != theirs


def test_entry_numbers_are_never_given_again(trained: KeyStore, order: Order, fill: Fill, reopen: Reopen) -> None:
    trained.orders.apply(order(1))

    again = reopen(trained)
    fill(again, [100])

    assert again.records.read_entries(Split.TRAIN)[0].tolist() == [9]


# All or nothing, once.


@pytest.mark.parametrize(
    "event",
    [
        "INSERT ON tombstones",
        "DELETE ON records",
        "{erased} ON keys",
        "{erased} ON inputs",
        "{erased} ON tokens",
        "DELETE ON neighbours",
        "INSERT ON applied_orders",
        "UPDATE ON description",
    ],
)
@pytest.mark.parametrize("target", ["records", "subject", "everything"])
def test_deletion_that_fails_half_way_changes_nothing(
    trained: KeyStore, order: Order, subject_target: SubjectTarget, event: str, target: str
) -> None:
    orders = {"records": order(1, 0, 1, 2), "subject": order(1, target=subject_target(5)), "everything": order(1)}
    other = sqlite3.connect(trained.path)
    event = event.format(erased="DELETE" if target == "everything" else "UPDATE")
    # AFTER: a part of the deletion has been done by then.
    other.execute(f"CREATE TRIGGER fault AFTER {event} BEGIN SELECT RAISE(ABORT, 'fault'); END")
    before = rows(trained)

    with pytest.raises(sqlite3.IntegrityError, match="fault"):
        trained.orders.apply(orders[target])

    assert rows(trained) == before
    assert trained.orders.last == 0
    other.execute("DROP TRIGGER fault")
    other.close()
    assert trained.orders.apply(orders[target]).state is SiteState.ERASED


def test_order_is_applied_once(trained: KeyStore, order: Order, reopen: Reopen) -> None:
    first = trained.orders.apply(order(1, 1))
    before = rows(trained)

    assert trained.orders.apply(order(1, 1)) == first
    assert reopen(trained).orders.apply(order(1, 1)) == first
    assert rows(trained) == before
    trained.orders.apply(order(2, 2))
    assert trained.orders.apply(order(1, 1)) == first
    assert trained.orders.last == 2


@pytest.mark.parametrize("target", ["records", "subject"])
def test_orders_that_are_applied_together_leave_what_they_would_leave_one_by_one(
    make_store: Make, fill: Fill, order: Order, subject_target: SubjectTarget, target: str
) -> None:
    orders = [order(1, 0, 1), order(2, 100), order(3, 1, 2), order(4, target=subject_target(5))]
    if target == "records":
        orders[3] = order(4, 3)
    orders += [order(5), order(6, 4)]
    stores = [make_store(), make_store()]
    for store in stores:
        fill(store, range(6), subjects=[1, 2, 3, 4, 5, 5])
        list_arrivals(store)
        write_random_tokens(store)

    together = stores[0].orders.apply_all(orders)
    single = [stores[1].orders.apply(one) for one in orders]

    assert [replace(answer, seconds=0.0) for answer in together] == [replace(one, seconds=0.0) for one in single]
    left = [rows(store) for store in stores]
    # Neither tombstones nor fingerprints of two stores are alike: each has a key of its own.
    for table in ("records", *CONTENTS, "neighbours", "doomed_record_keys"):
        assert left[0][table] == left[1][table], table
    assert len(left[0]["tombstones"]) == len(left[1]["tombstones"])
    assert [store.generation for store in stores] == [stores[0].generation] * 2
    assert stores[0].orders.apply_all(orders) == together


def test_disk_is_waited_for_by_all_together(trained: KeyStore, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Mock(wraps=os.fsync)
    monkeypatch.setattr(os, "fsync", wait)

    trained.orders.apply(order(1, 0))
    one = wait.call_count
    trained.orders.apply_all([order(number, number - 1) for number in range(2, 6)])

    assert wait.call_count == 2 * one


def test_order_is_refused_amid_others(trained: KeyStore, order: Order) -> None:
    orders = [order(number, number - 1) for number in range(1, 5)]

    def hear(heard: DeletionOrder) -> Hearing:
        return Hearing(bytes([heard.number] * 32), "it is unsigned" if heard.number == 3 else "")

    answers = trained.orders.apply_all(orders, hear)

    assert [answer.state.value for answer in answers] == ["erased", "erased", "refused", "erased"]
    assert answers[2].reason == "it is unsigned"
    assert trained.records.count(Split.TRAIN) == 3
    assert trained.orders.read_unacknowledged() == answers


def test_order_that_skips_one_amid_others_keeps_all_of_them_from_being_applied(trained: KeyStore, order: Order) -> None:
    with pytest.raises(KeyStoreError, match="order 3 came before order 2; watch the stream from the start"):
        trained.orders.apply_all([order(1, 0), order(3, 1)])

    assert trained.orders.last == 0


def test_answers_that_wait_are_found_by_an_index(trained: KeyStore) -> None:
    connection = sqlite3.connect(trained.path)
    for condition in ("acknowledged = 0", "finished = 0", "request = x'00'"):
        plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT number FROM applied_orders WHERE {condition}").fetchall()  # noqa: S608
        assert all("USING" in step[-1] and "INDEX" in step[-1] for step in plan), plan
    connection.close()


def test_store_that_was_made_without_the_indexes_gets_them(trained: KeyStore, reopen: Reopen) -> None:
    names = "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name LIKE 'orders_%'"
    connection = sqlite3.connect(trained.path)
    for name in ("orders_unfinished", "orders_unacknowledged", "orders_by_digest"):
        connection.execute(f"DROP INDEX {name}")
    assert connection.execute(names).fetchone() == (0,)

    reopen(trained)

    assert connection.execute(names).fetchone() == (3,)
    connection.close()


def test_order_for_another_site_is_refused(trained: KeyStore, order: Order) -> None:
    with pytest.raises(KeyStoreError, match="order 1 is for hospital-2, this key store belongs to hospital-1"):
        trained.orders.apply(order(1, site="hospital-2"))

    assert trained.records.count(Split.TRAIN) == 6


def test_two_processes_that_apply_one_order_give_one_answer(trained: KeyStore, order: Order, reopen: Reopen) -> None:
    both = [trained, reopen(trained)]
    begin = threading.Barrier(2)

    def apply(store: KeyStore) -> object:
        begin.wait(PATIENCE)
        return store.orders.apply(order(1, 1, 2))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(apply, both)

    assert first == second
    assert len(rows(trained)["applied_orders"]) == 1
    assert trained.generation == 1


def test_answers_wait_until_the_service_has_them(trained: KeyStore, order: Order, reopen: Reopen) -> None:
    answers = [trained.orders.apply(order(number, number)) for number in (1, 2)]
    assert trained.orders.read_unacknowledged() == answers

    trained.orders.mark_acknowledged(1)

    assert reopen(trained).orders.read_unacknowledged() == answers[1:]
    assert trained.orders.read_answers() == answers


# The bytes.


def fragments(content: bytes) -> Iterator[bytes]:
    """Yield parts of some bytes: a copy that was overwritten in part, or that lies on two pages, is a copy."""
    width = 16
    for start in {0, (len(content) - width) // 2, len(content) - width}:
        yield content[max(start, 0) : max(start, 0) + width]


class Traces:
    """What every record has ever put into a store."""

    def __init__(self, store: KeyStore, fill: Fill, encode: Encode, secret: FederationSecret):
        self._store, self._fill, self._encode, self._secret = store, fill, encode, secret
        self._of: dict[int, list[bytes]] = {}
        self._entry: dict[int, int] = {}
        self._sealed: dict[int, list[bytes]] = {}

    def enrol(self, numbers: range) -> None:
        records = self._fill(self._store, numbers)
        encoding = self._encode(records)
        patches = self._store.description.image_path is ImagePath.PATCHES
        inputs = records.images if patches else encoding.features.numpy()
        last = int(self._store.records.read_entries(Split.TRAIN)[0].max())
        for row, number in enumerate(numbers):
            identifiers = (records.record_ids[row], records.subject_ids[row])
            self._entry[number] = last - len(numbers) + 1 + row
            self._of[number] = [
                *(identifier.encode() for identifier in identifiers),
                *(self._secret.reference(identifier) for identifier in identifiers),
                encoding.keys[row].numpy().tobytes(),
                inputs[row].tobytes(),
            ]
        self._keep_what_is_sealed()

    def train(self, seed: int) -> None:
        tokens = write_random_tokens(self._store, seed)
        for number, entry in self._entry.items():
            self._of[number] += tokens.get(entry, [])
        self._keep_what_is_sealed()

    def _keep_what_is_sealed(self) -> None:
        connection = sqlite3.connect(self._store.path)
        for number, entry in self._entry.items():
            found = self._sealed.setdefault(number, [])
            for table in CONTENTS:
                row = connection.execute(f"SELECT content FROM {table} WHERE entry = ?", (entry,)).fetchone()  # noqa: S608
                if row is not None and any(row[0]) and row[0] not in found:
                    found.append(row[0])
            slot = self._store.ciphers.read_slots(np.array([entry]))[0].rstrip(bytes(1))
            if slot and slot not in found:
                found.append(slot)
        connection.close()

    def on_disk(self, number: int) -> list[bytes]:
        # Ids of these tests begin and end alike, so they are looked for as a whole.
        ids, others = self._of[number][:2], self._of[number][2:] + self._sealed[number]
        return [*self._found(ids), *self._found([part for trace in others for part in fragments(trace)])]

    def in_the_clear(self) -> list[bytes]:
        """Return what of any record can be read without a key."""
        # References are not kept, and are looked for with the rest.
        return self._found([trace for traces in self._of.values() for trace in traces])

    def _found(self, parts: list[bytes]) -> list[bytes]:
        raw = [file.read_bytes() for file in self._store.path.parent.iterdir()]
        return [part for part in parts if any(part in content for content in raw)]


MakeTraces = Callable[[KeyStore], Traces]


@pytest.fixture
def make_traces(fill: Fill, encode_records: Encode, secret: FederationSecret) -> MakeTraces:
    return lambda store: Traces(store, fill, encode_records, secret)


@pytest.fixture(params=[ImagePath.PATCHES, ImagePath.FROZEN])
def any_store(make_store: Make, request: pytest.FixtureRequest) -> KeyStore:
    shape = (1, 8, 8) if request.param is ImagePath.PATCHES else (4, 6)
    return make_store(image_path=request.param, input_shape=shape)


def test_no_file_holds_bytes_of_a_deleted_record(any_store: KeyStore, make_traces: MakeTraces, order: Order) -> None:
    traces = make_traces(any_store)
    traces.enrol(range(30))
    list_arrivals(any_store)
    for seed in range(3):
        traces.train(seed)
    assert len(traces.on_disk(7)) > 6
    assert traces.in_the_clear() == []

    any_store.orders.apply(order(1, 7))

    assert traces.on_disk(7) == []
    assert len(traces.on_disk(8)) > 6


def test_no_file_holds_bytes_when_open(store: KeyStore, make_traces: MakeTraces, order: Order, reopen: Reopen) -> None:
    other = reopen(store)
    traces = make_traces(store)
    traces.enrol(range(30))
    traces.train(0)
    entries, _ = other.records.read_entries(Split.TRAIN)
    other.records.read_keys(entries)

    store.orders.apply(order(1, 7))
    # What the other process had read is not written again with the rest of its pages.
    write_random_tokens(other, seed=5)

    assert traces.on_disk(7) == []


# Whether rows that move leave a copy behind depends on how pages fill up, so there is more than one attempt.
@pytest.mark.parametrize("seed", [0, 1])
def test_no_file_holds_moved_copies(any_store: KeyStore, make_traces: MakeTraces, order: Order, seed: int) -> None:
    traces = make_traces(any_store)
    deleted: list[int] = []
    draw = np.random.default_rng(seed)
    held: list[int] = []
    for number in range(1, 9):
        first = 1000 * number
        traces.enrol(range(first, first + 37))
        held += range(first, first + 37)
        traces.train(number)
        chosen = draw.choice(held, len(held) // 2, replace=False).tolist()
        any_store.orders.apply(order(number, *chosen))
        deleted += chosen
        held = [record for record in held if record not in chosen]

    assert {record: found for record in deleted if (found := traces.on_disk(record))} == {}


@pytest.mark.parametrize("what", ["subject", "everything"])
def test_no_file_holds_the_bytes_of_a_subject_or_a_site(
    store: KeyStore, make_traces: MakeTraces, order: Order, subject_target: SubjectTarget, what: str
) -> None:
    traces = make_traces(store)
    traces.enrol(range(20))
    traces.train(0)

    store.orders.apply(order(1, target=subject_target(7) if what == "subject" else None))

    assert traces.on_disk(7) == []
    assert bool(traces.on_disk(8)) is (what == "subject")


# Crashes and other processes.


def test_erasure_that_a_crash_interrupted_is_finished_before_it_is_acknowledged(
    store: KeyStore,
    make_traces: MakeTraces,
    order: Order,
    reopen: Reopen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class PowerCutError(Exception): ...

    def fail(_connection: sqlite3.Connection) -> None:
        raise PowerCutError

    traces = make_traces(store)
    traces.enrol(range(20))
    with monkeypatch.context() as patched:
        patched.setattr(deletion, "_checkpoint", fail)
        with pytest.raises(PowerCutError):
            store.orders.apply(order(1, 7))
    assert store.orders.last == 1
    assert traces.on_disk(7) != []

    after = reopen(store)
    (answer,) = after.orders.read_unacknowledged()

    assert (answer.number, answer.state, answer.records) == (1, SiteState.ERASED, 1)
    assert answer.seconds > 0
    assert traces.on_disk(7) == []
    assert after.orders.read_unacknowledged() == [answer]
    assert after.orders.apply(order(1, 7)) == answer


@pytest.mark.parametrize("whole", [False, True])
def test_deletion_is_on_the_disk_before_a_key_is_destroyed(
    store: KeyStore, fill: Fill, order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    fill(store, range(5))
    left: list[int] = []

    def look(ciphers: RecordCiphers, entries: Iterable[int]) -> Epoch:
        # A power failure may take all that only the log holds.
        lost = Path(shutil.copy(store.path, tmp_path / "after-a-power-failure"))
        with closing(sqlite3.connect(lost)) as connection:
            left.append(connection.execute("SELECT count(*) FROM records").fetchone()[0])
        return destroy(ciphers, entries)

    destroy = RecordCiphers.destroy
    monkeypatch.setattr(RecordCiphers, "destroy", look)

    store.orders.apply(order(1) if whole else order(1, 2, 3))

    assert left == [0 if whole else 3]


def test_reader_that_stays_keeps_an_order_from_being_answered_but_not_for_good(
    make_store: Make, make_traces: MakeTraces, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedmunkey.client.key_store.on_disk.schema._BUSY_SECONDS", 0.01)
    store = make_store()
    traces = make_traces(store)
    traces.enrol(range(20))
    reader = sqlite3.connect(store.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM records").fetchone()

    for _ in range(2):
        with pytest.raises(KeyStoreError, match=r"another process keeps reading the key store.*try again"):
            store.orders.apply(order(1, 7))
    with pytest.raises(KeyStoreError, match="keeps reading"):
        store.orders.read_unacknowledged()
    assert store.records.count(Split.TRAIN) == 19
    assert 8 not in store.ciphers.held()

    reader.execute("ROLLBACK")
    reader.close()
    answer = store.orders.apply(order(1, 7))

    assert answer.records == 1
    assert traces.on_disk(7) == []
    assert store.orders.read_unacknowledged() == [answer]


def test_writer_that_stays_keeps_an_order_from_being_applied_but_not_for_good(
    make_store: Make, fill: Fill, order: Order, reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedmunkey.client.key_store.on_disk.schema._BUSY_SECONDS", 0.01)
    store = make_store()
    fill(store, range(3))

    with reopen(store).database.writing(), pytest.raises(KeyStoreError, match=r"database is locked.*try again"):
        store.orders.apply(order(1, 1))
    assert store.orders.last == 0

    assert store.orders.apply(order(1, 1)).records == 1


def test_log_is_empty_after_a_deletion(trained: KeyStore, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, checkpoint = list[int](), deletion._checkpoint

    def measured(connection: sqlite3.Connection) -> None:
        checkpoint(connection)
        sizes.append(Path(f"{trained.path}-wal").stat().st_size)

    monkeypatch.setattr(deletion, "_checkpoint", measured)
    trained.orders.apply(order(1, 1))

    assert sizes == [0]


def test_orders_that_another_program_has_applied_meanwhile_are_not_set_aside(
    store: KeyStore, order: Order, reopen: Reopen
) -> None:
    """Both follow a restored ledger that had lost order 2; one has applied another order 2 when the other notices."""
    store.orders.apply_all([order(1, 0), order(2, 1)])
    slow = store.orders.request_ids()
    agent = reopen(store).orders
    agent.set_aside(1, agent.request_ids())
    new = replace(order(2, 2), request=replace(order(2, 2).request, request_id="asked-since"))
    agent.apply(new)

    store.orders.set_aside(1, slow)

    assert store.orders.last == 2
    assert store.orders.request_ids()[2] == "asked-since"
    store.orders.set_aside(1, store.orders.request_ids())
    assert store.orders.last == 1


def test_answers_that_another_program_has_set_aside_are_not_given(
    store: KeyStore, order: Order, reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command follows a restored ledger while an agent carries out an order that the former one had."""

    def after_another(*asked: Any) -> Any:
        monkeypatch.undo()
        other = reopen(store).orders
        other.set_aside(0, other.request_ids())
        return read_answers(*asked)

    monkeypatch.setattr(deletion, "read_answers", after_another)

    with pytest.raises(KeyStoreError, match="orders are heard again"):
        store.orders.apply(order(1, 0))

    assert store.orders.apply(order(1, 0)).number == 1
