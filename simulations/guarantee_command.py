"""`munkey-sim guarantees`: what each guarantee would cost on a data set."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from common import command_line
from common.errors import InvalidSetting
from common.guarantees import Guarantee
from common.options import EncoderOption, JsonOption, SettingOption, WeightsOption
from common.settings import Settings
from common.settings_text import ConfigValue, given_settings
from simulations.consent import parse_share
from simulations.encoded_set import load_encoded
from simulations.guarantee_table import Findings
from simulations.guarantees import Question, compare
from simulations.json_values import settings_values
from simulations.machine import usable_cores
from simulations.options import (
    AlphaOption,
    DataDirOption,
    DataOption,
    EpsilonOption,
    ForgetOption,
    HospitalsOption,
    PermanentOption,
    SeedsOption,
)
from simulations.progress import Progress


def guarantees(
    data: DataOption,
    hospitals: HospitalsOption = 5,
    seeds: SeedsOption = 5,
    forget: ForgetOption = "10%",
    permanent: PermanentOption = "30%",
    epsilon: EpsilonOption = None,
    only: Annotated[list[Guarantee] | None, typer.Option(help="Try this guarantee only. Repeatable.")] = None,
    alpha: AlphaOption = float("inf"),
    setting: SettingOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    data_dir: DataDirOption = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Trials at the same time.")] = None,
    output: Annotated[Path | None, typer.Option(help="File for everything that was measured, as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train under each guarantee, forget, and show accuracy, Average Gap, epsilon, time and bytes side by side.

    delta is 1 / (10 N) for N training records, unless it is set.

    Example: munkey-sim guarantees --data cells.npz --encoder squeezenet1_0 --weights squeezenet1_0.pth --epsilon 3
    """
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise InvalidSetting(f"--output {output}: must be a file in a folder that is there")
    overrides = given_settings(setting, encoder=encoder, encoder_weights=weights, epsilon=epsilon)
    _check(overrides)
    shares = parse_share(permanent), parse_share(forget)
    tried = [guarantee for guarantee in Guarantee if not only or guarantee in only]
    with Progress.quiet() if as_json else Progress(Console(stderr=True)) as progress:
        encoded = load_encoded(data, overrides, data_dir, progress)
        settings = encoded.settings
        question = Question(encoded.images, settings, hospitals, alpha, *shares)
        with progress.counting("trying guarantees", seeds * len(tried)) as count:
            trials = compare(
                question,
                tried,
                [settings.seed + number for number in range(seeds)],
                processes=cores or usable_cores(),
                done=lambda _: count(1),
            )
    findings = Findings(trials)
    document = {"data": data, "hospitals": hospitals, "permanent": shares[0], "forget": shares[1], "alpha": str(alpha)}
    document |= {"settings": settings_values(settings), **findings.document()}
    if output is not None:
        output.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    if as_json:
        command_line.print_json(document)
        return
    command_line.print_table(findings.table())
    sys.stdout.write(f"{findings.advice_line}\n")


def _check(overrides: dict[str, ConfigValue]) -> None:
    if "guarantee" in overrides:
        raise InvalidSetting(f"guarantee = {overrides['guarantee']}: all are tried here; choose with --only")
    if math.isinf(Settings.parse(overrides).epsilon):
        raise InvalidSetting("epsilon = inf: bounds nothing; give a number, training without noise is shown beside it")
