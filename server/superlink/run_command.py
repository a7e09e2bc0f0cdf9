"""`munkey-server run`: a training run of the sites that are there, started at the coordinator's own SuperLink."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from fedmunkey.common.errors import FederationStopped, InvalidSetting
from fedmunkey.common.identities import Identity
from fedmunkey.common.identities.card_words import NO_CARD
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.flower import MANIFEST, app_manifest, flower_environment, flower_program
from fedmunkey.common.programs.options import SettingOption
from fedmunkey.common.service.foreign_text import printable
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import given_settings
from fedmunkey.common.stop_signals import stopped_by_signals
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.rounds.run_record import EVENTS, FINISHED, LEFT_OUT, ROUND, STOPPED, WAITING
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile

_CONNECTION = "coordinator"
_STARTED = re.compile(r"Successfully started run (\d+)")
_FRAME = " \n\t╭╮╰╯│─"
"""What Flower draws around its errors."""

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
    hours: Annotated[float, typer.Option(min=0.01, help="Give up after so long.")] = 24.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rounds as JSON when the run has ended.")] = False,
) -> None:
    """Train, on the SuperLink that `munkey-server up` runs, and show each round; weights lie in output-dir.

    The settings are those of the section [run] of the file, and of the federation card: a run that contradicts the
    card, and a run without one, is refused before it begins. Exit code 0 means that all rounds were run.
    Under exact there is one round, which solves for the weights from what the sites hold then.

    Example: munkey-server run coordinator.toml --rounds 10 --set guarantee=exact
    """
    coordinator = CoordinatorFile.read(file)
    identity = Identity.read(coordinator.identity)
    settings = coordinator.run_settings(given_settings(setting, num_rounds=rounds, release_now=now or None))
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
    settings = settings.replace(output_dir=str(Path(settings.output_dir).absolute()))
    events = Path(settings.output_dir) / EVENTS
    # Events of an earlier run must not be taken for this one's.
    events.unlink(missing_ok=True)
    log = sys.stderr if as_json else sys.stdout
    with tempfile.TemporaryDirectory(prefix="munkey-run-") as home:
        command = prepare(Path(home), coordinator.superlink_control, identity.ca_file, settings)
        environment = flower_environment(Path(home))
        started: list[str] = []
        try:
            follow(command, environment, hours * 3600, log, started)
        except (KeyboardInterrupt, FederationStopped):
            # What is shown here would otherwise go on at the SuperLink.
            for number in started:
                follow([flower_program("flwr"), "stop", number, _CONNECTION], environment, _STOPPING_SECONDS, log, [])
            raise
    said = read_events(events)
    if as_json:
        command_line.print_json([event for event in said if event["event"] == ROUND])
    else:
        sys.stdout.writelines(f"{line}\n" for line in summary(said))
    check_finished(said, settings)


def _owes_renewal(coordinator: CoordinatorFile) -> bool:
    with Ledger(coordinator.ledger) as ledger:
        return ledger.renewal_need().entries > 0


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


def follow(command: list[str], environment: dict[str, str], seconds: float, log: Any, started: list[str]) -> None:
    """Run a command of Flower's and show what it prints, until it ends; end all of it at an interruption.

    Numbers of runs that it says it has started are added to `started`. Raises `FederationStopped` if it ends with an
    error or takes longer than some seconds.
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
    last, late = "", threading.Event()

    def end() -> None:
        late.set()
        _end_group(process)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        with stopped_by_signals(_interrupt):
            for line in process.stdout or ():
                last = line.strip(_FRAME) or last
                started += _STARTED.findall(line)
                log.write(f"{printable(line.rstrip())}\n")
                log.flush()
            code = process.wait()
    finally:
        timer.cancel()
        _end_group(process)
        if process.stdout is not None:
            process.stdout.close()
    if late.is_set():
        raise FederationStopped(f"the run was still going after {seconds / 3600:g} h; give it more --hours")
    if code:
        raise FederationStopped(f"the run could not be started or followed: {last}; is munkey-server up running?")


def read_events(events: Path) -> list[dict[str, Any]]:
    """Return what a run has written; nothing if it never began."""
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    return []


def summary(events: list[dict[str, Any]]) -> list[str]:
    """Return a line for each thing that happened in a run."""
    lines = []
    for event in events:
        if event["event"] == ROUND:
            accuracy = event["mean"].get("test-accuracy")
            sites, saying = len(event["sites"]), len(event["evaluation"])
            some = f" at the {saying} that told theirs" if saying < sites else ""
            shown = "" if accuracy is None else f", test accuracy {100 * accuracy:.1f}%{some}"
            if LEFT_OUT in event["mean"]:
                shown = f", left-out accuracy {100 * event['mean'][LEFT_OUT]:.1f}%{shown}"
            failed = "".join(
                printable(f"; {site} did not take part: {reason}") for site, reason in event["failures"].items()
            )
            lines.append(f"round {event['number']}: {sites} sites{shown}{failed}")
        elif event["event"] in (WAITING, STOPPED):
            lines.append(f"{event['event']}: {event['reason']}")
    return lines


def check_finished(events: list[dict[str, Any]], settings: Settings) -> None:
    """Check that a run came to its end; raises `FederationStopped` with the reason that it gave if it did not."""
    if events and events[-1]["event"] == FINISHED:
        return
    reasons = [event["reason"] for event in events if event["event"] == STOPPED]
    done = sum(event["event"] == ROUND for event in events)
    why = reasons[-1] if reasons else "it was stopped, or failed; the lines above and the SuperLink's say more"
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
