"""Adam for exemplar tokens, one row at a time: a row moves when its entry takes part in a step, and only then."""

from __future__ import annotations

import torch
from torch import Tensor

from fedmunkey.client.key_store import Tokens

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


def step_rows(tokens: Tokens, rows: Tensor, gradients: Tensor, learning_rate: float) -> None:
    """Take one Adam step (Kingma and Ba 2015, algorithm 1) on some offsets, in place.

    Moments and step counts belong to the row, so that deleting an entry deletes all there is about it. There are (r, E)
    gradients of r `rows`, which may repeat: those of the same row are added up.
    """
    unique, place = rows.unique(return_inverse=True)
    summed = torch.zeros(len(unique), gradients.shape[1]).index_add_(0, place, gradients)
    steps = tokens.steps[unique] + 1
    first = torch.lerp(summed, tokens.first_moments[unique], _BETAS[0])
    second = torch.lerp(summed.square(), tokens.second_moments[unique], _BETAS[1])
    count = steps[:, None].float()
    unbiased = first / (1 - _BETAS[0] ** count)
    scale = (second / (1 - _BETAS[1] ** count)).sqrt() + _EPSILON
    tokens.offsets[unique] -= learning_rate * unbiased / scale
    tokens.first_moments[unique] = first
    tokens.second_moments[unique] = second
    tokens.steps[unique] = steps
