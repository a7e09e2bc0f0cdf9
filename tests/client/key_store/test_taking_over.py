"""A site's files as the version before has left them are brought up to date when the store is opened."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.client.key_store import KeyStore, StoreDescription
from fedmunkey.client.key_store.on_disk import remembering, taking_over
from fedmunkey.client.key_store.on_disk.journal import Journal, Kept
from fedmunkey.client.key_store.on_disk.restoration import restore
from fedmunkey.client.key_store.on_disk.schema import SCHEMA_VERSION, TAKEN_OVER, connect, read_version
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, Records, SiteState, Subject
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.privacy.guarantees import Guarantee, Influence, PrivacyLoss
from fedmunkey.common.privacy.noisy_steps import NoisySteps
from fedmunkey.common.settings.settings import ImagePath
from tests.proof_case import SECRET

BEFORE = Path(__file__).parent / "schema_5"
SITE, DELTA, STEPS = "hospital-1", 1e-5, NoisySteps(1, 1.0, 8.0)


class PowerCutError(Exception): ...


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A store that the version before wrote, in a folder of its own.

    Of ten records, order 1 has deleted one. Order 2 named what was not there, order 3 was refused, and the process was
    killed as it carried out order 4, for two records. Of three released trainings one was taken back.
    """
    path = tmp_path / "keystore.sqlite"
    for name in ("keystore.sqlite", "proofs.sqlite"):
        with closing(connect(tmp_path / name)) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.executescript((BEFORE / name).with_suffix(".sql").read_text())
    path.with_suffix(".keys").write_bytes(bytes.fromhex((BEFORE / "keystore.keys.hex").read_text()))
    for name in ("keystore.master", "keystore.journal"):
        shutil.copy(BEFORE / name, tmp_path)
        (tmp_path / name).chmod(0o600)
    return path


def records(*numbers: int) -> Records:
    return Records(frozenset(SECRET.reference(f"record-{number}") for number in numbers), SITE)


def check_all_is_there(store: KeyStore) -> None:
    """Check everything that the version before knew, apart from orders."""
    assert store.records.count_influences() == {Influence.BOUNDED: 5, Influence.NONE: 2}
    entries, labels = store.records.read_entries(Split.TRAIN)
    assert (entries.tolist(), labels.tolist()) == ([2, 5, 6, 7, 8], [1, 1, 2, 0, 1])
    assert store.records.read_ids(entries)[1] == ("record-4", "subject-2")
    assert store.records.read_tokens(entries).offsets.tolist() == [[0.75, 0.75]] * 5
    assert store.records.read_inputs(entries).shape == (5, 1, 4, 4)
    assert store.privacy.spent() == [STEPS, STEPS]
    assert store.records.refuses(SECRET.reference("record-0"), b"")
    assert store.last_backup() == "2026-01-05T08:00:00+00:00"
    check_receipts(store)


def check_receipts(store: KeyStore) -> None:
    book = ReceiptBook(store.journal)
    assert book.count() == (3, 1)
    assert [alarm.fault for alarm in book.alarms()] == ["the log was shortened"]
    head = book.head()
    assert head is not None
    assert (head.size, head.root) == (5, bytes(range(32)))


def check_orders(store: KeyStore) -> None:
    first, second, third = store.orders.read_answers()
    assert (first.number, first.request_id, first.state, first.records, first.entries) == (
        1,
        "request-1",
        SiteState.ERASED,
        1,
        1,
    )
    assert (first.guarantee, first.seconds) == (Guarantee.CERTIFIED, 0.026675283000031413)
    assert first.record_loss == PrivacyLoss(0.4344163800904971, DELTA)
    assert first.subject_loss == PrivacyLoss(0.9263415039982659, DELTA, 2)
    assert (second.state, second.records) == (SiteState.NOTHING_HELD, 0)
    assert (third.state, third.reason) == (
        SiteState.REFUSED,
        "signed with key b62e867fa2f33afe, which is not trusted for this",
    )
    assert store.orders.last == 4
    assert store.orders.unacknowledged() == [3, 4]


