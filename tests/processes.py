"""Programs in processes of their own, whose output, stdout and stderr together, is read as it comes."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from fedmunkey.simulations.deploy_local.terminal import Background
from tests.patience import PATIENCE

ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "default::ResourceWarning"}
_NUMBERS = itertools.count(1)


class Running(Background):
    """A process; at the end of the context it has ended."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        super().__init__(f"process-{next(_NUMBERS)}", list(command), folder, ENVIRONMENT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def output(self) -> bytes:
        """All that it has printed."""
        with self._more:
            return "".join(f"{line}\n" for line in self._lines).encode()

    def end(self) -> int:
        """Wait until it ends by itself, and return its exit code."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def stop_well(self) -> None:
        """End it with SIGTERM, and check that it ends by itself and without an error."""
        self._process.send_signal(signal.SIGTERM)
        assert self.end() == 0, self.output
        assert not [line for line in self._lines if "Traceback" in line or "ResourceWarning" in line]

    def kill(self) -> None:
        """End it with SIGKILL, whatever it is doing."""
        self._process.kill()
        self.end()


def gone(process: int) -> bool:
    """Wait until a process that is not a child of this one has ended; its reaper may take a moment."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        threading.Event().wait(0.01)
    return False
