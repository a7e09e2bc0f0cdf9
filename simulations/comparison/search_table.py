"""Which settings were tried on validation data, as a report and a terminal show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from fedmunkey.simulations.comparison.presets import Preset
from fedmunkey.simulations.comparison.search import Searched, Tried
from fedmunkey.simulations.programs.json_values import finite_only


def title_of(one: Searched, preset: Preset) -> str:
    """Return what was searched: how a family learns, or a method."""
    if not one.learning:
        return preset.methods[one.name].title
    shared = [method for method in preset.methods.values() if method.family.name == one.name]
    return shared[0].title if len(shared) == 1 else f"{one.name}, how it learns"


def searched_document(searched: Mapping[str, Sequence[Searched]], preset: Preset) -> list[dict[str, Any]]:
    """Return, for each data set and name, what was tried and which of it was chosen, JSON-ready."""
    found: list[dict[str, Any]] = finite_only(
        [
            {
                "data": data,
                "name": one.name,
                "title": title_of(one, preset),
                "tried": [
                    {
                        "settings": tried.words,
                        "accuracy": tried.accuracy,
                        "gap": tried.gap,
                        "chosen": tried is one.chosen,
                    }
                    for tried in one.tried
                ],
            }
            for data, every in searched.items()
            for one in every
        ]
    )
    return found


def search_table(searched: Mapping[str, Sequence[Searched]], preset: Preset) -> Table:
    """Return a row for each data set and name: what was chosen, with its figures and those of what was published."""
    table = Table(title="Settings chosen on validation data", title_justify="left")
    for heading in ("data", "searched", "tried", "chosen"):
        table.add_column(heading)
    for heading in ("accuracy less gap", "as published"):
        table.add_column(heading, justify="right")
    for data, every in searched.items():
        for one in every:
            figures = (_figure(one.chosen), _figure(one.tried[0]))
            table.add_row(data, title_of(one, preset), str(len(one.tried)), one.chosen.words, *figures)
    return table


def _figure(one: Tried) -> str:
    return f"{one.score:.1f}"