def test_everything_is_there_and_the_interrupted_deletion_is_finished(before: Path) -> None:
    with KeyStore.open(before) as store:
        check_all_is_there(store)
        check_orders(store)

        third, fourth = store.orders.read_unacknowledged()

        assert third.state is SiteState.REFUSED
        assert (fourth.number, fourth.records, fourth.guarantee) == (4, 2, Guarantee.CERTIFIED)
        assert fourth.subject_loss is not None
        assert fourth.record_loss is not None
        assert fourth.record_loss.epsilon < fourth.subject_loss.epsilon < math.inf
        assert fourth.subject_loss.records == 2
        assert set(store.ciphers.held().tolist()) == {2, 5, 6, 7, 8, 9, 10}
        assert store.orders.check_erasure(4, [before.parent]).erased
        assert read_version(store.database.connection) == SCHEMA_VERSION
    assert not before.with_name("proofs.sqlite").exists()
    assert before.with_suffix(".journal").stat().st_mode & 0o777 == 0o600


def test_later_orders_and_repeated_ones_are_answered(before: Path) -> None:
    with KeyStore.open(before) as store:
        request = DeletionRequest("request-5", "officer", Subject(SECRET.reference("subject-2")))
        again = DeletionRequest("request-1", "officer", records(0))

        answer = store.orders.apply(DeletionOrder(5, SITE, request))

        assert (answer.state, answer.records) == (SiteState.ERASED, 2)
        assert store.orders.apply(DeletionOrder(1, SITE, again)) == store.orders.read_answers()[0]
        assert [number for number, *_ in store.journal.read(Kept.ANSWERS)] == [1, 2, 5]


