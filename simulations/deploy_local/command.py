"""`munkey-sim deploy-local`: a whole deployment on this machine, from nothing to a verified certificate."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.bound_program import temporary_folder
from fedmunkey.simulations.deploy_local.terminal import Terminal
from fedmunkey.simulations.deploy_local.walkthrough import Walkthrough
from fedmunkey.simulations.federation.sources import load_dataset


def deploy_local(
    data: Annotated[str, typer.Option(help="digits, or a MedMNIST-layout .npz by path: real images.")] = "digits",
    keep: Annotated[
        Path | None, typer.Option(help="A folder, made for this, that stays; a temporary one by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON instead of showing it.")] = False,
) -> None:
    """Run a coordinator and three hospitals as separate processes on loopback, with everything switched on.

    Every command is shown as a person would type it: TLS, invitations, signed requests, weights solved for under masks,
    a patient who is forgotten, renewed weights, the certificate and its check, and who is turned away. It stops all
    that it started. Exit code 0 means that every step held.

    Example: munkey-sim deploy-local --data digits --keep deployment
    """
    start = time.monotonic()
    images = load_dataset(data, data_dir=None, seed=0)
    with (
        _folder(keep) as folder,
        Terminal(folder, _quiet if as_json else _show) as terminal,
    ):
        found = Walkthrough(terminal, images).run()
    seconds = time.monotonic() - start
    if as_json:
        steps = [asdict(step) for step in terminal.steps]
        command_line.print_json({**found, "data": data, "seconds": round(seconds, 1), "steps": steps})
        return
    _show(
        f"\neverything held: {len(terminal.steps)} steps in {seconds:.0f} s, test accuracy "
        f"{100 * found['accuracy']:.1f}%, {found['records']} records forgotten, renewed weights at every hospital "
        f"{found['renewed_seconds']:.1f} s after the last answer" + (f"; all files are in {folder}" if keep else "")
    )


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with temporary_folder("munkey-deployment-") as folder:
            yield folder
        return
    try:
        keep.mkdir(parents=True)
    except FileExistsError:
        raise InvalidSetting(f"{keep} is there already; name a folder that is not") from None
    yield keep.absolute()


def _show(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _quiet(_: str) -> None:
    pass
