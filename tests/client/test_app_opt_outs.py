"""The opt-out list in rounds: what is on it is in no sum, and where it cannot be read the site takes no part."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedmunkey.client.app import app
from fedmunkey.client.learning.state_digest import state_digest
from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.common.deletions.words import Records, Subject
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.programs.round_messages import ARRAYS, CONFIG, CONTRIBUTE, NUMBERS, ROUND, ROUND_ID
from fedmunkey.common.proofs.governance.instructions import Instruction, InstructionKind, sign_instruction
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from tests.client.one_site import SECRET, TEST, TRAIN, Federation, Make, digits, reason_of

OFFICER = SigningKey.from_seed(bytes(32))
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def instruction(about: Records | Subject | bytes, name: str = "one", kind: str = "opt-out") -> Instruction:
    return sign_instruction(name, InstructionKind(kind), about, OFFICER, SECRET.federation_id, NOW)


def subject(row: int) -> Subject:
    return Subject(SECRET.reference(f"digit-{row}"))


def records(*rows: int) -> Records:
    return Records(frozenset(SECRET.reference(f"digit-{row}") for row in rows))


def tell(federation: Federation, *instructions: Instruction, after: int = 0) -> None:
    """Have the site keep instructions, as it does once it has heard and believed them."""
    with federation.folder.open() as store:
        store.instructions.add(list(enumerate(instructions, after + 1)))
        store.records.begin_again()


def contribute(federation: Federation) -> Message:
    content = RecordDict({CONFIG: ConfigRecord({ROUND: 1, ROUND_ID: f"{time.time_ns()}-1"})})
    return app(Message(content, dst_node_id=1, message_type=CONTRIBUTE), federation.context())


def sums(federation: Federation) -> bytes:
    reply = contribute(federation)
    assert reply.has_content(), reply.error.reason
    return reply.content.array_records[ARRAYS][NUMBERS].numpy().tobytes()


def digits_without(*rows: int) -> Dataset:
    """Return the site's digits but for some."""
    every = digits()
    kept = ~np.isin(np.arange(len(every.labels)), rows)
    names = ("images", "labels", "record_ids", "subject_ids", "splits", "consents")
    return replace(every, **{name: getattr(every, name)[kept] for name in names})


def digest(federation: Federation) -> str:
    with federation.folder.open() as store:
        return state_digest(store, 3)


def test_contribution_is_that_of_a_site_that_has_erased_what_is_opted_out(make_federation: Make) -> None:
    opted = make_federation("opted", guarantee="exact")
    never = make_federation("never", digits_without(3, 5, 7), guarantee="exact")
    whole = sums(opted)
    tell(opted, instruction(subject(3)), instruction(records(5, 7), "two"))

    left = sums(opted)

    assert left == sums(never)
    assert left != whole
    with opted.folder.open() as store:
        assert store.records.count(Split.TRAIN) == TRAIN
        assert store.records.count_used(Split.TRAIN) == TRAIN - 3
        assert store.records.count_opted_out() == 3


def test_what_comes_off_the_list_is_used_again_to_the_last_byte(make_federation: Make) -> None:
    federation = make_federation(guarantee="exact")
    whole = sums(federation)
    out = instruction(subject(3))
    tell(federation, out)
    assert sums(federation) != whole

    tell(federation, instruction(out.digest, "end", "end"), after=1)

    assert sums(federation) == whole


@pytest.mark.parametrize("guarantee", ["empirical", "certified"])
def test_training_step_by_step_reads_nothing_of_what_is_opted_out(make_federation: Make, guarantee: str) -> None:
    federation = make_federation(guarantee=guarantee)
    tell(federation, instruction(records(*range(4))))

    reply = federation.ask("train", round=1)

    assert reply.has_content(), reply.error.reason
    with federation.folder.open() as store:
        entries, _ = store.records.read_entries(Split.TRAIN)
        assert len(entries) == TRAIN - 4
        assert all(int(name.removeprefix("digit-")) > 3 for name, _ in store.records.read_ids(entries))
        out = np.setdiff1d(np.arange(1, TRAIN + 1), entries)
        assert not store.records.read_tokens(out).offsets.any()


def test_held_out_records_that_are_opted_out_are_not_counted(make_federation: Make) -> None:
    federation = make_federation(guarantee="exact")
    tell(federation, instruction(records(TRAIN + 4 + TEST - 1)))

    with federation.folder.open() as store:
        assert store.records.count_used(Split.TEST) == TEST - 1
        assert len(store.records.read_entries(Split.TEST)[0]) == TEST - 1


@pytest.mark.parametrize("damage", ["cut", "lost", "other key"])
def test_list_that_cannot_be_read_whole_counts_as_one_of_everybody(make_federation: Make, damage: str) -> None:
    federation = make_federation(guarantee="exact")
    tell(federation, instruction(subject(3)), instruction(subject(4), "two"))
    change = {
        "cut": "UPDATE instructions SET sealed = substr(sealed, 1, length(sealed) / 2) WHERE rowid = 2",
        "lost": "DELETE FROM instructions WHERE rowid = 2",
        "other key": "UPDATE instructions SET sealed = (SELECT sealed FROM instructions WHERE rowid = 1)",
    }[damage]
    with federation.folder.open() as store, store.journal.writing() as journal:
        journal.execute(change)

    assert "everybody counts as opted out" in reason_of(contribute(federation))
    with federation.folder.open() as store:
        for read in (
            lambda: store.records.read_entries(Split.TRAIN),
            lambda: store.records.is_opted_out(bytes(32), bytes(32)),
            lambda: store.records.count_opted_out(),
            lambda: store.instructions.holds_on(subject(1)),
        ):
            with pytest.raises(KeyStoreError, match="everybody counts as opted out"):
                read()


def test_store_and_journal_of_before_have_no_list_and_take_one(make_federation: Make) -> None:
    federation = make_federation(guarantee="exact")
    with federation.folder.open() as store:
        for table in ("instructions_known", "rectified"):
            store.database.connection.execute(f"DROP TABLE {table}")
        with store.journal.writing() as journal:
            journal.execute("DROP TABLE instructions")
    whole = sums(federation)

    with federation.folder.open() as store:
        assert not store.instructions.opted_out()
        assert store.orders.rectified(1) == 0
    tell(federation, instruction(subject(3)))
    assert sums(federation) != whole


def test_state_is_that_of_a_store_without_what_is_opted_out(make_federation: Make) -> None:
    opted = make_federation("opted", guarantee="exact")
    never = make_federation("never", digits_without(2, 3), guarantee="exact")
    whole = digest(opted)
    tell(opted, instruction(records(2, 3)))

    assert digest(opted) == digest(never) != whole
