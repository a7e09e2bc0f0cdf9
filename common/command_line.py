"""What the three command lines share: one line for an error, JSON for programs, tables that cut nothing off."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import click
import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from typer.core import TyperGroup

from fedmunkey.common.deletion import Acknowledgement, Records, RequestStatus, SiteProgress, SiteState, Subject
from fedmunkey.common.errors import EXIT_CODE, FedmunkeyError
from fedmunkey.common.failpoints import arm_from_environment
from fedmunkey.common.guarantees import Guarantee, PrivacyLoss

INTERRUPTED = 130

_PRINTED = {"requestId": "request_id", "recordLoss": "record_loss", "subjectLoss": "subject_loss"}
_SAID = ("records", "entries", "guarantee", "record_loss", "subject_loss", "seconds")


def application(summary: str, group: type[TyperGroup] | None = None) -> typer.Typer:
    """Make an empty command line; `summary` is the first line of its help, `group` has commands of its own."""
    return typer.Typer(
        cls=group, help=summary, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )


def run(app: typer.Typer) -> None:
    """Run a command line and exit.

    The exit code is 0, `common.errors.EXIT_CODE` after `error: ...` on stderr for anything that the person at the
    keyboard can put right, or 130 if it was interrupted.
    """
    command = typer.main.get_command(app)
    try:
        arm_from_environment()
        # Outside of its standalone mode, typer raises what it would otherwise print on several lines.
        code = command.main(prog_name=Path(sys.argv[0]).name, standalone_mode=False)
        sys.stdout.flush()
    except FedmunkeyError as error:
        _fail(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        # Where rich is at hand, the help has been printed by now and the message is empty.
        sys.stdout.write(error.format_message())
        sys.exit(EXIT_CODE)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else command.name
        _fail(f"{error.format_message().rstrip('.')}; see {where} --help")
    except click.ClickException as error:
        _fail(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough; keep Python from complaining when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def typed() -> str:
    """Return the command line of this process as it can be typed again."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def plain_table(*words: str, numbers: tuple[str, ...] = ()) -> Table:
    """Return an empty table with columns of words, then columns of numbers; nothing in it is ever wrapped."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in words:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, no_wrap=True, justify="right")
    return table


def show(document: Any, as_json: bool, *otherwise: Table | str) -> None:
    """Print a document as JSON, or else what says the same to people: tables, and lines of text."""
    if as_json:
        print_json(document)
        return
    for shown in otherwise:
        if isinstance(shown, Table):
            print_table(shown)
        else:
            typer.echo(shown)


def print_table(table: Table) -> None:
    """Print a table on stdout, wider than the terminal if it must be: an id that is cut off is of no use."""
    console = Console(markup=False, highlight=False, emoji=False)
    natural = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    if natural > console.width:
        console = Console(markup=False, highlight=False, emoji=False, width=natural)
    console.print(table)


def weakest_guarantee(status: RequestStatus) -> Guarantee | None:
    """Return the guarantee that a request may claim as a whole, the weakest of its sites'; None before any answer."""
    given = [progress.acknowledgement.guarantee for progress in status.sites if progress.acknowledgement]
    return Guarantee.weakest(given) if given else None


def combined_loss(status: RequestStatus) -> PrivacyLoss | None:
    """Return what the shared weights may tell of a subject whom several sites have forgotten.

    Epsilons and deltas of the sites that erased records add up (basic composition, Dwork and Roth 2014, theorem 3.16);
    a site with the `EXACT` guarantee adds nothing. Returned is None if the request as a whole is not `CERTIFIED`, or no
    such site has erased anything.
    """
    if weakest_guarantee(status) is not Guarantee.CERTIFIED:
        return None
    answers = [progress.acknowledgement for progress in status.sites if progress.acknowledgement]
    losses = [answer.subject_loss for answer in answers if answer.state is SiteState.ERASED and answer.subject_loss]
    if not losses:
        return None
    return PrivacyLoss(
        sum(loss.epsilon for loss in losses), sum(loss.delta for loss in losses), sum(loss.records for loss in losses)
    )


def epsilon_words(answer: Acknowledgement) -> str:
    """Return what a site's answer bounds, for people: epsilon of a record, and of its subject where that is more."""
    if answer.record_loss is None or answer.subject_loss is None:
        return ""
    record = f"{_epsilon(answer.record_loss)} a record"
    return record if answer.subject_loss.records == 1 else f"{record}, {loss_words(answer.subject_loss)}"


def loss_words(loss: PrivacyLoss | None) -> str:
    """Return epsilon and the number of records that it is for, for people; nothing for None."""
    return "" if loss is None else f"{_epsilon(loss)} for {loss.records} record{'s' * (loss.records != 1)}"


def loss_document(loss: PrivacyLoss | None) -> dict[str, float | int | None] | None:
    """Return a privacy loss as the JSON that `--json` prints."""
    return None if loss is None else loss.to_document()


def answer_document(answer: Acknowledgement) -> dict[str, Any]:
    """Return an answer as the JSON that `--json` prints."""
    return {_PRINTED.get(name, name): value for name, value in answer.to_document().items()}


def finite(number: float) -> float | None:
    """Return a number as JSON can hold it: None if it is infinite."""
    return number if math.isfinite(number) else None


def status_document(status: RequestStatus) -> dict[str, Any]:
    """Return a request's status as the JSON that `--json` prints; times are ISO 8601 in UTC, references hexadecimal."""
    guarantee = weakest_guarantee(status)
    return {
        "request_id": status.request.request_id,
        "requester": status.request.requester,
        "target": _target_document(status),
        "state": status.state.value,
        "submitted_at": status.submitted_at.isoformat(),
        "due_at": status.due_at.isoformat() if status.due_at else None,
        "extension": status.extension,
        "records": status.erased,
        "seconds": status.seconds,
        "guarantee": guarantee.value if guarantee else None,
        "subject_loss": loss_document(combined_loss(status)),
        "sites": [_progress_document(progress) for progress in status.sites],
    }


def _target_document(status: RequestStatus) -> dict[str, Any]:
    target = status.request.target
    if isinstance(target, Records):
        references = sorted(reference.hex() for reference in target.references)
        return {"kind": "records", "site": target.site, "references": references}
    if isinstance(target, Subject):
        return {"kind": "subject", "reference": target.reference.hex()}
    return {"kind": "site", "site": target.site}


def _progress_document(progress: SiteProgress) -> dict[str, Any]:
    answer = progress.acknowledgement
    document = {} if answer is None else answer_document(answer)
    return {
        "site": progress.site,
        "order": progress.number,
        "state": progress.state.value,
        **{name: document.get(name) for name in _SAID},
        "reason": progress.reason or (answer.reason if answer else ""),
        "acknowledged_at": progress.acknowledged_at.isoformat() if progress.acknowledged_at else None,
    }


def _epsilon(loss: PrivacyLoss) -> str:
    """Return epsilon with two decimals, rounded up: a bound must not look smaller than it is."""
    if math.isinf(loss.epsilon):
        return "unbounded"
    return str(Decimal(str(loss.epsilon)).quantize(Decimal("0.01"), ROUND_CEILING))


def _fail(message: str) -> None:
    line = " ".join(message.split())
    sys.stderr.write(f"error: {line}\n")
    sys.exit(EXIT_CODE)
