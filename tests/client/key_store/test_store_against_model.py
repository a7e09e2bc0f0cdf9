"""Any sequence of enrolments, deletions and write-backs leaves a key store as a plain model of it says."""

from __future__ import annotations

import sqlite3
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedmunkey.client.key_store import Enrolled, KeyStore, Tokens
from fedmunkey.client.learning.neighbour_index import list_arrivals, read_lists
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, Records, Subject, Target, WholeSite
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.simulations.faults.model import Expected, ModelRecord, Named, SiteModel
from tests.client.conftest import DESCRIPTION as CLIENT
from tests.client.conftest import SITE

SECRET = FederationSecret(b"a secret that sites share")
LENGTH = 3
RECORDS = st.integers(0, 11)
DESCRIPTION = replace(CLIENT, key_size=3, input_shape=(1, 2, 2), exemplar_size=2, list_length=LENGTH)


def subject_of(record: int) -> int:
    return record // 3


def split_of(record: int) -> Split:
    return Split.TEST if record % 4 == 3 else Split.TRAIN


def reference(kind: str, number: int) -> bytes:
    return SECRET.reference(f"{kind}-{number}")


def to_dataset(numbers: list[int], label: int) -> Dataset:
    return Dataset(
        images=np.array(numbers, dtype=np.uint8).repeat(4).reshape(-1, 1, 2, 2),
        labels=np.full(len(numbers), label),
        record_ids=np.array([f"record-{n}" for n in numbers], dtype=np.str_),
        subject_ids=np.array([f"subject-{subject_of(n)}" for n in numbers], dtype=np.str_),
        splits=np.array([split_of(n).value for n in numbers], dtype=np.str_),
        consents=np.full(len(numbers), Consent.REVOCABLE.value),
        class_names=("a", "b", "c"),
    )


def to_encoding(numbers: list[int]) -> Encoding:
    keys = torch.tensor([[n % 3, n % 5, 1] for n in numbers], dtype=torch.float32).reshape(-1, 3)
    return Encoding(keys, torch.zeros(len(numbers), 1, 1))


MODEL_RECORDS = {n: ModelRecord(n, subject_of(n), split_of(n) is Split.TRAIN) for n in range(12)}


@dataclass
class StoreModel(SiteModel):
    """What a key store should hold after enrolments and training as well; of tokens, the first number and the steps."""

    tokens: dict[int, tuple[float, int]] = field(default_factory=dict)

    def enrol(self, numbers: list[int], label: int, consented: set[int]) -> Enrolled:
        """Enrol records with a label; those that are held or refused are left out, but for the consented ones."""
        known = [number for number in numbers if number in self.labels]
        refused = [n for n in numbers if n not in self.labels and n not in consented and self._refuses(n)]
        added = set(numbers) - {*known, *refused}
        self.refused_records -= added
        self.labels |= dict.fromkeys(added, label)
        return Enrolled(len(added), len(known), len(refused))

    def write_tokens(self, value: float) -> None:
        """Train the token of every entry by one step, to a value."""
        for number in self.labels:
            if self.records[number].entry:
                self.tokens[number] = (value, self.tokens.get(number, (0.0, 0))[1] + 1)

    def apply(self, named: Named, *, empty: bool = False) -> Expected:
        """Apply the next order, and return the answer to it."""
        answer = super().apply(named, empty=empty)
        self.tokens = {number: token for number, token in self.tokens.items() if number in self.labels}
        return answer

    def _refuses(self, number: int) -> bool:
        return number in self.refused_records or self.records[number].subject in self.refused_subjects


