"""All forget sets by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.forget_sets.canaries import Canaries
from fedmunkey.simulations.forget_sets.forget_set import ForgetSet
from fedmunkey.simulations.forget_sets.many_deletions import ManyDeletions
from fedmunkey.simulations.forget_sets.most_memorised import MostMemorised
from fedmunkey.simulations.forget_sets.random_records import RandomRecords
from fedmunkey.simulations.forget_sets.random_with_canaries import RandomWithCanaries
from fedmunkey.simulations.forget_sets.whole_site import LeavingSite
from fedmunkey.simulations.forget_sets.whole_subjects import WholeSubjects

MakeForgetSet = Callable[[Settings, ModelShape], ForgetSet]
"""Settings and shape are those of the federation that is audited; most forget sets need neither."""


def _regardless(forget_set: ForgetSet) -> MakeForgetSet:
    def make(settings: Settings, shape: ModelShape) -> ForgetSet:
        del settings, shape
        return forget_set

    return make


SEQUENCES = (ManyDeletions("sequence", 10, "ten"), ManyDeletions("sequence-50", 50, "fifty"))
"""Records that are drawn at random, and leave in several deletions."""

_UNTRAINED = (RandomRecords(), WholeSubjects(), Canaries(), LeavingSite(), *SEQUENCES, RandomWithCanaries())

FORGET_SETS: Mapping[str, MakeForgetSet] = MappingProxyType(
    {one.name: _regardless(one) for one in _UNTRAINED} | {MostMemorised.name: MostMemorised}
)
"""The one that trains models, to find out what they memorise, comes last."""
