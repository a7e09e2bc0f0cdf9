"""The federation on Flower's simulation runtime: an own SuperLink, one `flwr run`, one Ray actor for each core.

The apps are this installation's `server.app` and `client.app`; the app folder that `flwr run` is given holds nothing
but the settings. SuperLink, Flower's home and Ray's files live in a folder of their own and are gone afterwards.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx

from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.programs.flower import MANIFEST, app_manifest, flower_environment, flower_program
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.programs.free_ports import free_ports

_START_SECONDS = 180.0
_STOP_SECONDS = 20.0
_GRACE_SECONDS = 2.0
_PAUSE_SECONDS = 0.1


@contextlib.contextmanager
def running_federation(settings: Settings, *, sites: int, cores: int, logs: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a federation of simulated sites, as many at a time as there are cores; Flower's output goes to `logs`.

    The process that is yielded ends when the run does. Raises `FederationStopped` if the SuperLink does not start.
    """
    # Ray's socket paths must fit into 107 characters, so its files cannot lie in the run's folder.
    home = Path(tempfile.mkdtemp(prefix="munkey-"))
    (port,) = free_ports(1)
    environment = _environment(home, port)
    logs.mkdir(parents=True, exist_ok=True)
    app = home / "app"
    app.mkdir()
    (app / MANIFEST).write_text(app_manifest(settings), encoding="utf-8")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        stack.callback(_end_descendants, home)
        superlink_log = stack.enter_context((logs / "superlink.log").open("wb"))
        superlink = _start(_superlink_command(port), environment, superlink_log)
        stack.callback(_stop, superlink)
        _wait_until_healthy(superlink, port, logs)
        federation = f"num-supernodes={sites} client-resources-num-cpus=1 init-args-num-cpus={cores}"
        run_log = stack.enter_context((logs / "run.log").open("wb"))
        command = [flower_program("flwr"), "run", str(app), "local", "--federation-config", federation, "--stream"]
        run = _start(command, environment, run_log)
        stack.callback(_stop, run)
        yield run


def _superlink_command(port: int) -> list[str]:
    options = "--insecure --simulation --isolation subprocess --disable-runtime-dependency-installation"
    return [flower_program("flower-superlink"), *options.split(), "--host", "127.0.0.1", "--port", str(port)]


def _environment(home: Path, port: int) -> dict[str, str]:
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    return {
        **os.environ,
        **flower_environment(home),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(home),
    }


def _start(command: list[str], environment: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 (Flower's own commands)
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process that was started here, and end its group if it does not stop."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end_descendants(home: Path) -> None:
    """Wait for what Ray started in sessions of its own, which ends by itself when Ray is gone; end what does not."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while left := _descendants(home):
        if time.monotonic() > deadline:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        time.sleep(_PAUSE_SECONDS)


def _descendants(home: Path) -> list[int]:
    """Return the processes that have files in this Flower home open; none on a system without /proc.

    What a process was started with does not tell: Ray's processes write their titles over it.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # It may end while we look, or be another user's.
        with contextlib.suppress(OSError):
            if int(process.name) != os.getpid() and any(_lies_in(link, home) for link in (process / "fd").iterdir()):
                found.append(int(process.name))
    return found


def _lies_in(link: Path, home: Path) -> bool:
    return str(link.readlink()).startswith(f"{home}/")


def _wait_until_healthy(superlink: subprocess.Popen[bytes], port: int, logs: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and superlink.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).is_success:
                return
        time.sleep(_PAUSE_SECONDS)
    raise FederationStopped(f"Flower's SuperLink did not start; see {logs / 'superlink.log'}")
