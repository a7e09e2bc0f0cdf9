"""`munkey-sim run`: hospitals that learn together and forget on the way."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import EncoderOption, JsonOption, SettingOption, WeightsOption
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import given_settings
from fedmunkey.simulations.federation.consent import parse_share
from fedmunkey.simulations.federation.division_options import DivideByOption, FeatureShiftOption
from fedmunkey.simulations.federation.partition import DivideBy
from fedmunkey.simulations.programs.machine import usable_cores
from fedmunkey.simulations.programs.options import (
    AlphaOption,
    DataDirOption,
    DataOption,
    EpsilonOption,
    HospitalsOption,
)
from fedmunkey.simulations.programs.progress import Progress
from fedmunkey.simulations.reporting.files import write_report
from fedmunkey.simulations.reporting.html import run_charts
from fedmunkey.simulations.reporting.run_tables import same_weights_line
from fedmunkey.simulations.run.baselines import Baseline
from fedmunkey.simulations.run.experiment import MOST_WHOLE, Experiment, HeldOutUse
from fedmunkey.simulations.run.flower_runtime import RAY_ADDRESS
from fedmunkey.simulations.run.kept_run import KeptRun
from fedmunkey.simulations.run.report import accuracy_table, change_table, deletion_table
from fedmunkey.simulations.run.run import simulate

_WITH_RESUME = ("resume", "as_json")


def run(
    context: typer.Context,
    data: DataOption = "digits",
    hospitals: HospitalsOption = 5,
    delete: Annotated[
        list[str] | None,
        typer.Option(help="What is forgotten before which round: records:5%@3, subjects:10@4, site:2@5. Repeatable."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            help="Hospitals that come and go, records that arrive: join:3@2, leave:4@3, sleep:2@2-3, arrive:20%@3. "
            "Repeatable; under exact."
        ),
    ] = None,
    alpha: AlphaOption = 1.0,
    divide_by: DivideByOption = DivideBy.LABELS,
    feature_shift: FeatureShiftOption = 0.0,
    permanent: Annotated[
        str | None,
        typer.Option(help="Share of records given for good; by default what the data say."),
    ] = None,
    guarantee: Annotated[Guarantee | None, typer.Option(help="Short for --set guarantee=NAME.")] = None,
    epsilon: EpsilonOption = None,
    setting: SettingOption = None,
    rounds: Annotated[int | None, typer.Option(help="Short for --set num-rounds=N.")] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set seed=N.")] = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    baseline: Annotated[list[Baseline] | None, typer.Option(help="What to compare with. Repeatable.")] = None,
    no_baselines: Annotated[bool, typer.Option("--no-baselines", help="Compare with nothing.")] = False,
    output: Annotated[Path | None, typer.Option(help="Folder of this run; runs/DATA-TIME by default.")] = None,
    data_dir: DataDirOption = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Hospitals that train at the same time.")] = None,
    held_out: Annotated[
        HeldOutUse,
        typer.Option(
            help="Test records that a hospital is tested on: the whole, or a share, another one in each round; "
            f"auto takes shares above {MOST_WHOLE} hospitals."
        ),
    ] = HeldOutUse.AUTO,
    deletion_service: Annotated[
        str, typer.Option(help="Address of a running deletion service that knows the hospitals; starts one if empty.")
    ] = "",
    ray_address: Annotated[
        str, typer.Option(envvar=RAY_ADDRESS, help="Address of a Ray cluster to run on; starts Ray here if empty.")
    ] = "",
    storage: Annotated[
        Path | None,
        typer.Option(help="Folder for the hospitals' files, which all of a cluster's nodes have at this path."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder of a run that was cut off: go on from its last round, with all that was asked for."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a federation of simulated hospitals, delete while it trains, and report what was known before and after.

    Example: munkey-sim run --hospitals 5 --delete records:5%@3 --delete subjects:10@4 --delete site:2@5
    """
    if resume is not None:
        _refuse_others(context)
        _show(KeptRun(resume).read(), as_json, resume=True)
        return
    overrides = given_settings(
        setting,
        guarantee=guarantee and guarantee.value,
        epsilon=epsilon,
        num_rounds=rounds,
        seed=seed,
        encoder=encoder,
        encoder_weights=weights,
    )
    default = Path("runs") / f"{Path(data).stem}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    settings = Settings.parse(overrides)
    standard = [Baseline.ORACLE, Baseline.NEIGHBOURS]
    # Where weights are solved for, a transformer would take longer than all the rest.
    standard.append(Baseline.ALONE if settings.guarantee is Guarantee.EXACT else Baseline.PLAIN_VIT)
    experiment = Experiment(
        data=data,
        data_dir=data_dir,
        hospitals=hospitals,
        alpha=alpha,
        permanent=None if permanent is None else parse_share(permanent),
        deletions=delete or [],
        overrides=overrides,
        baselines=[] if no_baselines else baseline or standard,
        output=output or default,
        cores=cores or usable_cores(),
        held_out=held_out,
        ray_address=ray_address,
        storage=storage,
        deletion_service=deletion_service,
        command=command_line.typed(),
        divide_by=divide_by,
        feature_shift=feature_shift,
        changes=tuple(change or ()),
    )
    _show(experiment, as_json)


def _refuse_others(context: typer.Context) -> None:
    """Raise `InvalidSetting` if anything but `--json` is typed beside `--resume`."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in _WITH_RESUME and source is not None and source.name == "COMMANDLINE":
            raise InvalidSetting(
                f"--resume goes on with what the run was asked for; leave --{name.replace('_', '-')} out"
            )


def _show(experiment: Experiment, as_json: bool, *, resume: bool = False) -> None:
    with Progress.quiet() if as_json else Progress(Console(stderr=True)) as progress:
        document = simulate(experiment, progress, resume=resume)
    paths = write_report(document, experiment.output)
    for name, chart in run_charts(document).items():
        chart.save(experiment.output / f"{name}.png")
    if as_json:
        command_line.print_json(document)
        return
    command_line.print_table(accuracy_table(document))
    if document["deletions"]:
        command_line.print_table(deletion_table(document))
        sys.stdout.write(f"{document['headline']['sentence']}\n")
    if document["changes"]:
        command_line.print_table(change_table(document))
    if line := same_weights_line(document):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"report: {paths['html']}, pictures beside it\n")
