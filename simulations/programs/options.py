"""Options that several commands of `munkey-sim` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[
    str, typer.Option("--data", help="digits, a MedMNIST-layout .npz by path, or a MedMNIST name (downloads it).")
]
HospitalsOption = Annotated[int, typer.Option("--hospitals", min=1, help="How many hospitals.")]
SeedsOption = Annotated[
    int, typer.Option("--seeds", min=1, help="How often everything is repeated, each time divided anew.")
]
ForgetOption = Annotated[str, typer.Option("--forget", help="Share of the training records that is forgotten.")]
AlphaOption = Annotated[
    float,
    typer.Option(
        "--alpha", help="How alike hospitals are (Dirichlet, see --divide-by): 0.1 very different, inf the same."
    ),
]
BudgetOption = Annotated[
    int, typer.Option("--budget", min=1, help="Rounds that a method may train in order to forget.")
]
EpsilonOption = Annotated[
    float | None, typer.Option("--epsilon", help="Short for --set epsilon=NUMBER, for certified.")
]
DataDirOption = Annotated[Path | None, typer.Option("--data-dir", help="Where downloaded data sets lie.")]
