"""What a site spends of its patients' privacy is counted once, is never more than promised, and survives any crash."""

from __future__ import annotations

import math
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.client.key_store import KeyStore, Tokens
from fedmunkey.client.key_store.on_disk.restoration import restore
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.errors import BankChanged, KeyStoreError, PrivacyBudgetSpent
from fedmunkey.common.privacy.accounting import epsilon_of
from fedmunkey.common.privacy.guarantees import Guarantee, Influence, PrivacyLoss
from fedmunkey.common.privacy.noisy_steps import NoisySteps
from tests.client.conftest import TRAINING, Fill, Make, Order, Reopen, release, train
from tests.patience import PATIENCE

DELTA = 1e-5


@pytest.fixture
def certified(make_store: Make, fill: Fill) -> KeyStore:
    """A store with four entries and a budget for three trainings."""
    store = make_store(guarantee=Guarantee.CERTIFIED, epsilon=epsilon_of([TRAINING] * 3, DELTA), delta=DELTA)
    fill(store, range(4))
    return store


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many trainings and records each epsilon was for that was computed."""
    calls: list[tuple[int, int]] = []

    def counted(spent: list[NoisySteps], delta: float, *, records: int = 1) -> float:
        calls.append((len(spent), records))
        return epsilon_of(spent, delta, records=records)

    monkeypatch.setattr("fedmunkey.common.privacy.accounting.epsilon_of", counted)
    return calls


def trainings(store: KeyStore) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(store.path)
    rows = connection.execute("SELECT round, released FROM noisy_training ORDER BY id").fetchall()
    connection.close()
    return rows


# Counting.


def test_nothing_is_spent_before_the_first_release(certified: KeyStore) -> None:
    before = (certified.privacy.spent(), certified.privacy.loss(), certified.privacy.loss(5))

    certified.privacy.begin(TRAINING, 1)

    assert before == ([], PrivacyLoss(0.0, DELTA), PrivacyLoss(0.0, DELTA, 5))
    assert (certified.privacy.spent(), certified.privacy.loss()) == before[:2]


def test_what_was_released_is_spent(certified: KeyStore, reopen: Reopen) -> None:
    train(certified, 1)
    train(certified, 2)

    assert certified.privacy.spent() == [TRAINING, TRAINING]
    assert certified.privacy.loss() == PrivacyLoss(epsilon_of([TRAINING] * 2, DELTA), DELTA)
    assert certified.privacy.loss(3) == PrivacyLoss(epsilon_of([TRAINING] * 2, DELTA, records=3), DELTA, 3)
    assert reopen(certified).privacy.loss(3) == certified.privacy.loss(3)
    assert trainings(certified) == [(1, 1), (2, 1)]


def test_numbers_of_trainings_are_never_given_again(certified: KeyStore) -> None:
    numbers = [certified.privacy.begin(TRAINING, 1) for _ in range(3)]

    assert numbers == sorted(set(numbers))
    assert trainings(certified) == [(1, 0)]


def test_training_without_noise_is_unbounded(make_store: Make, fill: Fill) -> None:
    store = make_store(guarantee=Guarantee.CERTIFIED, epsilon=math.inf)
    fill(store, range(2))

    release(store, store.privacy.begin(NoisySteps(1, 1.0, 0.0), 1))

    assert store.privacy.loss().epsilon == math.inf
    assert KeyStore.open(store.path).privacy.loss().epsilon == math.inf


def test_epsilon_is_computed_once(certified: KeyStore, reopen: Reopen, computed: list[tuple[int, int]]) -> None:
    train(certified)
    for store in (certified, reopen(certified)):
        for records in (1, 2):
            store.privacy.loss(records)

    # The budget's check knows a record's loss already.
    assert computed == [(1, 1), (1, 2)]


def test_epsilon_of_a_training_that_was_not_released_is_not_kept_for_the_next(certified: KeyStore) -> None:
    certified.privacy.begin(NoisySteps(1, 1.0, 50.0), 1)
    train(certified)

    assert certified.privacy.loss().epsilon == epsilon_of([TRAINING], DELTA)


def test_epsilon_is_told_amid_writing(certified: KeyStore, reopen: Reopen, monkeypatch: pytest.MonkeyPatch) -> None:
    train(certified)
    monkeypatch.setattr("fedmunkey.client.key_store.on_disk.schema._BUSY_SECONDS", 0.01)

    with certified.database.writing():
        loss = reopen(certified).privacy.loss(2)

    assert loss == PrivacyLoss(epsilon_of([TRAINING], DELTA, records=2), DELTA, 2)


# The budget.


def test_training_over_the_budget_is_refused_and_writes_nothing(certified: KeyStore) -> None:
    for round_number in (1, 2, 3):
        train(certified, round_number)
    before = trainings(certified)
    spent, reached = (epsilon_of([TRAINING] * count, DELTA) for count in (3, 4))

    with pytest.raises(PrivacyBudgetSpent) as refused:
        certified.privacy.begin(TRAINING, 4)

    assert "\n" not in str(refused.value)
    assert f"epsilon is {spent:.4g} of the {spent:g}" in str(refused.value)
    assert f"to {reached:.4g}; stop training, the model trained so far stays usable" in str(refused.value)
    assert "enrol their records into a new store with a larger budget" in str(refused.value)
    assert trainings(certified) == before
    assert certified.privacy.loss().epsilon <= certified.description.epsilon


def test_refused_training_leaves_one_that_is_under_way_alone(certified: KeyStore) -> None:
    under_way = certified.privacy.begin(TRAINING, 1)

    with pytest.raises(PrivacyBudgetSpent, match=r"epsilon is 0 of the .* bring it to inf"):
        certified.privacy.begin(NoisySteps(1, 1.0, 0.0), 2)
    release(certified, under_way)

    assert trainings(certified) == [(1, 1)]


def test_smaller_training_still_fits_into_what_is_left(certified: KeyStore) -> None:
    for _ in range(2):
        train(certified)

    with pytest.raises(PrivacyBudgetSpent):
        certified.privacy.begin(NoisySteps(5, 1.0, 4.0), 3)
    train(certified, 3)

    assert len(certified.privacy.spent()) == 3


@pytest.mark.parametrize(("guarantee", "epsilon"), [(Guarantee.EMPIRICAL, 1e-3), (Guarantee.CERTIFIED, math.inf)])
def test_no_promise_is_no_budget(
    make_store: Make, computed: list[tuple[int, int]], guarantee: Guarantee, epsilon: float
) -> None:
    store = make_store(guarantee=guarantee, epsilon=epsilon)

    for round_number in range(3):
        train(store, round_number)

    assert len(store.privacy.spent()) == 3
    assert computed == []


def test_training_of_another_counts(certified: KeyStore, reopen: Reopen, monkeypatch: pytest.MonkeyPatch) -> None:
    other = reopen(certified)
    train(certified)
    train(certified)

    def released_meanwhile(spent: list[NoisySteps], delta: float, *, records: int = 1) -> float:
        monkeypatch.setattr("fedmunkey.common.privacy.accounting.epsilon_of", epsilon_of)
        train(other)
        return epsilon_of(spent, delta, records=records)

    monkeypatch.setattr("fedmunkey.common.privacy.accounting.epsilon_of", released_meanwhile)

    with pytest.raises(PrivacyBudgetSpent):
        certified.privacy.begin(TRAINING, 3)

    assert len(certified.privacy.spent()) == 3


# Taking over, and being stopped.


def test_training_is_released_once_and_not_after_it_was_overtaken(certified: KeyStore, reopen: Reopen) -> None:
    overtaken = certified.privacy.begin(TRAINING, 1)
    other = reopen(certified)
    current = other.privacy.begin(TRAINING, 1)

    with pytest.raises(BankChanged, match="another process took over"):
        release(certified, overtaken)

    assert certified.records.count_trained() == 0
    assert certified.records.count_influences() == {Influence.NONE: 4}
    release(other, current)
    with pytest.raises(BankChanged, match="took over"):
        release(other, current)
    assert certified.privacy.spent() == [TRAINING]


def test_training_that_a_deletion_overtook_is_not_spent(certified: KeyStore, order: Order, reopen: Reopen) -> None:
    number, generation = certified.privacy.begin(TRAINING, 1), certified.generation
    reopen(certified).orders.apply(order(1, 2))

    with pytest.raises(BankChanged, match="entries were deleted"):
        release(certified, number, generation=generation)

    assert certified.privacy.spent() == []
    assert certified.records.count_influences() == {Influence.NONE: 3}
    release(certified, number)
    assert certified.privacy.spent() == [TRAINING]


def test_failing_write_does_not_release(certified: KeyStore) -> None:
    number = certified.privacy.begin(TRAINING, 1)
    records = certified.records
    entries, _ = records.read_entries(Split.TRAIN)

    with pytest.raises(ValueError, match="1 tokens for 4 entries"):
        records.write_tokens(certified.generation, entries, Tokens.zeros(1, 8), used=Influence.BOUNDED, training=number)

    assert certified.privacy.spent() == []
    assert certified.records.count_influences() == {Influence.NONE: 4}


def test_of_trainings_that_begin_at_once_one_can_be_released(certified: KeyStore, reopen: Reopen) -> None:
    stores = [certified, *(reopen(certified) for _ in range(3))]
    begin = threading.Barrier(len(stores))

    def attempt(store: KeyStore) -> bool:
        begin.wait(PATIENCE)
        number = store.privacy.begin(TRAINING, 1)
        begin.wait(PATIENCE)
        try:
            release(store, number)
        except BankChanged:
            return False
        return True

    with ThreadPoolExecutor(len(stores)) as pool:
        released = list(pool.map(attempt, stores))

    assert sum(released) == 1
    assert certified.privacy.spent() == [TRAINING]


_CHILD = """
import sys
from pathlib import Path

