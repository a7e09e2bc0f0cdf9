"""Which way gradients take under each guarantee (DESIGN.md, section 5): one table, which training looks up.

An entry's influence on the shared weights comes from two places: steps that it takes part in, and steps of other
records that read it as a neighbour. A route says who may take part and who may be read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedmunkey.common.guarantees import Guarantee, Influence
from fedmunkey.common.model import ModelShape
from fedmunkey.common.settings import ExemplarTokens, Settings, TrainedWeights

_UNREAD = ("label_embedding", "memory_strength", "null_image")
"""Shared weights that have a part only where a memory is read or the image is left out."""


@dataclass(frozen=True)
class GradientRoute:
    """How shared weights and exemplar tokens learn from a site's entries.

    Attributes
    ----------
    permanent_only : bool
        Only entries with permanent consent train the shared weights, and only they are read while they do.
    noisy : bool
        The shared weights are trained by DP-SGD, each record's gradient by itself, and no neighbour is read.
    joint_tokens : bool
        Exemplar tokens are trained together with the shared weights. Otherwise each is a fixed function of its own
        record and the shared weights (`client.exemplar_tokens`).
    linear_only : bool
        Of the shared weights only the linear function of the image is trained.
    clipped : bool
        Each record's gradient is computed by itself and clipped, so that no record moves the shared weights much.
    influence : Influence
        What the shared weights may hold of an entry that took this route.
    """

    permanent_only: bool
    noisy: bool
    joint_tokens: bool
    linear_only: bool
    clipped: bool
    influence: Influence

    def trains(self, name: str) -> bool:
        """Return whether the shared weights of a name are trained.

        Noise without any gradient would only spoil those that an image without a memory never reads.
        """
        if self.linear_only:
            return name.startswith("linear.")
        return not (self.noisy and name in _UNREAD)

    @classmethod
    def of(cls, settings: Settings, shape: ModelShape) -> GradientRoute:
        """Return the route that the settings ask for, in a model of some shape."""
        guarantee = settings.guarantee
        certified = guarantee is Guarantee.CERTIFIED
        tokens, weights = settings.exemplar_tokens, settings.trained_weights
        few = certified or not shape.depth
        linear_only = weights is TrainedWeights.LINEAR or (weights is TrainedWeights.AUTO and few)
        joint = guarantee is Guarantee.EMPIRICAL and not linear_only
        return cls(
            permanent_only=guarantee is Guarantee.EXACT,
            noisy=certified,
            joint_tokens=tokens is ExemplarTokens.JOINT or (tokens is ExemplarTokens.AUTO and joint),
            linear_only=linear_only,
            clipped=certified or (guarantee is Guarantee.EMPIRICAL and linear_only),
            influence=Influence.BOUNDED if certified and math.isfinite(settings.epsilon) else Influence.UNBOUNDED,
        )
