"""The gradient of each single record, of which second-order methods make importances and curvatures."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedmunkey.simulations.federation.plain_models import Examples
from fedmunkey.simulations.unlearning.plain_federation import Weights


def record_gradients(model: nn.Module, weights: Weights, records: Examples, label_smoothing: float) -> Weights:
    """Return the gradient of each of B records' cross-entropy, (B, ...) for each weight.

    The mean of their squares is the diagonal of the empirical Fisher information.
    """

    def loss(weights: Weights, one: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(model, weights, (one[None],))
        return F.cross_entropy(logits, label[None], label_smoothing=label_smoothing)

    # Fused attention has no rule for many gradients at once.
    with sdpa_kernel(SDPBackend.MATH):
        gradients: Weights = vmap(grad(loss), in_dims=(None, 0, 0))(weights, records.inputs, records.labels)
    return gradients
