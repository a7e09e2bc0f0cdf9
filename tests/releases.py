"""Releases as a round brings them about: written down, then taken over by every site that contributed."""

from __future__ import annotations

from fedmunkey.common.deletions.renewals import ReleasedWeights
from fedmunkey.common.service.deletion_service import DeletionService
from fedmunkey.server.ledger.ledger import Ledger


def give(to: Ledger | DeletionService, released: ReleasedWeights) -> None:
    """Write a release down, and that every site has it; raises what a round would hear."""
    to.note_release(released)
    lacking = to.note_given_out(released.digest, [one.site for one in released.contributions])
    assert not lacking
