"""The deletion service in a process of its own, as it is deployed, for measuring it from outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedmunkey.common.programs.supervision import own_program
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.simulations.bench.measured_process import measured_process
from fedmunkey.simulations.bench.memory import resident_memory


@dataclass(frozen=True)
class RunningService:
    """A service that answers calls at `host:port`, and its process id."""

    address: str
    process: int

    def memory(self) -> int:
        """Return the bytes of memory that it has at the moment."""
        return resident_memory(self.process)


@contextmanager
def running_service(folder: Path, sites: Sequence[str]) -> Iterator[RunningService]:
    """Run `munkey-server serve` while the context lasts, with sites registered before, on a ledger in a folder."""
    ledger = str(folder / "ledger.sqlite")
    with Ledger(ledger) as opened:
        for site in sites:
            opened.register(site)
    words = ["serve", "--database", ledger, "--address", "127.0.0.1:0", "--log-format", "json"]
    words += ["--log-key", str(folder / "log-key.pem")]
    command = own_program("fedmunkey.server.cli", *words)
    with measured_process(command, folder / "service.log") as (process, line):
        yield RunningService(line.removeprefix("deletion service at ").partition(",")[0], process)
