"""A coordinator's processes as they are deployed, with one member, for measuring them from outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fedmunkey.common.clock import utc_now
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.identities.identity import CA_FILE, CERTIFICATE_FILE, KEY_FILE, certificate_pem
from fedmunkey.common.identities.member_keys import make_key
from fedmunkey.common.private_files import replace_file
from fedmunkey.common.programs.flower import flower_environment
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.members.register import MemberRegister
from fedmunkey.simulations.bench.measured_process import measured_process
from fedmunkey.simulations.bench.memory import resident_memory
from fedmunkey.simulations.programs.free_ports import HOST, free_ports

SITE = "hospital-1"


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
    superlink, control, deletions, joining = (f"{HOST}:{port}" for port in free_ports(4))
    file = folder / "coordinator.toml"
    file.write_text(f'coordinator-dir = "coordinator"\nsuperlink = "{superlink}"\nsuperlink-control = "{control}"\n')
    serve = ["serve", "--coordinator-dir", str(coordinator.path), "--address", deletions, "--joining-address", joining]
    commands = {
        "deletion-service": own_program("fedmunkey.server.cli", *serve),
        "superlink": own_program("fedmunkey.server.superlink.superlink_program", str(file)),
    }
    flower = flower_environment(folder / "flower")
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(measured_process(command, folder / f"{name}.log", flower))
            for name, command in commands.items()
        }
        processes = {name: process for name, (process, _) in started.items()}
        yield RunningCoordinator(superlink, deletions, joining, processes, site)


def _make(coordinator: CoordinatorFolder, identity: Path) -> Identity:
    authority = coordinator.create("benchmark", [HOST])
    identity.mkdir(mode=0o700)
    key = make_key(identity / KEY_FILE)
    certificate = authority.issue(key.public_key(), MemberRole.SITE, SITE, utc_now())
    replace_file(identity / CA_FILE, certificate_pem(authority.certificate))
    replace_file(identity / CERTIFICATE_FILE, certificate_pem(certificate))
    with Ledger(coordinator.ledger) as ledger:
        MemberRegister(ledger.engine).adopt(certificate)
        ledger.register(SITE)
    return Identity.read(identity)


def _sockets(process: int) -> int:
    count = 0
    for opened in Path(f"/proc/{process}/fd").iterdir():
        # One that was closed meanwhile is none.
        with suppress(OSError):
            count += opened.readlink().name.startswith("socket:")
    return count
