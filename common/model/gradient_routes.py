"""Which ways lead from records to shared weights: one table, in which a recipe looks its route up.

Where weights are descended to, an entry's influence on them comes from two places: steps that it takes part in, and
steps of other records that read it as a neighbour. A route says who may take part and who may be read
(`docs/architecture.md`, Guarantees). Where they are solved for, there is no step (`common.closed_form`).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import StrEnum

from fedmunkey.common.privacy.guarantees import Influence

_UNREAD = ("label_embedding", "memory_strength", "null_image")
"""Shared weights that have a part only where a memory is read or the image is left out."""


class Entries(StrEnum):
    """Some of a site's entries."""

    NONE = "none"
    PERMANENT = "permanent"
    ALL = "all"


@dataclass(frozen=True)
class GradientRoute:
    """How shared weights and exemplar tokens learn from a site's entries.

    Attributes
    ----------
    takes_part, is_read : Entries
        Those that train the shared weights, and those that are read as neighbours meanwhile.
    joint_tokens : bool
        Exemplar tokens are trained together with the shared weights. Otherwise each is a fixed function of its own
        record and the shared weights (`client.learning.exemplar_tokens`).
    linear_only : bool
        Of the shared weights only the linear function of the image is trained.
    solved : bool
        The shared weights are solved for in closed form, and so are the tokens.
    noisy : bool
        Each record's gradient is computed by itself and clipped, so that no record moves the shared weights much, and
        there is noise on their sum: DP-SGD.
    influence : Influence
        What the shared weights may hold of an entry that took this route.
    """

    name: str
    takes_part: Entries
    is_read: Entries
    _: KW_ONLY
    joint_tokens: bool = False
    linear_only: bool = False
    solved: bool = False
    noisy: bool = False
    influence: Influence = Influence.UNBOUNDED

    @property
    def permanent_only(self) -> bool:
        """Whether only entries with permanent consent train the shared weights."""
        return self.takes_part is Entries.PERMANENT

    @property
    def reads_memory(self) -> bool:
        """Whether training steps read neighbours."""
        return self.is_read is not Entries.NONE

    def trains(self, name: str) -> bool:
        """Return whether the shared weights of a name are trained.

        Noise without any gradient would only spoil those that an image without a memory never reads.
        """
        if self.linear_only:
            return name.startswith("linear.")
        return self.reads_memory or name not in _UNREAD


_NONE, _PERMANENT, _ALL = Entries

_ROUTES = (
    GradientRoute("exact", _ALL, _NONE, linear_only=True, solved=True, influence=Influence.NONE),
    GradientRoute("exact, permanent", _PERMANENT, _NONE, linear_only=True, solved=True, influence=Influence.NONE),
    GradientRoute("certified", _ALL, _NONE, linear_only=True, noisy=True, influence=Influence.BOUNDED),
    GradientRoute("empirical", _ALL, _ALL),
    GradientRoute("empirical, joint tokens", _ALL, _ALL, joint_tokens=True),
)

ROUTES = {route.name: route for route in _ROUTES}
"""Every route, by the guarantee and what is particular about it."""
