"""`munkey-server run`: a training run of the sites that are there, started at the coordinator's own SuperLink."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import FederationStopped, InvalidSetting
from fedmunkey.common.identities.card_words import NO_CARD
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.flower import MANIFEST, app_manifest, flower_environment, flower_program
from fedmunkey.common.programs.options import SettingOption
from fedmunkey.common.service.foreign_text import printable
from fedmunkey.common.settings.addresses import split_address
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import given_settings
from fedmunkey.common.stop_signals import stopped_by_signals
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.rounds.run_record import FINISHED, ROUND, STOPPED, read_events
from fedmunkey.server.rounds.runs import (
    LATEST,
    RunState,
    find_run,
    new_run_folder,
    read_runs,
    remove_old_weights,
    take_over_former,
)
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile
from fedmunkey.server.superlink.event_lines import EventLines

_CONNECTION = "coordinator"
_STARTED = re.compile(r"Successfully started run (\d+)")
_FRAME = " \n\t╭╮╰╯│─"
"""What Flower draws around its errors."""

_FRAME_BEGINS, _FRAME_GOES_ON = "╭", "│"
_ANSWER_SECONDS = 10.0

_STOP_SECONDS = 10.0
_STOPPING_SECONDS = 120.0


def run(
    file: Annotated[Path, typer.Argument(help="The coordinator's settings, in TOML.", show_default=False)],
    setting: SettingOption = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Short for --set num-rounds=N.")] = None,
    renew: Annotated[
        bool,
        typer.Option("--renew", help="Only if deletions are still to leave the shared weights; one round (exact)."),
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Release although few records have changed; short for --set release-now=true.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last run, which was cut off, after its last round.")
    ] = False,
    hours: Annotated[float, typer.Option(min=0.01, help="Give up after so long.")] = 24.0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Flower's own lines as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rounds as JSON when the run has ended.")] = False,
) -> None:
    """Train, on the SuperLink that `munkey-server up` runs, and show each round.

    Weights, figures and settings are in a folder of the run's own, in output-dir; munkey-server runs lists them.
    The settings are those of the section run of the file, and of the federation card: a run that contradicts the
    card, and a run without one, is refused before it begins. Exit code 0 means that all rounds were run.
    Under exact there is one round, which solves for the weights from what the sites hold then.

    Example: munkey-server run coordinator.toml --rounds 10 --set guarantee=exact
    """
    coordinator = CoordinatorFile.read(file)
    settings = coordinator.run_settings(given_settings(setting, num_rounds=rounds, release_now=now or None))
    runs = Path(settings.output_dir).absolute()
    if resume:
        if setting or rounds or now or renew:
            raise InvalidSetting("--resume goes on with the settings that the run began with; leave others out")
        settings = settings_to_resume(runs)
    else:
        settings = settings.replace(output_dir=str(new_run_folder(runs, utc_now())))
    if renew and settings.guarantee is not Guarantee.EXACT:
        raise InvalidSetting(f"guarantee = {settings.guarantee}: only weights of exact are renewed; leave --renew out")
    if coordinator.read_card() is not None or not renew:
        coordinator.check_card(settings)
    else:
        # What was promised to whoever asked for a deletion waits for no agreement.
        sys.stderr.write(f"warning: {NO_CARD}\n")
    if renew and not _owes_renewal(coordinator):
        typer.echo("nothing to renew: the shared weights hold nothing of what was deleted", err=as_json)
        if as_json:
            command_line.print_json([])
        return
    said = start_and_follow(coordinator, settings, hours=hours, verbose=verbose, quiet=as_json)
    if as_json:
        command_line.print_json([event for event in said if event["event"] == ROUND])
    check_finished(said, settings)
    with Ledger(coordinator.ledger) as ledger:
        removed = remove_old_weights(read_runs(runs), coordinator.keep_runs, ledger.erased_since)
    for name, why in removed.items():
        typer.echo(f"the weights of {name} were removed: {why}", err=as_json)


def settings_to_resume(runs: Path) -> Settings:
    """Return the settings with which the last run of a folder goes on; raises `InvalidSetting` if it need not."""
    found = find_run(read_runs(runs), LATEST)
    if found.state is RunState.UNDER_WAY:
        raise InvalidSetting(f"the run {found.name} is under way; wait for its end")
    if found.state is RunState.FINISHED or found.gives_out:
        raise InvalidSetting(f"the last run, {found.name}, came to its end; begin another without --resume")
    if found.rounds and found.weights is None:
        raise InvalidSetting(f"the weights of {found.name} are gone; begin another run without --resume")
    return Settings.parse(found.settings).replace(resume_run=True, output_dir=str(found.folder))


def start_and_follow(
    coordinator: CoordinatorFile, settings: Settings, *, hours: float, verbose: bool, quiet: bool
) -> list[dict[str, Any]]:
    """Start a run at the coordinator's SuperLink, show what happens in it until its end, and return its events.

    With `quiet`, lines go to stderr. The run's folder is that of the settings; what was in it before is no event of
    this one. Raises `FederationStopped` if it cannot be started or followed.
    """
    identity = CoordinatorFolder(coordinator.coordinator_dir).read_identity()
    _check_answers(coordinator.superlink_control)
    folder = Path(settings.output_dir)
    if taken := take_over_former(folder.parent):
        typer.echo(f"what an earlier version left is the run {taken} now", err=quiet)
    shown = sys.stderr if quiet else sys.stdout
    before = len(read_events(folder))
    with tempfile.TemporaryDirectory(prefix="munkey-run-") as home, ExitStack() as stack:
        command = prepare(Path(home), coordinator.superlink_control, identity.ca_file, settings)
        environment = flower_environment(Path(home))
        lines = stack.enter_context(EventLines(folder, before, settings.rounds, shown))
        flower = lines.write if verbose else None
        started: list[str] = []
        lines.write(f"run {folder.name}: its folder is {folder}")
        try:
            follow(command, environment, hours * 3600, flower, started)
        except (KeyboardInterrupt, FederationStopped):
            # What is shown here would otherwise go on at the SuperLink.
            for number in started:
                stop = [flower_program("flwr"), "stop", number, _CONNECTION]
                follow(stop, environment, _STOPPING_SECONDS, flower, [])
            raise
    return read_events(folder)[before:]


def _check_answers(address: str) -> None:
    """Look whether somebody listens where runs are started, before a folder is made for one."""
    host, port = split_address(address)
    try:
        socket.create_connection((host.strip("[]"), port), _ANSWER_SECONDS).close()
    except OSError as error:
        raise FederationStopped(
            f"nothing answers at superlink-control = {address} ({error.strerror or error}), so the run was not "
            "started; start munkey-server up, or correct the address in the coordinator's file of settings"
        ) from None


def _owes_renewal(coordinator: CoordinatorFile) -> bool:
    with Ledger(coordinator.ledger) as ledger:
        need = ledger.renewal_need()
    # Weights that a round has solved for and not given to all are given by the next one.
    return need.entries > 0 or need.solved_at is not None


def prepare(home: Path, address: str, authority: Path, settings: Settings) -> list[str]:
    """Write what `flwr run` reads into an empty folder, and return its command.

    Runs are started at the SuperLink's address, and it is known by the certificate of its authority.
    """
    connection = f'[superlink.{_CONNECTION}]\naddress = "{address}"\nroot-certificates = {json.dumps(str(authority))}\n'
    (home / "config.toml").write_text(connection, encoding="utf-8")
    app = home / "fedmunkey"
    app.mkdir()
    (app / MANIFEST).write_text(app_manifest(settings, "fedmunkey-run"), encoding="utf-8")
    return [flower_program("flwr"), "run", str(app), _CONNECTION, "--stream"]


class _LastWords:
    """The last line that a command of Flower's has printed, or all lines of the frame in which it stands, as one."""

    def __init__(self) -> None:
        self.said = ""

    def hear(self, line: str) -> None:
        """Take the next line."""
        words, begins = line.strip(_FRAME), line.strip()[:1]
        if begins == _FRAME_BEGINS:
            # The frame's heading, such as Error, says nothing.
            self.said = ""
        elif begins == _FRAME_GOES_ON:
            self.said = f"{self.said} {words}".strip()
        elif words:
            self.said = words


