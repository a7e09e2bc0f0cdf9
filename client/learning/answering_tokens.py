"""Which exemplar tokens a site answers with, where tokens are trained along with the shared weights.

A run that is under way, or was cut off, has changed the tokens, but the site answers from the weights of the last run
that ended well. Before training changes a token, all are kept for those weights, known by their digest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store import KeyStore, Tokens
from fedmunkey.client.site import AGAIN, SiteFolder
from fedmunkey.common.closed_form.release import is_release
from fedmunkey.common.model.checkpoints import Checkpoint, read_checkpoint, weights_digest


@dataclass(frozen=True)
class AnsweringWeights:
    """The digest of shared weights that a site answers from, and whether tokens were trained together with them."""

    digest: str
    trained: bool

    @classmethod
    def of(cls, found: Checkpoint) -> AnsweringWeights:
        """Return those of a checkpoint."""
        return cls(weights_digest(found.weights), not found.about.get(AGAIN, False))


def keep_answering_tokens(folder: SiteFolder, store: KeyStore) -> None:
    """Keep the tokens that go with the weights that a site answers from, if training is still to change them.

    Raises `InvalidWeights` if the weights cannot be read.
    """
    path = folder.shared_weights
    if not path.exists() or is_release(path):
        return
    answering = AnsweringWeights.of(read_checkpoint(path))
    if store.records.kept_for() != answering.digest:
        store.until_unchanged(
            lambda generation: store.records.keep_tokens(generation, answering.digest, trained=answering.trained)
        )


def read_answering_tokens(store: KeyStore, answering: AnsweringWeights | None, entries: NDArray[np.int64]) -> Tokens:
    """Return the tokens of some entries that go with the weights that a site answers from.

    They are zeros before the first run has ended, and with weights of an earlier run whose tokens are gone: each entry
    then says its class.
    """
    while True:
        kept = store.records.kept_for()
        if answering is None or (kept != answering.digest and not answering.trained):
            return Tokens.zeros(len(entries), store.description.exemplar_size)
        read = store.records.read_kept_tokens if kept == answering.digest else store.records.read_tokens
        tokens = read(entries)
        # Training may have kept them, and changed those that were being read, meanwhile.
        if store.records.kept_for() == kept:
            return tokens
