"""A journal that is lost is never passed over: its store tells it again, or the worst is assumed on demand."""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.on_disk.journal import Kept
from fedmunkey.client.key_store.on_disk.restoration import restore
from fedmunkey.common.errors import KeyStoreError, PrivacyBudgetSpent
from fedmunkey.common.privacy.guarantees import Guarantee
from tests.client.conftest import TRAINING, Fill, Make, Order, Reopen, train

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)


@pytest.fixture
def trained(make_store: Make, fill: Fill) -> KeyStore:
    """A store with a released training."""
    store = make_store(guarantee=Guarantee.CERTIFIED)
    fill(store, range(4))
    train(store)
    return store


@pytest.fixture
def backup(trained: KeyStore, tmp_path: Path) -> Path:
    path = tmp_path / "monday.backup"
    trained.back_up(path, NOW)
    return path


def lose(store: KeyStore) -> None:
    store.journal.path.unlink()


def damage(store: KeyStore) -> None:
    store.close()
    store.path.write_bytes(b"the disk has failed " * 1000)


def test_journal_comes_back(trained: KeyStore, order: Order, reopen: Reopen, caplog: pytest.LogCaptureFixture) -> None:
    trained.orders.apply(order(1, 1))
    told = {kind: trained.journal.read(kind) for kind in (Kept.ANSWERS, Kept.TRAININGS, Kept.INFLUENCES)}
    lose(trained)

    with caplog.at_level(logging.WARNING):
        reopen(trained)
        reopen(trained)

    assert {kind: trained.journal.read(kind) for kind in told} == told
    assert all(told.values())
    (said,) = caplog.messages
    assert "keystore.journal was missing; it was written again from the key store" in said


def test_nothing_is_trained_or_answered_beside_a_lost_journal(trained: KeyStore, order: Order, reopen: Reopen) -> None:
    lose(trained)

    with pytest.raises(KeyStoreError, match=r"keystore\.journal is missing; put it back, or stop every process"):
        train(trained)
    with pytest.raises(KeyStoreError, match=r"keystore\.journal is missing"):
        trained.orders.apply(order(1, 1))

    assert trained.privacy.spent() == [TRAINING]
    (answer,) = reopen(trained).orders.read_unacknowledged()
    assert (answer.number, answer.records) == (1, 1)


def test_restoring_beside_a_readable_store_takes_its_account(trained: KeyStore, backup: Path) -> None:
    train(trained)
    lose(trained)

    restore(backup, trained.path)

    assert trained.privacy.spent() == [TRAINING, TRAINING]


def test_restoring_without_journal_and_store_is_refused_with_a_way_out(trained: KeyStore, backup: Path) -> None:
    train(trained)
    damage(trained)
    lose(trained)

    with pytest.raises(KeyStoreError, match=r"keystore\.journal is missing, and with it .* restore with --without-jou"):
        restore(backup, trained.path)

    assert trained.path.read_bytes().startswith(b"the disk has failed")


@pytest.mark.parametrize("kind", [Kept.ANSWERS, Kept.TRAININGS])
def test_journal_that_lacks_something_is_refused(trained: KeyStore, order: Order, tmp_path: Path, kind: Kept) -> None:
    trained.orders.apply(order(1, 1))
    trained.back_up(tmp_path / "tuesday.backup", NOW)
    with trained.journal.writing() as connection:
        connection.execute(f"DELETE FROM {kind}")  # noqa: S608 (a table's name)

    with pytest.raises(KeyStoreError, match=rf"the backup knows 1 lines that it lacks \({kind.removesuffix('s')} 1"):
        restore(tmp_path / "tuesday.backup", trained.path)

    assert not trained.is_restored


def test_whoever_restores_without_a_journal_claims_nothing_more(trained: KeyStore, backup: Path, order: Order) -> None:
    damage(trained)
    lose(trained)

    restore(backup, trained.path, without_journal=True)

    with KeyStore.open(trained.path) as store:
        store.finish_restoring()
        assert store.privacy.loss().epsilon == math.inf
        with pytest.raises(PrivacyBudgetSpent, match="the privacy budget is spent: epsilon is inf"):
            store.privacy.begin(TRAINING, 2)
        answer = store.orders.apply(order(1, 1))
    assert (answer.records, answer.guarantee) == (1, Guarantee.EMPIRICAL)
    # That must not be forgotten by restoring once more.
    restore(backup, trained.path)
    with KeyStore.open(trained.path) as store:
        assert store.privacy.loss().epsilon == math.inf


def test_whole_journal_is_not_thrown_away(trained: KeyStore, backup: Path) -> None:
    with pytest.raises(KeyStoreError, match="is whole; leave --without-journal out"):
        restore(backup, trained.path, without_journal=True)

    assert not trained.is_restored


# A journal that is damaged.


@pytest.fixture
def damaged(trained: KeyStore, backup: Path) -> KeyStore:
    """A store whose journal its disk has ruined, closed, and with a backup."""
    assert backup.exists()
    trained.close()
    trained.journal.path.write_bytes(b"something else, and long enough to be taken for a database" * 20)
    return trained


def test_damaged_journal_is_named_with_a_way_out_that_works(damaged: KeyStore) -> None:
    with pytest.raises(KeyStoreError, match=r"journal is damaged .*, or move it away: it is then written again"):
        train(KeyStore.open(damaged.path))

    damaged.journal.path.rename(damaged.path.with_name("aside"))

    with KeyStore.open(damaged.path) as store:
        assert store.privacy.spent() == [TRAINING]
        train(store)


def test_damaged_journal_is_put_aside_where_the_worst_is_assumed(damaged: KeyStore, backup: Path) -> None:
    with pytest.raises(KeyStoreError, match=r"keystore\.journal is damaged"):
        restore(backup, damaged.path)

    restore(backup, damaged.path, without_journal=True)

    assert damaged.path.with_name("keystore.journal.damaged").exists()
    with KeyStore.open(damaged.path) as store:
        assert store.privacy.loss().epsilon == math.inf


def test_journal_and_what_sqlite_keeps_beside_it_can_be_read_by_its_owner_only(trained: KeyStore) -> None:
    assert {file.stat().st_mode & 0o777 for file in trained.journal.files} == {0o600}
