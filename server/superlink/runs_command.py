"""`munkey-server runs`: the models that there were, their figures, and which of them sites answer from."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.configured import SYSTEM_FOLDER
from fedmunkey.common.programs.options import JsonOption
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import ledger_that_is_there
from fedmunkey.server.rounds.run_document import run_document
from fedmunkey.server.rounds.run_record import CURVES, LEFT_OUT
from fedmunkey.server.rounds.runs import (
    KeptRun,
    RunState,
    find_run,
    new_run_folder,
    read_runs,
    run_in_use,
    take_over_former,
)
from fedmunkey.server.superlink.configuration import COORDINATOR
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile
from fedmunkey.server.superlink.event_lines import event_lines

application = typer.Typer(
    no_args_is_help=False,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_FileOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help=f"The coordinator's file of settings; {COORDINATOR.variable}, or {COORDINATOR.file_name} here or in "
        f"{SYSTEM_FOLDER} by default.",
    ),
]
_RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's name or a part of it, or latest.", show_default=False)
]
_MEASURES = ("test-accuracy", "val-accuracy", "test-own-accuracy", "test-macro-f1", "train-loss")
"""What a table shows of each site, as far as it tells it."""


@application.callback()
def runs(context: typer.Context, file: _FileOption = None, as_json: JsonOption = False) -> None:
    """List the runs: when, which guarantee, what has become of it, how accurate; * is the one that sites answer from.

    `runs show` says more of one, `runs use` goes back to one.

    Example: munkey-server runs
    """
    if context.invoked_subcommand is not None:
        context.obj = file
        return
    coordinator, found = _read(file)
    used = run_in_use(found)
    with Ledger(ledger_that_is_there(coordinator.ledger, None)) as ledger:
        documents = [run_document(run, used, ledger.erased_since) for run in found]
    table = command_line.filled_table(
        ("", "run", "guarantee", "state", "weights"),
        ("rounds", "sites", "test accuracy"),
        [_row(each) for each in documents],
    )
    command_line.show(documents, as_json, table if found else f"there is no run yet in {_runs_of(coordinator)}")


@application.command()
def show(context: typer.Context, run: _RunArgument, file: _FileOption = None, as_json: JsonOption = False) -> None:
    """Show one run: what it was asked for, what happened, and its figures by site and class.

    Learning curves of every site are in the picture that is named.

    Example: munkey-server runs show latest
    """
    coordinator, found = _read(file or context.obj)
    chosen = find_run(found, run)
    with Ledger(ledger_that_is_there(coordinator.ledger, None)) as ledger:
        document = run_document(chosen, run_in_use(found), ledger.erased_since)
    card = coordinator.read_card()
    names = () if card is None else card.card.classes
    document |= {"settings": chosen.settings, "events": list(chosen.events), "folder": str(chosen.folder)}
    curves = chosen.folder / CURVES
    command_line.show(
        document,
        as_json,
        *_lines(document, chosen),
        *([_figures(document["figures"])] if document["figures"] else []),
        *([_classes(document["classes"], names)] if document["classes"] else []),
        *([f"learning curves: {curves}"] if curves.exists() else []),
    )


@application.command()
def use(
    context: typer.Context,
    run: _RunArgument,
    file: _FileOption = None,
    hours: Annotated[float, typer.Option(min=0.01, help="Give up after so long.")] = 1.0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Flower's own lines as well.")] = False,
) -> None:
    """Give the weights of an earlier run to the sites again; they answer from these until another run ends well.

    Under exact that is refused where records that the weights were solved with have been deleted since; the requests
    are named. Where exemplar tokens are trained along (empirical), sites begin with new ones.

    Example: munkey-server runs use 2026-03-01-101500-4f2a91
    """
    # Starting a run brings Flower, which listing them does not need.
    from fedmunkey.server.superlink.run_command import check_finished, start_and_follow

    coordinator, found = _read(file or context.obj)
    chosen = find_run(found, run)
    if chosen.gives_out:
        raise InvalidSetting(f"{chosen.name} gave out the weights of {chosen.gives_out} again; name that one")
    if chosen.state is RunState.UNDER_WAY or (not chosen.rounds and chosen.weights is None):
        raise InvalidSetting(f"{chosen.name} is {chosen.state} and left no weights; name another")
    settings = _giving_out(coordinator, chosen)
    with Ledger(ledger_that_is_there(coordinator.ledger, None)) as ledger:
        if chosen.guarantee is Guarantee.EXACT:
            _check_none_erased(ledger, chosen)
        if chosen.weights is None:
            raise InvalidSetting(
                f"the weights of {chosen.name} were removed, for later runs are kept (keep-runs = "
                f"{coordinator.keep_runs}); name another"
            )
        coordinator.check_card(settings)
        if chosen.guarantee is Guarantee.EXACT:
            # Before any site has them, as every release: what is erased from now on is owed at once.
            ledger.release_again(chosen.digest)
    said = start_and_follow(coordinator, settings, hours=hours, verbose=verbose, quiet=False)
    check_finished(said, settings)
    typer.echo(f"sites that took part answer from {chosen.name}; the others do after the next run")


def _read(file: Path | None) -> tuple[CoordinatorFile, list[KeptRun]]:
    path = file or COORDINATOR.find()
    if path is None:
        raise InvalidSetting(
            f"there is no {COORDINATOR.file_name} here or in {SYSTEM_FOLDER}; name the file with --config, or set "
            f"{COORDINATOR.variable}"
        )
    if file is None:
        sys.stderr.write(f"settings: {path}\n")
    coordinator = CoordinatorFile.read(path)
    folder = _runs_of(coordinator)
    if folder.is_dir():
        take_over_former(folder)
    return coordinator, read_runs(folder)


def _runs_of(coordinator: CoordinatorFile) -> Path:
    return Path(coordinator.run_settings().output_dir).absolute()


def _giving_out(coordinator: CoordinatorFile, chosen: KeptRun) -> Settings:
    """Return the settings of a run that gives out another's weights: that run's own, at this coordinator."""
    here = coordinator.run_settings()
    return Settings.parse(chosen.settings or here.to_config()).replace(
        guarantee=chosen.guarantee.value,
        resume_run=False,
        num_rounds=1,
        give_out=str((chosen.weights or chosen.folder).absolute()),
        initial_weights="",
        output_dir=str(new_run_folder(_runs_of(coordinator), utc_now())),
        deletion_service=here.deletion_service,
        deletion_identity=here.deletion_identity,
        federation_card=here.federation_card,
        min_sites=here.min_sites,
    )


def _check_none_erased(ledger: Ledger, chosen: KeptRun) -> None:
    if gone := ledger.erased_since(chosen.digest):
        raise InvalidSetting(
            f"{chosen.name} was solved with records that were deleted since, by request {', '.join(gone)}; it is not "
            "brought back: name a run that came later, or solve for new weights with munkey-server run"
        )


def _row(document: Mapping[str, Any]) -> Sequence[str]:
    accuracy = document["mean"].get("test-accuracy")
    left_out = document["mean"].get(LEFT_OUT)
    what = f"{document['state']}, gives out {document['gives_out']}" if document["gives_out"] else document["state"]
    weights = "kept" if document["weights"] else ""
    if document["solved_with_deleted"]:
        weights = f"hold what {document['solved_with_deleted'][0]} erased"
    return (
        "*" if document["in_use"] else "",
        document["run"],
        document["guarantee"],
        what,
        weights,
        str(document["rounds"]),
        str(len(document["sites"])),
        _share(accuracy) or _share(left_out, " (left out)"),
    )


def _lines(document: Mapping[str, Any], run: KeptRun) -> list[str]:
    """Return what is said of a run before its tables."""
    defaults = Settings().to_config()
    asked = {name: value for name, value in run.settings.items() if value != defaults.get(name)}
    gone = document["solved_with_deleted"]
    used = "sites answer from it" if document["in_use"] else "sites do not answer from it"
    kept = f"those of {run.gives_out}, given out again" if run.gives_out else document["weights"] or "none are kept"
    return [
        f"{run.name}, begun {run.started}: {run.state}" + (f", {run.reason}" if run.reason else ""),
        f"guarantee {run.guarantee}; {used}",
        f"weights: {kept}; digest {document['digest'] or 'unknown'}",
        *([f"solved with records that request {', '.join(gone)} erased since: never given out again"] if gone else []),
        f"settings: {', '.join(f'{name} = {value}' for name, value in asked.items())}",
        *(line for event in run.events for line in event_lines(event, Settings.parse(run.settings).rounds)),
    ]


def _figures(figures: Mapping[str, Mapping[str, float | None]]) -> Table:
    told = [name for name in _MEASURES if any(each.get(name) is not None for each in figures.values())]
    rows = [[site, *(_number(name, each.get(name)) for name in told)] for site, each in figures.items()]
    return command_line.filled_table(("site",), told, rows)


def _classes(classes: Mapping[str, int], names: Sequence[str]) -> Table:
    """Return how many records there were of each class, which is called as the federation card has it."""
    named = {str(number): f"{number} {name}" for number, name in enumerate(names)}
    rows = [(named.get(label, label), str(count)) for label, count in classes.items()]
    return command_line.filled_table(("class",), ("records",), rows)


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f}%" if name.endswith("accuracy") else f"{value:.3f}"


def _share(share: float | None, what: str = "") -> str:
    return "" if share is None else f"{100 * share:.1f}%{what}"
