"""What `munkey-sim compare` can be asked in a word: which methods, with which settings, forget what, and what is shown.

The preset `recipes` makes the table in docs/recipes.md: the search for the `empirical` recipe that forgets best.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings_text import ConfigValue
from fedmunkey.simulations.comparison.findings import COLUMNS, PATHWAYS, Column
from fedmunkey.simulations.comparison.search import TRIES
from fedmunkey.simulations.forget_sets.random_records import RandomRecords
from fedmunkey.simulations.forget_sets.random_with_canaries import RandomWithCanaries
from fedmunkey.simulations.unlearning.method import Method
from fedmunkey.simulations.unlearning.munkey import KeyDeletion
from fedmunkey.simulations.unlearning.registry import METHODS


@dataclass(frozen=True)
class Preset:
    """One comparison.

    Attributes
    ----------
    changes : mapping
        For each method, by name, the settings that it does not share with the federation; those left out share all.
    tries : int
        How many settings a family and each of its methods may try on validation data; 1 for none but the first.
    """

    methods: Mapping[str, Method[Any]]
    forget_set: str
    columns: tuple[Column, ...]
    changes: Mapping[str, Mapping[str, ConfigValue]] = field(default_factory=dict)
    tries: int = 1


_OF_GUARANTEES = ("MB to train", "same bytes", "epsilon")
_OF_METHODS = ("TPR", "canaries", "oracle's canaries", "weights alone", "seconds to forget", "MB to forget")
_OF_THE_PAPER = (
    "TA",
    "RA",
    "FA",
    "oracle's FA",
    "MIA",
    "weights alone",
    "Average Gap",
    "by chance",
    "seconds to forget",
)
_OF_RECIPES = ("TA", "Average Gap", "by chance")

_WITHOUT_NOISE = KeyDeletion(Guarantee.CERTIFIED, "certified-without-noise", "MUNKEY, certified without noise")
_GUARANTEES = (*(METHODS[f"munkey-{guarantee}"] for guarantee in Guarantee), _WITHOUT_NOISE)

_BRIEF: dict[str, ConfigValue] = {"depth": 1, "image-dropout": 0.6, "memory-dropout": 0.3, "local-steps": 3}
_LONG: dict[str, ConfigValue] = {"depth": 2, "local-steps": 12}

_RECIPES: Mapping[str, Mapping[str, ConfigValue]] = {
    "transformer, as by default": {},
    "linear, tokens trained jointly": {"depth": 0, "local-steps": 3},
    "transformer, 1 block": _BRIEF,
    "transformer, own tokens": {**_BRIEF, "exemplar-tokens": "own"},
    "transformer, own entry never": {**_BRIEF, "self-retrieval": 0.0},
    "transformer, own entry always": {**_BRIEF, "self-retrieval": 1.0},
    "transformer, image never dropped": {**_BRIEF, "image-dropout": 0.0},
    "transformer, 8 wide": {**_BRIEF, "width": 8},
    "transformer, 2 blocks, 12 steps, as published": {**_LONG, "image-dropout": 0.4, "memory-dropout": 0.4},
    "transformer on patches, 12 steps": {**_LONG, "image-path": "patches"},
}
"""What is tried under `empirical`, by name; each differs from the defaults as it says."""

_PUBLISHED: dict[str, ConfigValue] = {
    **_LONG,
    **{"neighbours": 4, "image-vote": False, "image-dropout": 0.4, "memory-dropout": 0.4, "self-retrieval": 0.8},
}
"""What is known of the paper's recipe: a transformer, K = 4, tokens trained jointly, both pathways dropped."""

_AS_PUBLISHED: Mapping[str, Mapping[str, ConfigValue]] = {
    "as published, ensemble": {**_PUBLISHED, "aggregation": "ensemble"},
    "as published, softmax": {**_PUBLISHED, "aggregation": "softmax"},
    "as published, rank": {**_PUBLISHED, "aggregation": "rank"},
    "as published, on patches": {**_PUBLISHED, "aggregation": "ensemble", "image-path": "patches"},
    "ensemble, own entry never": {**_PUBLISHED, "aggregation": "ensemble", "self-retrieval": 0.0},
    "ensemble, image dropped more": {**_PUBLISHED, "aggregation": "ensemble", "image-dropout": 0.8},
    "ensemble, 8 wide": {**_PUBLISHED, "aggregation": "ensemble", "width": 8},
    "ensemble, stopped early": {**_PUBLISHED, "aggregation": "ensemble", "num-rounds": 5},
}
"""MUNKEY as published in its three aggregations, and what may help it forget."""

PRESETS: Mapping[str, Preset] = {
    "methods": Preset(
        METHODS,
        RandomWithCanaries.name,
        tuple(column for column in COLUMNS if column.name not in _OF_GUARANTEES),
        tries=TRIES,
    ),
    "guarantees": Preset(
        {method.name: method for method in _GUARANTEES},
        RandomRecords.name,
        tuple(column for column in COLUMNS if column.name not in _OF_METHODS),
        {_WITHOUT_NOISE.name: {"epsilon": float("inf")}},
    ),
    "recipes": Preset(
        {name: KeyDeletion(Guarantee.EMPIRICAL, name, name) for name in _RECIPES},
        RandomRecords.name,
        tuple(replace(column, digits=2) for column in COLUMNS if column.name in _OF_RECIPES),
        _RECIPES,
    ),
    "munkey-paper": Preset(
        {
            **{name: METHODS[name] for name in (f"munkey-{guarantee}" for guarantee in Guarantee)},
            **{name: KeyDeletion(Guarantee.EMPIRICAL, name, name) for name in _AS_PUBLISHED},
            **{name: METHODS[name] for name in ("nothing", "retraining")},
        },
        RandomRecords.name,
        (*(column for column in COLUMNS if column.name in _OF_THE_PAPER), *PATHWAYS),
        _AS_PUBLISHED,
    ),
}
"""All presets by name; the first is taken where none is asked for."""