from fedmunkey.client.key_store import KeyStore
from fedmunkey.common.privacy.noisy_steps import NoisySteps
from tests.client.conftest import release

store = KeyStore.open(Path(sys.argv[1]))
number = store.privacy.begin(NoisySteps(1, 1.0, 4.0), 7)
if sys.argv[2] == "release":
    release(store, number)
if sys.argv[2] == "take back":
    from fedmunkey.client.key_store.on_disk.journal import Journal

    def stay(*_):
        print(number, flush=True)
        sys.stdin.read()

    release(store, number)
    Journal.add = stay
    store.privacy.take_back(number)
print(number, flush=True)
sys.stdin.read()
"""


def killed(store: KeyStore, what: str) -> int:
    """Begin a training in another process, kill that process, and return the training's number."""
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _CHILD, str(store.path), what],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        number = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        assert child.wait(PATIENCE) == -signal.SIGKILL
    return number


@pytest.mark.processes
def test_process_that_is_killed_before_it_releases_has_spent_nothing(certified: KeyStore) -> None:
    number = killed(certified, "begin")
    assert trainings(certified) == [(7, 0)]
    assert certified.privacy.spent() == []

    train(certified, 7)

    assert trainings(certified) == [(7, 1)]
    with pytest.raises(BankChanged):
        release(certified, number)
    assert certified.privacy.loss().epsilon == epsilon_of([TRAINING], DELTA)


