"""`munkey-sim audit`: what a federation still knows of what it has forgotten."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import EncoderOption, JsonOption, SettingOption, WeightsOption
from fedmunkey.common.settings.settings_text import given_settings
from fedmunkey.simulations.attacks.registry import ATTACKS, chosen_attacks
from fedmunkey.simulations.attacks.shadows import FEWEST_SHADOWS
from fedmunkey.simulations.audit.document import audit_document
from fedmunkey.simulations.audit.trial import Trial, attempt
from fedmunkey.simulations.federation.consent import parse_share
from fedmunkey.simulations.federation.division_options import DivideByOption, FeatureShiftOption
from fedmunkey.simulations.federation.encoded_set import load_encoded
from fedmunkey.simulations.federation.partition import DivideBy
from fedmunkey.simulations.forget_sets.question import Question
from fedmunkey.simulations.forget_sets.registry import FORGET_SETS
from fedmunkey.simulations.programs.machine import usable_cores
from fedmunkey.simulations.programs.options import (
    AlphaOption,
    BudgetOption,
    DataDirOption,
    DataOption,
    EpsilonOption,
    ForgetOption,
    HospitalsOption,
    SeedsOption,
)
from fedmunkey.simulations.programs.progress import Progress
from fedmunkey.simulations.programs.worker_processes import run_tasks
from fedmunkey.simulations.reporting.files import write_report
from fedmunkey.simulations.reporting.intervals import Interval
from fedmunkey.simulations.unlearning.method import Budget
from fedmunkey.simulations.unlearning.registry import METHODS


def audit(
    data: DataOption,
    guarantee: Annotated[Guarantee, typer.Option(help="What deletions claim.")] = Guarantee.EXACT,
    method: Annotated[str, typer.Option(help="Audit another way to forget, such as ssd, in place of MUNKEY.")] = "",
    forget_set: Annotated[str, typer.Option(help=f"What is forgotten: {', '.join(FORGET_SETS)}.")] = "random+canaries",
    forget: ForgetOption = "10%",
    hospitals: HospitalsOption = 5,
    seeds: SeedsOption = 3,
    shadows: Annotated[
        int,
        typer.Option(
            min=0, help="Federations that the attacker trains for each seed; 0 leaves out the attacks that need them."
        ),
    ] = 8,
    attack: Annotated[
        list[str] | None,
        typer.Option(help=f"Only this attack: {', '.join(ATTACKS)}. Repeatable; all that are quick."),
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="All attacks, also those for which images are changed and encoded again.")
    ] = False,
    permanent: Annotated[str, typer.Option(help="Share of records given for good, for learns-from=permanent.")] = "0%",
    epsilon: EpsilonOption = None,
    budget: BudgetOption = 2,
    alpha: AlphaOption = float("inf"),
    divide_by: DivideByOption = DivideBy.LABELS,
    feature_shift: FeatureShiftOption = 0.0,
    setting: SettingOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    data_dir: DataDirOption = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Seeds at the same time.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("audit"),
    as_json: JsonOption = False,
) -> None:
    """Train, forget, train the oracle, attack all of them, and write a report of what is still known.

    Example: munkey-sim audit --data cells.npz --guarantee exact --encoder squeezenet1_0 --weights squeezenet1_0.pth
    """
    method = method or f"munkey-{guarantee}"
    _check(method, METHODS, "--method")
    _check(forget_set, FORGET_SETS, "--forget-set")
    attacks = chosen_attacks(attack or [], thorough=thorough)
    if shadows and (shadows < FEWEST_SHADOWS or shadows % 2):
        raise InvalidSetting(f"--shadows {shadows}: give 0, or an even number of at least {FEWEST_SHADOWS}")
    if output.exists() and not output.is_dir():
        raise InvalidSetting(f"--output {output}: is a file; give a folder")
    given, share = parse_share(permanent), parse_share(forget)
    overrides = given_settings(setting, encoder=encoder, encoder_weights=weights, epsilon=epsilon)
    if "guarantee" in overrides:
        raise InvalidSetting(f"guarantee = {overrides['guarantee']}: give it with --guarantee")
    with Progress.quiet() if as_json else Progress(Console(stderr=True)) as progress:
        encoded = load_encoded(data, overrides, data_dir, progress)
        further = Budget(budget), divide_by, feature_shift
        question = Question(encoded.settings, hospitals, alpha, given, share, forget_set, *further)
        numbers = [encoded.settings.seed + number for number in range(seeds)]
        # What cannot be asked for is refused before anything is trained.
        question.case(encoded.images, numbers[0])
        trials: dict[int, Trial] = {}
        with progress.counting("auditing", seeds) as count:

            def done(seed: int, trial: Trial) -> None:
                trials[seed] = trial
                count(1)

            run_tasks(
                attempt,
                numbers,
                lambda seed: (question, encoded.images, method, shadows, attacks, seed),
                cores=cores or usable_cores(),
                done=done,
            )
    found = [trials[seed] for seed in numbers]
    document = audit_document(encoded, question, method, shadows, found, command=command_line.typed())
    paths = write_report(document, output)
    if as_json:
        command_line.print_json(document)
        return
    command_line.print_table(_measures(document))
    command_line.print_table(_verdicts(document))
    sys.stdout.write(f"{document['headline']['sentence']}\nreport: {paths['html']}\n")


def _check(name: str, known: Any, option: str) -> None:
    if name not in known:
        raise InvalidSetting(f"{option} {name}: is unknown; choose from {', '.join(known)}")


def _measures(document: dict[str, Any]) -> Table:
    question = document["question"]
    title = f"{question['method']}, {question['forgotten']} records forgotten, mean of {len(question['seeds'])} seeds"
    table = Table(title=title, title_justify="left")
    for heading in ("", "before", "after", "oracle", "gap", "by chance"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row in document["measures"]:
        states = [_shown(row.get(state)) for state in ("before", "after", "oracle")]
        table.add_row(f"{row['name']} {row['unit']}", *states, _shown(row["gap"]), _shown(row["chance"]))
    for attack in document["attacks"]:
        states = [_shown(attack["states"].get(state, {}).get("auroc"), 3) for state in ("before", "after", "oracle")]
        table.add_row(f"{attack['title']}, AUROC", *states, "", "")
    return table


def _verdicts(document: dict[str, Any]) -> Table:
    table = Table(title="Verdicts", title_justify="left")
    for heading in ("", "checked", "found"):
        table.add_column(heading)
    for verdict in document["verdicts"]:
        table.add_row("passed" if verdict["passed"] else "FLAGGED", verdict["title"], verdict["sentence"])
    return table


def _shown(interval: dict[str, Any] | None, digits: int = 1) -> str:
    if interval is None or interval["mean"] is None:
        return "-"
    half = float("nan") if interval["half"] is None else interval["half"]
    return Interval(interval["mean"], half).text(digits)
