"""What the three command lines share: one line for an error, JSON for programs, tables that cut nothing off."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from common.deletion import Records, RequestStatus, SiteProgress, Subject
from common.errors import EXIT_CODE, FedmunkeyError
from common.guarantees import Guarantee

INTERRUPTED = 130


def application(summary: str) -> typer.Typer:
    """Make an empty command line; `summary` is the first line of its help."""
    return typer.Typer(help=summary, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def run(app: typer.Typer) -> None:
    """Run a command line and exit.

    The exit code is 0, `common.errors.EXIT_CODE` after `error: ...` on stderr for anything that the person at the
    keyboard can put right, or 130 if it was interrupted.
    """
    command = typer.main.get_command(app)
    try:
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


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(table: Table) -> None:
    """Print a table on stdout, wider than the terminal if it must be: an id that is cut off is of no use."""
    console = Console(markup=False, highlight=False, emoji=False)
    natural = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    if natural > console.width:
        console = Console(markup=False, highlight=False, emoji=False, width=natural)
    console.print(table)


def weakest_guarantee(status: RequestStatus) -> Guarantee | None:
    """Return the guarantee that a request may claim as a whole, the weakest of its sites'; None before any answer."""
    given = {progress.acknowledgement.guarantee for progress in status.sites if progress.acknowledgement}
    return next((guarantee for guarantee in reversed(Guarantee) if guarantee in given), None)


def status_document(status: RequestStatus) -> dict[str, Any]:
    """Return a request's status as the JSON that `--json` prints; times are ISO 8601 in UTC, references hexadecimal."""
    guarantee = weakest_guarantee(status)
    return {
        "request_id": status.request.request_id,
        "requester": status.request.requester,
        "target": _target_document(status),
        "state": status.state.value,
        "submitted_at": status.submitted_at.isoformat(),
        "records": status.erased,
        "seconds": status.seconds,
        "guarantee": guarantee.value if guarantee else None,
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
    return {
        "site": progress.site,
        "order": progress.number,
        "state": progress.state.value,
        "records": answer.records if answer else None,
        "entries": answer.entries if answer else None,
        "guarantee": answer.guarantee.value if answer else None,
        "seconds": answer.seconds if answer else None,
        "reason": answer.reason if answer else "",
        "acknowledged_at": progress.acknowledged_at.isoformat() if progress.acknowledged_at else None,
    }


def _fail(message: str) -> None:
    line = " ".join(message.split())
    sys.stderr.write(f"error: {line}\n")
    sys.exit(EXIT_CODE)
