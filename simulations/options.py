"""Options that several commands of `munkey-sim` share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from common.settings import ConfigValue, parse_assignments

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
    typer.Option("--alpha", help="How alike hospitals are (Dirichlet over labels): 0.1 very different, inf the same."),
]
BudgetOption = Annotated[
    int, typer.Option("--budget", min=1, help="Rounds that a method may train in order to forget.")
]
EpsilonOption = Annotated[
    float | None, typer.Option("--epsilon", help="Short for --set epsilon=NUMBER, for certified.")
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="A setting as key=value, see docs/settings.md. Repeatable."),
]
EncoderOption = Annotated[str | None, typer.Option("--encoder", help="Short for --set encoder=NAME.")]
WeightsOption = Annotated[str | None, typer.Option("--weights", help="Short for --set encoder-weights=FILE.")]
DataDirOption = Annotated[Path | None, typer.Option("--data-dir", help="Where downloaded data sets lie.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def given_settings(assignments: list[str] | None, **shorthands: ConfigValue | None) -> dict[str, ConfigValue]:
    """Return the settings that a command was given, as `--set` or by an option that is short for it.

    `assignments` are what `--set` was given, each as key=value; shorthands have underscores in their names, and are
    None where they were not given. Raises `InvalidSetting` if an assignment is not one, or names no setting.
    """
    given: Mapping[str, ConfigValue | None] = {name.replace("_", "-"): value for name, value in shorthands.items()}
    return parse_assignments(assignments or []) | {name: value for name, value in given.items() if value is not None}
