"""Options of commands that divide records among hospitals."""

from __future__ import annotations

from typing import Annotated

import typer

from fedmunkey.simulations.federation.partition import DivideBy

DivideByOption = Annotated[
    DivideBy,
    typer.Option(
        "--divide-by",
        help="What hospitals differ in: their labels, their sizes, or the sources that a file names (train_sources).",
    ),
]
FeatureShiftOption = Annotated[
    float,
    typer.Option(
        "--feature-shift",
        min=0,
        max=1,
        help="How much hospitals' scanners differ in brightness, contrast and blur: 0 not at all, 1 the most.",
    ),
]
