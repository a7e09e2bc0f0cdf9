"""The account of a site's training with noise: what it has spent of its patients' privacy, and what it may still spend.

A training is begun before any step is taken, which is when the budget is checked, and released in the transaction after
which what it made may leave the site. What was begun and never released was stopped before anything left, and costs
nothing. Whoever begins takes over: a training that is still under way elsewhere can then not be released.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple

from fedmunkey.client.key_store.database import StoreDatabase
from fedmunkey.client.key_store.on_disk.journal import Kept
from fedmunkey.client.key_store.on_disk.schema import not_waiting_for_disk, writing
from fedmunkey.common.errors import BankChanged, KeyStoreError, PrivacyBudgetSpent
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.common.privacy.noisy_steps import NoisySteps

_TOLERANCE = 1e-6
"""Relative; whoever chose the noise for the whole budget has rounded."""


def _epsilon_of(spent: Sequence[NoisySteps], delta: float, records: int = 1) -> float:
    # The accountant takes seconds to import, and most of what a site does never asks it.
    from fedmunkey.common.privacy.accounting import epsilon_of

    return epsilon_of(spent, delta, records=records)


class PrivacyAccount:
    """The account of one key store; the journal has it too, for a backup that is restored must not forget it."""

    def __init__(self, database: StoreDatabase) -> None:
        self._database = database
        self._connection = database.connection
        self._description = database.description

    def begin(self, training: NoisySteps, round_number: int) -> int:
        """Enter a training that is about to begin, and return its number for `HeldRecords.write_tokens`.

        Trainings that were begun before and not released are struck out: whoever began them was stopped before
        anything left the site, or is overtaken and cannot release. Raises `PrivacyBudgetSpent`, having written nothing,
        if with it a record's privacy loss would exceed what the site has promised.
        """
        self._database.check_caught_up()
        while True:
            last = self.last_training
            epsilon = self._check_budget(training, last)
            with writing(self._connection):
                if self.last_training == last:
                    return self._enter(training, round_number, epsilon, last)

    def release(self, number: int) -> None:
        """Count a training that was begun as spent, within the caller's transaction.

        Raises `BankChanged` if another training was begun meanwhile, or this one has been released before.
        """
        update = "UPDATE noisy_training SET released = 1 WHERE id = ? AND released = 0"
        if not self._connection.execute(update, (number,)).rowcount:
            raise BankChanged("another process took over this site's training; what was computed here is dropped")
        query = "SELECT id, round, steps, sampling_rate, noise_multiplier FROM noisy_training WHERE id = ?"
        row = self._connection.execute(query, (number,)).fetchone()
        # Before the commit after which weights may leave: what is spent may be counted too often, never too seldom.
        self._database.journal.add(Kept.TRAININGS, row)

    def take_back(self, number: int) -> None:
        """Strike out a training that was released and whose weights will not be sent, by whoever was to send them.

        Answers that were given meanwhile have counted it, which is more than was told. Raises `KeyStoreError` if that
        cannot be written; the training stays counted then.
        """
        with writing(self._connection):
            self._connection.execute("DELETE FROM noisy_training WHERE id = ?", (number,))
            self._connection.execute("DELETE FROM privacy_losses WHERE last_training >= ?", (number,))
            self._database.journal.add(Kept.TAKEN_BACK, (number,))

    @property
    def last_training(self) -> int:
        """The number of the last training that was released; 0 before the first."""
        query = "SELECT coalesce(max(id), 0) FROM noisy_training WHERE released = 1"
        return int(self._connection.execute(query).fetchone()[0])

    def spent(self, last_training: int | None = None) -> list[NoisySteps]:
        """Return what was released, oldest first, up to a number or all of it."""
        rows = self._connection.execute(
            "SELECT steps, sampling_rate, noise_multiplier FROM noisy_training WHERE released = 1 AND id <= ? "
            "ORDER BY id",
            (self.last_training if last_training is None else last_training,),
        )
        return [NoisySteps(*row) for row in rows.fetchall()]

    def loss(self, records: int = 1, last_training: int | None = None) -> PrivacyLoss:
        """Return the privacy loss of some records of one subject, by what was released up to a number or by all of it.

        The first time takes up to seconds, and must not be within a transaction; then the store knows.
        """
        last = self.last_training if last_training is None else last_training
        delta = self._description.delta
        key = (last, delta, records)
        known = self._connection.execute(
            "SELECT epsilon FROM privacy_losses WHERE last_training = ? AND delta = ? AND records = ?", key
        ).fetchone()
        if known is not None:
            return PrivacyLoss(known[0], delta, records)
        spent = self.spent(last)
        epsilon = _epsilon_of(spent, delta, records) if spent else 0.0
        # What cannot be kept while another process writes is computed again.
        with suppress(KeyStoreError), not_waiting_for_disk(self._connection), writing(self._connection):
            self._keep(key, epsilon)
        return PrivacyLoss(epsilon, delta, records)

    def _check_budget(self, training: NoisySteps, last_training: int) -> float | None:
        """Return a record's epsilon after a training, None where the site has promised no bound."""
        budget, delta = self._description.epsilon, self._description.delta
        if self._description.guarantee is Guarantee.EMPIRICAL or math.isinf(budget):
            return None
        reached = _epsilon_of([*self.spent(last_training), training], delta)
        if reached > budget * (1 + _TOLERANCE):
            spent = self.loss(1, last_training).epsilon
            raise PrivacyBudgetSpent(
                f"the privacy budget is spent: epsilon is {spent:.4g} of the {budget:g} that this site has promised "
                f"(delta = {delta:g}), this round would bring it to {reached:.4g}; stop training, the model trained "
                "so far stays usable, or ask the patients and enrol their records into a new store with a larger budget"
            )
        return reached

    def _enter(self, training: NoisySteps, round_number: int, epsilon: float | None, last_training: int) -> int:
        self._connection.execute("DELETE FROM noisy_training WHERE released = 0")
        self._connection.execute("DELETE FROM privacy_losses WHERE last_training > ?", (last_training,))
        number = self._connection.execute(
            "INSERT INTO noisy_training (round, steps, sampling_rate, noise_multiplier) VALUES (?, ?, ?, ?)",
            (round_number, *astuple(training)),
        ).lastrowid
        assert number is not None  # noqa: S101 - an INSERT has one
        if epsilon is not None:
            # Should it be released, nothing else will have been released since, and this is the loss up to it.
            self._keep((number, self._description.delta, 1), epsilon)
        return number

    def _keep(self, key: tuple[int, float, int], epsilon: float) -> None:
        insert = "INSERT OR IGNORE INTO privacy_losses (last_training, delta, records, epsilon) VALUES (?, ?, ?, ?)"
        self._connection.execute(insert, (*key, epsilon))