def follow(
    command: list[str],
    environment: dict[str, str],
    seconds: float,
    show: Callable[[str], object] | None,
    started: list[str],
) -> None:
    """Run a command of Flower's until it ends, and show what it prints, if anybody wants to see it.

    All of it ends at an interruption. Numbers of runs that it says it has started are added to `started`. Raises
    `FederationStopped` if it ends with an error or takes longer than some seconds.
    """
    process = subprocess.Popen(  # noqa: S603 (Flower's own command)
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    lines, late = _LastWords(), threading.Event()

    def end() -> None:
        late.set()
        _end_group(process)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        with stopped_by_signals(_interrupt):
            for line in process.stdout or ():
                said = printable(line.rstrip())
                lines.hear(said)
                started += _STARTED.findall(said)
                if show is not None:
                    show(said)
            code = process.wait()
    finally:
        timer.cancel()
        _end_group(process)
        if process.stdout is not None:
            process.stdout.close()
    if late.is_set():
        raise FederationStopped(f"the run was still going after {seconds / 3600:g} h; give it more --hours")
    if code:
        raise FederationStopped(f"the run could not be started or followed: {lines.said}; is munkey-server up running?")


def check_finished(events: list[dict[str, Any]], settings: Settings) -> None:
    """Check that a run came to its end; raises `FederationStopped` with the reason that it gave if it did not."""
    if events and events[-1]["event"] == FINISHED:
        return
    reasons = [event["reason"] for event in events if event["event"] == STOPPED]
    done = sum(event["event"] == ROUND for event in events)
    why = reasons[-1] if reasons else "it was stopped, or failed; run with --verbose, or see the SuperLink's lines"
    raise FederationStopped(f"the run ended after {done} of {settings.rounds} rounds: {why}")


def _end_group(process: subprocess.Popen[str]) -> None:
    """End a process and what it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _interrupt() -> None:
    raise KeyboardInterrupt
