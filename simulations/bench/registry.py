"""Every group of figures by name: to add one is to add a file and its line here."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.simulations.bench import (
    closed_form,
    deletion_growth,
    deletion_speed,
    encryption_cost,
    member_sites,
    million_entries,
    neighbour_search,
    noisy_training,
    packed_ensemble,
    predictions,
    proof_cost,
    round_overhead,
    service_load,
    serving,
    site_memory,
    strangers,
    training_epoch,
)
from fedmunkey.simulations.bench.consoles import clicks
from fedmunkey.simulations.bench.figure import Group

GROUPS: tuple[Group, ...] = (
    packed_ensemble.GROUP,
    training_epoch.GROUP,
    closed_form.GROUP,
    noisy_training.GROUP,
    neighbour_search.GROUP,
    serving.GROUP,
    predictions.GROUP,
    site_memory.GROUP,
    deletion_growth.GROUP,
    deletion_speed.GROUP,
    encryption_cost.GROUP,
    million_entries.GROUP,
    service_load.GROUP,
    member_sites.GROUP,
    round_overhead.GROUP,
    proof_cost.GROUP,
    strangers.GROUP,
    clicks.GROUP,
)
"""In the order in which they are measured."""


def choose(names: Sequence[str]) -> list[Group]:
    """Return the groups with some names, in the order of `GROUPS`; all of them where none is named.

    Raises `InvalidSetting` if there is no group of that name.
    """
    known = [group.name for group in GROUPS]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}"
            raise InvalidSetting(f"--only {name}: there are no such figures; {hint}")
    return [group for group in GROUPS if group.name in names or not names]