@pytest.mark.processes
def test_process_that_is_killed_after_it_released_has_spent(certified: KeyStore) -> None:
    killed(certified, "release")

    assert trainings(certified) == [(7, 1)]
    assert certified.records.count_influences() == {Influence.BOUNDED: 4}
    assert certified.privacy.spent() == [TRAINING]
    train(certified, 8)
    assert certified.privacy.loss().epsilon == epsilon_of([TRAINING] * 2, DELTA)


@pytest.mark.processes
def test_process_that_is_killed_before_it_has_taken_back_has_spent(certified: KeyStore) -> None:
    number = killed(certified, "take back")

    assert certified.privacy.spent() == [TRAINING]
    certified.privacy.take_back(number)
    assert certified.privacy.spent() == []


@pytest.mark.parametrize("released_before_backup", [1, 2])
def test_taken_back_stays_so_after_restoring(certified: KeyStore, tmp_path: Path, released_before_backup: int) -> None:
    for number in range(1, 3):
        assert train(certified, number) == number
        if number == released_before_backup:
            certified.back_up(tmp_path / "monday.backup", datetime(2026, 1, 5, 8, tzinfo=UTC))

    certified.privacy.take_back(number)

    assert certified.privacy.spent() == [TRAINING]
    assert certified.privacy.loss().epsilon == epsilon_of([TRAINING], DELTA)
    restore(tmp_path / "monday.backup", certified.path)
    certified.finish_restoring()
    assert certified.privacy.spent() == [TRAINING]
    assert train(certified, 2) > number


def test_training_is_not_taken_back_silently_where_that_cannot_be_noted(certified: KeyStore) -> None:
    number = train(certified)
    certified.journal.path.unlink()

    with pytest.raises(KeyStoreError, match="journal"):
        certified.privacy.take_back(number)

    assert certified.privacy.spent() == [TRAINING]
