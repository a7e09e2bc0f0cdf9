"""A site's key store: one SQLite file with its records, keys, exemplar tokens and the orders it has applied.

Nothing in it ever leaves the site. Several processes may have it open: each call is one transaction, and whatever was
computed from a bank that deletions have changed since is refused (`BankChanged`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.dataset import Dataset
from fedmunkey.client.key_store.applied_orders import AppliedOrders
from fedmunkey.client.key_store.contents import Enrolled, Tokens
from fedmunkey.client.key_store.encryption import OVERHEAD, seal
from fedmunkey.client.key_store.enrolment import Arrivals, add_records
from fedmunkey.client.key_store.holdings import Holdings, blocks
from fedmunkey.client.key_store.influence import raise_influence
from fedmunkey.client.key_store.journal import INFLUENCE
from fedmunkey.client.key_store.neighbour_rows import write_lists
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.common.guarantees import Influence, PrivacyLoss
from fedmunkey.common.noisy_steps import NoisySteps
from fedmunkey.common.references import FederationSecret

if TYPE_CHECKING:
    from fedmunkey.common.encoders import Encoding
    from fedmunkey.common.neighbours import NeighbourLists


class KeyStore(Holdings, AppliedOrders):
    """One open key store: what it holds, the orders it has applied, and what changes it.

    `create` and `open` make it, and it is a context manager.
    """

    def enrol(
        self,
        records: Dataset,
        encoding: Encoding,
        secret: FederationSecret,
        *,
        new_consent: frozenset[str] = frozenset(),
    ) -> Enrolled:
        """Add records with their keys and inputs in one transaction.

        Parameters
        ----------
        records : Dataset
            n records; those of the `train` split become entries of the bank, the others are held out.
        encoding : Encoding
            Keys and features of the n images.
        secret : FederationSecret
            Makes the references by which deletion orders will name the records.
        new_consent : frozenset of str
            Record ids for which consent was given anew after a deletion.
        """
        arrivals = Arrivals.of(records, encoding, secret, self.description)
        with self._writing() as connection:
            self._check_caught_up()
            return add_records(connection, self._identity, self.keys, arrivals, new_consent)

    def write_neighbours(
        self, generation: int, entries: NDArray[np.int64], lists: NeighbourLists, bank: NDArray[np.int64]
    ) -> None:
        """Replace the neighbour lists of some entries, given as positions in `bank`.

        Raises
        ------
        BankChanged
            If entries were deleted since `generation`; nothing is written.
        """
        with self._writing(generation) as connection:
            write_lists(connection, entries, lists, bank)

    def write_tokens(
        self,
        generation: int,
        entries: NDArray[np.int64],
        tokens: Tokens,
        *,
        used: Influence = Influence.NONE,
        used_entries: NDArray[np.int64] | None = None,
        training: int | None = None,
    ) -> None:
        """Write trained tokens back in one transaction, after which the shared weights trained here may leave the site.

        Parameters
        ----------
        generation : int
            Of the bank that was trained on.
        entries : ndarray
            (n,) entries of the tokens.
        tokens : Tokens
            Their n rows.
        used : Influence
            What the shared weights may hold of the records that they were trained on; an influence never falls.
        used_entries : ndarray, optional
            (m,) entries that the shared weights were trained on; all of `entries` by default.
        training : int, optional
            The number that `begin_training` gave; the training counts as spent from here on.

        Raises
        ------
        BankChanged
            If entries were deleted since `generation`, or another process has begun training; nothing is written.
        """
        if len(tokens.offsets) != len(entries):
            raise ValueError(f"{len(tokens.offsets)} tokens for {len(entries)} entries")
        hit(Failpoint.WRITE_BACK_BEFORE_BEGIN)
        with self._writing(generation) as connection:
            if training is not None:
                self._privacy.release(training)
            used_entries = entries if used_entries is None else used_entries
            self._note_influence(used_entries, used)
            raise_influence(connection, used_entries, used)
            packed = tokens.pack()
            for _, part in blocks(entries):
                keys = self.keys.read(part)
                connection.executemany(
                    "UPDATE tokens SET content = ? WHERE entry = ?",
                    [
                        (seal(key, "tokens", entry, content) if any(content) else bytes(len(content) + OVERHEAD), entry)
                        for key, entry, content in zip(keys, part.tolist(), packed, strict=False)
                    ],
                )
            hit(Failpoint.WRITE_BACK_BEFORE_COMMIT)
        hit(Failpoint.WRITE_BACK_AFTER_COMMIT)

    def _note_influence(self, entries: NDArray[np.int64], used: Influence) -> None:
        """Write down what weights that are about to leave may hold, so that no restored backup claims less."""
        if used is Influence.NONE or not len(entries):
            return
        permanent_only = int(self.read_permanent(entries).all())
        line: dict[str, str | int | float | None] = {"influence": used.value, "permanent_only": permanent_only}
        if line not in self._noted:
            self.journal.add(INFLUENCE, line)
            self._noted.append(line)

    # What training spends of the patients' privacy.

    def begin_training(self, training: NoisySteps, round_number: int) -> int:
        """Enter a training with noise that is about to begin, and return its number for `write_tokens`.

        Trainings that were begun before and not released are struck out: whoever began them was stopped before
        anything left the site, or is overtaken and cannot release.

        Raises
        ------
        PrivacyBudgetSpent
            If with it the privacy loss of a record would exceed what the site has promised; nothing is written.
        """
        self._check_caught_up()
        return self._privacy.begin(training, round_number)

    def take_back_training(self, number: int) -> None:
        """Strike out a training whose weights, although `write_tokens` let them, have not left and will not leave.

        Raises `KeyStoreError` if that cannot be written; the training stays counted then.
        """
        self._privacy.take_back(number)

    def spent(self) -> list[NoisySteps]:
        """Return every training with noise whose weights may have left the site, oldest first."""
        return self._privacy.spent()

    def privacy_loss(self, records: int = 1) -> PrivacyLoss:
        """Return what the weights that may have left the site can tell of some records of one subject.

        It takes up to seconds the first time after each training.
        """
        return self._privacy.loss(records)