@pytest.mark.parametrize("moment", ["bring_up_to_date", "take_over_journal", "take_over_receipts", "tell_hashes"])
@pytest.mark.parametrize("when", ["begun", "done"])
def test_nothing_is_lost_where_that_is_interrupted(
    before: Path, monkeypatch: pytest.MonkeyPatch, moment: str, when: str
) -> None:
    step: Callable[..., None] = getattr(remembering if moment == "tell_hashes" else taking_over, moment)
    module = taking_over if moment == "bring_up_to_date" else "fedmunkey.client.key_store.store"

    def cut(*arguments: object) -> None:
        if when == "done":
            step(*arguments)
        else:
            with pytest.MonkeyPatch.context() as inner:
                # The last thing before a step counts.
                inner.setattr(Path, "unlink", fail)
                inner.setattr(Journal, "replace", fail)
                inner.setattr(Journal, "add_all", fail)
                inner.setattr(taking_over, "REMEMBERED_ANSWERS", "no SQL")
                step(*arguments)
        raise PowerCutError

    def fail(*_: object, **__: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patched:
        if isinstance(module, str):
            patched.setattr(f"{module}.{moment}", cut)
        else:
            patched.setattr(module, moment, cut)
        with pytest.raises((PowerCutError, KeyStoreError)):
            KeyStore.open(before)

    for _ in range(2):
        with KeyStore.open(before) as store:
            check_all_is_there(store)
            check_orders(store)


def test_backup_of_the_version_before_is_restored_beside_its_journal(before: Path, tmp_path: Path) -> None:
    backup = tmp_path / "monday.backup"
    with closing(connect(before)) as connection, closing(sqlite3.connect(backup)) as copy:
        connection.backup(copy)
    with closing(connect(backup)) as copy:
        copy.execute("PRAGMA journal_mode = DELETE")
        copy.execute("DELETE FROM applied_orders WHERE number > 1")
        copy.execute("DELETE FROM noisy_training")

    restored = restore(backup, before)

    assert restored.last_order == 1
    with KeyStore.open(before) as store:
        check_receipts(store)
        request = DeletionRequest("request-2", "officer", Subject(SECRET.reference("subject-99")))
        answer = store.orders.apply(DeletionOrder(2, SITE, request))
        assert (answer.state, answer.record_loss) == (SiteState.NOTHING_HELD, PrivacyLoss(0.4344163800904971, DELTA))
        store.finish_restoring()
        assert store.privacy.spent() == [STEPS, STEPS]


def test_lost_journal_of_the_version_before_is_written_again(before: Path) -> None:
    before.with_suffix(".journal").unlink()

    with KeyStore.open(before) as store:
        assert [number for number, *_ in store.journal.read(Kept.ANSWERS)] == [1, 2]
        assert [row[0] for row in store.journal.read(Kept.TRAININGS)] == [1, 3]
        check_receipts(store)


@pytest.mark.parametrize("version", [TAKEN_OVER - 1, SCHEMA_VERSION + 1])
def test_other_versions_are_refused_with_one_line(before: Path, version: int) -> None:
    with closing(connect(before)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")

    with pytest.raises(KeyStoreError, match=rf"has key store schema {version}, this version reads {SCHEMA_VERSION};"):
        KeyStore.open(before)


def test_file_of_receipts_that_is_damaged_is_named_and_one_without_tables_is_nothing(before: Path) -> None:
    receipts = before.with_name("proofs.sqlite")
    receipts.write_bytes(b"something else, and long enough to be taken for a database" * 20)

    with pytest.raises(KeyStoreError, match=r"proofs\.sqlite cannot be used .*, or move it away: the receipts"):
        KeyStore.open(before)

    receipts.write_bytes(b"")
    with KeyStore.open(before) as store:
        assert ReceiptBook(store.journal).count() == (0, 0)
    assert not receipts.exists()


def known_before(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return what the tables of any version say of influence, budget and tombstones."""
    queries = {
        "influences": "SELECT record_hash, image_hash, subject_hash, influence FROM records ORDER BY entry",
        "tombstones": "SELECT hash, influence FROM tombstones ORDER BY hash",
        "budget": "SELECT guarantee, epsilon, delta FROM description",
        "spent": "SELECT id, steps, sampling_rate, noise_multiplier FROM noisy_training WHERE released = 1 ORDER BY id",
        "answers": "SELECT number, request_id FROM applied_orders ORDER BY number",
    }
    with closing(connect(path)) as connection:
        return {name: connection.execute(query).fetchall() for name, query in queries.items()}


def test_nothing_differs_before_and_after_and_the_journal_comes_to_know_it(before: Path) -> None:
    known = known_before(before)

    with closing(connect(before)) as connection:
        (hash_key,) = connection.execute("SELECT hash_key FROM description").fetchone()

    with KeyStore.open(before) as store:
        assert known_before(before) == known
        assert store.reference_hashes.key == hash_key
        remembered = {(row[0], row[1]) for row in store.journal.read(Kept.REMEMBERED)}

    assert set(known["tombstones"]) <= remembered
    assert {(row[0], row[3]) for row in known["influences"] if row[3] != "none"} <= remembered


@pytest.mark.parametrize("opened", [True, False])
def test_store_made_in_its_place_knows_what_it_knew(before: Path, opened: bool) -> None:
    """Whether the version before is the last that has opened it, or this one."""
    with closing(connect(before)) as connection:
        connection.execute("DELETE FROM applied_orders WHERE finished = 0")
    if opened:
        KeyStore.open(before).close()
    description = StoreDescription(
        SITE, "encoder-1", 4, ImagePath.PATCHES, (1, 4, 4), 2, 6, Guarantee.CERTIFIED, epsilon=3.0, delta=DELTA
    )
    for file in (before, before.with_suffix(".keys")):
        file.unlink()

    with KeyStore.create(before, description) as store:
        assert store.is_restored
        assert store.privacy.spent() == [STEPS, STEPS]
        check_receipts(store)
        first = DeletionRequest("request-1", "officer", records(0))
        answer = store.orders.apply(DeletionOrder(1, SITE, first))
        assert (answer.record_loss, answer.records) == (PrivacyLoss(0.4344163800904971, DELTA), 1)
        second = DeletionRequest("request-2", "officer", Subject(SECRET.reference("subject-99")))
        assert store.orders.apply(DeletionOrder(2, SITE, second)).state is SiteState.NOTHING_HELD
        assert store.records.refuses(SECRET.reference("record-0"), b"")
        # Not enrolled again, and in weights that left.
        held = DeletionRequest("request-3", "officer", records(4))
        assert store.orders.apply(DeletionOrder(3, SITE, held)).guarantee is Guarantee.CERTIFIED
