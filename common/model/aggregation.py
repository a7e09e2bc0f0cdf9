"""From K retrieved entries to the members of a packed ensemble: one function for each aggregation of the paper.

MUNKEY reads the K nearest entries either in one pass each, averaging the probabilities (*ensemble*, the paper's main
form), or in a single pass over a softmax- or rank-weighted token. All three become members with weights here, so the
model has one way of predicting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmunkey.common.model.recipe import Reading
from fedmunkey.common.settings.settings import AggregationName

_TIE_BREAK = 2.0**-8
"""What the vote of the nearest entry counts beyond 1, and that of each further entry half as much."""


@dataclass(frozen=True)
class Retrieved:
    """What B queries found in a bank, nearest first.

    `exemplars` (B, K, E) are tokens, `similarities` (B, K) those of query and key (cosine); `present` (B, K) is False
    where the bank held fewer than K entries.
    """

    exemplars: Tensor
    similarities: Tensor
    present: Tensor


@dataclass(frozen=True)
class Members:
    """Members of a packed ensemble.

    `exemplars` (B, M, E); `null_memory` (B, M) is True where the learned null token stands in for the exemplar token;
    `weights` (B, M) are shares of each member's vote, and each row sums to 1.
    """

    exemplars: Tensor
    null_memory: Tensor
    weights: Tensor


def vote_weights(present: Tensor) -> Tensor:
    """Return (B, K) weights of retrieved entries' votes, nearest first; absent ones have none.

    The majority decides. Where several classes have as many votes as each other, the one with the nearest entry does,
    as far as float32 tells: always for the first ten entries.
    """
    ranks = torch.arange(present.shape[1], device=present.device)
    return present * (1 + _TIE_BREAK * 0.5**ranks)


def _ensemble(found: Retrieved, _temperature: float) -> Members:
    """Let every retrieved entry vote alone; absent ones have no vote, unless none is present at all."""
    weights = vote_weights(found.present)
    return Members(found.exemplars, ~found.present, torch.where(weights.any(1, keepdim=True), weights, 1.0))


def _softmax(found: Retrieved, temperature: float) -> Members:
    """Blend the entries with weights exp(similarity / temperature)."""
    scores = (found.similarities / temperature).masked_fill(~found.present, -torch.inf)
    return _blend(found, torch.softmax(scores, dim=1).nan_to_num(0.0))


def _rank(found: Retrieved, _temperature: float) -> Members:
    """Blend the entries with weights 1 / rank, the nearest having rank 1."""
    ranks = torch.arange(1, found.similarities.shape[1] + 1, device=found.similarities.device)
    scores = found.present / ranks
    return _blend(found, scores / scores.sum(1, keepdim=True).clamp_min(1e-12))


def _blend(found: Retrieved, shares: Tensor) -> Members:
    token = (found.exemplars * shares[..., None]).sum(1, keepdim=True)
    return Members(token, ~found.present.any(1, keepdim=True), torch.ones_like(token[..., 0]))


_AGGREGATIONS: dict[AggregationName, Callable[[Retrieved, float], Members]] = {
    AggregationName.ENSEMBLE: _ensemble,
    AggregationName.SOFTMAX: _softmax,
    AggregationName.RANK: _rank,
}


def aggregate(found: Retrieved, reading: Reading) -> Members:
    """Turn what was retrieved into ensemble members."""
    members = _AGGREGATIONS[reading.aggregation](found, reading.temperature)
    if reading.image_vote:
        last = torch.zeros_like(members.exemplars[:, :1])
        members = Members(
            torch.cat([members.exemplars, last], dim=1),
            torch.cat([members.null_memory, torch.ones_like(members.null_memory[:, :1])], dim=1),
            torch.cat([members.weights, torch.ones_like(members.weights[:, :1])], dim=1),
        )
    return Members(members.exemplars, members.null_memory, members.weights / members.weights.sum(1, keepdim=True))
