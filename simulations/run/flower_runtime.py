"""The federation on Flower's simulation runtime: an own SuperLink, one `flwr run`, one Ray actor for each core.

The apps are this installation's `server.app` and `client.app`; the app folder that `flwr run` is given holds nothing
but the settings. SuperLink, Flower's home and Ray's files live in a folder of their own and are gone afterwards.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx

from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.programs.bound_program import bound_command
from fedmunkey.common.programs.flower import APPS, MANIFEST, app_manifest, flower_environment, flower_program
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.programs.free_ports import free_ports

_START_SECONDS = 180.0
_PAUSE_SECONDS = 0.1
_APP = "app"
RAY_ADDRESS = "RAY_ADDRESS"
"""The variable by which Ray finds a cluster."""


@contextlib.contextmanager
def running_federation(
    settings: Settings, *, sites: int, cores: int, logs: Path, ray_address: str = "", apps: tuple[str, str] = APPS
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a federation of simulated sites, as many at a time as there are cores; Flower's output goes to `logs`.

    The coordinator's app and a site's may be others than this project's. With an address, sites are on the nodes of the
    Ray cluster that has it, as many at a time as that has cores.

    The process that is yielded ends when the run does. Whatever is started here ends with the context, and with this
    process. Raises `FederationStopped` if the SuperLink does not start.
    """
    # Ray's socket paths must fit into 107 characters, so its files cannot lie in the run's folder.
    home = Path(tempfile.gettempdir()) / f"munkey-{secrets.token_hex(4)}"
    (port,) = free_ports(1)
    environment = _environment(home, ray_address)
    logs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        superlink_log = stack.enter_context((logs / "superlink.log").open("wb"))
        superlink = _start(bound_command(_superlink_command(port), folder=home), environment, superlink_log)
        stack.callback(_end, superlink)
        _wait_until_healthy(superlink, port, logs)
        _write_files(home, port, settings, apps)
        federation = f"num-supernodes={sites} client-resources-num-cpus=1"
        if not ray_address:
            # A cluster has its own.
            federation += f" init-args-num-cpus={cores}"
        run_log = stack.enter_context((logs / "run.log").open("wb"))
        command = [flower_program("flwr"), "run", str(home / _APP), "local", "--federation-config", federation]
        run = _start(bound_command([*command, "--stream"], within=home), environment, run_log)
        stack.callback(_end, run)
        yield run


def _superlink_command(port: int) -> list[str]:
    options = "--insecure --simulation --isolation subprocess --disable-runtime-dependency-installation"
    return [flower_program("flower-superlink"), *options.split(), "--host", "127.0.0.1", "--port", str(port)]


def _write_files(home: Path, port: int, settings: Settings, apps: tuple[str, str]) -> None:
    """Write what `flwr run` reads: where the SuperLink is, and the app."""
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    app = home / _APP
    app.mkdir()
    (app / MANIFEST).write_text(app_manifest(settings, apps=apps), encoding="utf-8")


def _environment(home: Path, ray_address: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if name != RAY_ADDRESS},
        **({RAY_ADDRESS: ray_address} if ray_address else {}),
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


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that was started here, with all that it has started: nothing of theirs is kept."""
    process.terminate()
    process.wait()


def _wait_until_healthy(superlink: subprocess.Popen[bytes], port: int, logs: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and superlink.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).is_success:
                return
        time.sleep(_PAUSE_SECONDS)
    raise FederationStopped(f"Flower's SuperLink did not start; see {logs / 'superlink.log'}")
