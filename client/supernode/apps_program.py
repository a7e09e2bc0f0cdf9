"""Starts the site's own ClientApp when a round asks for it: what of Flower reads the bank, apart from the network.

Flower's SuperNode, which speaks to the coordinator, hands tasks over at its runtime address. This program takes them
under the site's account, and starts nothing for them but `clientapp_program`: whoever has taken the SuperNode over
finds neither keys nor bank there, and has no code run here. Run as a program with the path of `site.toml`.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path

from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.run_superexec import run_superexec

from fedmunkey.client.supernode.site_file import APPS_READY, SiteFile
from fedmunkey.common.programs.flower import serve_from_file
from fedmunkey.common.programs.supervision import own_program

_PROGRAMS = "programs"


def serve(file: SiteFile) -> None:
    """Start what rounds ask for until SIGINT or SIGTERM; waits for a SuperNode that does not run yet."""
    # Of all programs that a task may name, only this one is found.
    os.environ["PATH"] = str(_write_program(file.flower_home / _PROGRAMS, Path(sys.argv[1]).absolute()))
    sys.stdout.write(f"{APPS_READY}{file.runtime}\n")
    sys.stdout.flush()
    run_superexec(runtime_api_address=file.runtime, insecure=True, runtime_dependency_install=False)


def _write_program(folder: Path, settings: Path) -> Path:
    """Write what Flower starts for a ClientApp, by its name; return the folder in which nothing else lies."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    words = own_program("fedmunkey.client.supernode.clientapp_program", str(settings))
    program = folder / TaskType.CLIENT_APP
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    return folder


def main() -> None:
    """Run it on the file that the command line names."""
    serve_from_file(SiteFile, serve, logging.getLogger("fedmunkey.client.supernode"))
