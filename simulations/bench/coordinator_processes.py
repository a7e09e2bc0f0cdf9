"""A coordinator's processes as they are deployed, with one member, for measuring them from outside."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.identities.identity import CA_FILE, CERTIFICATE_FILE, KEY_FILE, certificate_pem
from fedmunkey.common.identities.member_keys import make_key
from fedmunkey.common.private_files import replace_file
from fedmunkey.common.programs.flower import flower_environment
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.members.register import MemberRegister
from fedmunkey.simulations.bench.memory import resident_memory

SITE = "hospital-1"
_HOST = "127.0.0.1"
_END_SECONDS = 30.0


@dataclass(frozen=True)
class RunningCoordinator:
    """Where each service answers, the processes by name, and the identity of a site."""

    superlink: str
    deletions: str
    joining: str
    processes: Mapping[str, int]
    site: Identity

    def memory(self) -> dict[str, int]:
        """Return the bytes of memory that each process has at the moment."""
        return {name: resident_memory(process) for name, process in self.processes.items()}

    def connections(self) -> int:
        """Return how many sockets all processes have open."""
        return sum(map(_sockets, self.processes.values()))


@contextmanager
def running_coordinator(folder: Path) -> Iterator[RunningCoordinator]:
    """Run the deletion service and the SuperLink while the context lasts, in a folder that is empty."""
    coordinator = CoordinatorFolder(folder / "coordinator")
    site = _make(coordinator, folder / "identity")
    superlink, control, deletions, joining = (f"{_HOST}:{port}" for port in _free_ports(4))
    file = folder / "coordinator.toml"
    file.write_text(f'coordinator-dir = "coordinator"\nsuperlink = "{superlink}"\nsuperlink-control = "{control}"\n')
    serve = ["serve", "--coordinator-dir", str(coordinator.path), "--address", deletions, "--joining-address", joining]
    commands = {
        "deletion-service": own_program("fedmunkey.server.cli", *serve),
        "superlink": own_program("fedmunkey.server.superlink.superlink_program", str(file)),
    }
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(_process(command, folder, f"{name}.log")) for name, command in commands.items()
        }
        yield RunningCoordinator(superlink, deletions, joining, processes, site)


def _make(coordinator: CoordinatorFolder, identity: Path) -> Identity:
    authority = coordinator.create("benchmark", [_HOST])
    identity.mkdir(mode=0o700)
    key = make_key(identity / KEY_FILE)
    certificate = authority.issue(key.public_key(), MemberRole.SITE, SITE, utc_now())
    replace_file(identity / CA_FILE, certificate_pem(authority.certificate))
    replace_file(identity / CERTIFICATE_FILE, certificate_pem(certificate))
    with Ledger(coordinator.ledger) as ledger:
        MemberRegister(ledger.engine).adopt(certificate)
        ledger.register(SITE)
    return Identity.read(identity)


@contextmanager
def _process(command: list[str], folder: Path, log: str) -> Iterator[int]:
    environment = {**os.environ, **flower_environment(folder / "flower"), "OMP_NUM_THREADS": "1"}
    with (folder / log).open("w") as said:
        process = subprocess.Popen(  # noqa: S603 (this project's own programs)
            command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True
        )
        try:
            assert process.stdout is not None  # noqa: S101
            if not process.stdout.readline():
                raise FederationStopped(f"{log} did not start: {(folder / log).read_text()}")
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _sockets(process: int) -> int:
    count = 0
    for opened in Path(f"/proc/{process}/fd").iterdir():
        # One that was closed meanwhile is none.
        with suppress(OSError):
            count += opened.readlink().name.startswith("socket:")
    return count


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server((_HOST, 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]