class StoreAgainstModel(RuleBasedStateMachine):
    """Does the same to a key store and to a model of it, and compares them after every step."""

    @initialize()
    def create(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "keystore.sqlite"
        self.store = KeyStore.create(self.path, DESCRIPTION)
        self.model = StoreModel(MODEL_RECORDS)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule(numbers=st.lists(RECORDS, unique=True, max_size=6), label=st.integers(0, 2), consented=st.sets(RECORDS))
    def enrol(self, numbers: list[int], label: int, consented: set[int]) -> None:
        consent = frozenset(f"record-{n}" for n in consented)
        records, encoding = to_dataset(numbers, label), to_encoding(numbers)
        enrolled = self.store.records.enrol(records, encoding, SECRET, new_consent=consent)

        assert enrolled == self.model.enrol(numbers, label, consented)

    @rule(numbers=st.sets(RECORDS, min_size=1, max_size=4))
    def delete_records(self, numbers: set[int]) -> None:
        references = frozenset(reference("record", n) for n in numbers)
        self._apply(Records(references, SITE), Named(frozenset(numbers)))

    @rule(subject=st.integers(0, 3))
    def delete_subject(self, subject: int) -> None:
        self._apply(Subject(reference("subject", subject)), Named(subject=subject))

    @rule()
    def delete_everything(self) -> None:
        self._apply(WholeSite(SITE), Named(everything=True))

    @rule(value=st.floats(-1, 1, width=32))
    def write_tokens(self, value: float) -> None:
        entries, _ = self.store.records.read_entries(Split.TRAIN)
        arrays = torch.full((len(entries), 2), value)
        steps = self.store.records.read_tokens(entries).steps + 1
        self.store.records.write_tokens(self.store.generation, entries, Tokens(arrays, arrays, arrays, steps))
        self.model.write_tokens(value)

    @rule()
    def list_neighbours(self) -> None:
        list_arrivals(self.store)

    @precondition(lambda self: self.model.order)
    @rule()
    def apply_the_last_order_again(self) -> None:
        last = self.store.orders.read_answers()[-1]

        assert self.store.orders.apply(self.last_order) == last

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = KeyStore.open(self.path)

    @invariant()
    def holds_the_same(self) -> None:
        assert all(self.store.records.count(split) == len(self._held(split)) for split in Split)
        assert self.store.generation == self.model.generation
        assert self.store.orders.last == self.model.order
        entries, labels = self.store.records.read_entries(Split.TRAIN)
        tokens = self.store.records.read_tokens(entries)
        held = self.store.records.read_inputs(entries)[:, 0, 0, 0].tolist()
        columns = (held, labels.tolist(), tokens.offsets[:, 0].tolist(), tokens.steps.tolist())
        assert sorted(zip(*columns, strict=True)) == sorted(
            (number, self.model.labels[number], *self.model.tokens.get(number, (0.0, 0)))
            for number in self._held(Split.TRAIN)
        )

    @invariant()
    def no_row_is_about_a_deleted_entry(self) -> None:
        connection = sqlite3.connect(self.path)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        listed = "SELECT count(*) FROM neighbours JOIN records ON records.entry = neighbour WHERE split != 'train'"
        assert connection.execute(listed).fetchone() == (0,)
        connection.close()

    @invariant()
    def every_listed_record_has_the_neighbours_that_it_can_have(self) -> None:
        bank, _ = self.store.records.read_entries(Split.TRAIN)
        listed = np.setdiff1d(bank, self.store.records.read_unlisted())
        if len(listed) < len(bank):
            return
        lists = read_lists(self.store, bank, bank, LENGTH - 1)
        assert (lists.lengths >= min(LENGTH - 1, max(len(bank) - 1, 0))).all()

    def _held(self, split: Split) -> list[int]:
        return [number for number in self.model.labels if split_of(number) is split]

    def _apply(self, target: Target, named: Named) -> None:
        number = self.model.order + 1
        self.last_order = DeletionOrder(number, SITE, DeletionRequest(f"request-{number}", SITE, target))
        answer = self.store.orders.apply(self.last_order)

        assert Expected(answer.state, answer.records, answer.entries) == self.model.apply(named)


StoreAgainstModel.TestCase.settings = settings(max_examples=25, stateful_step_count=20)
TestStoreAgainstModel = StoreAgainstModel.TestCase
