"""A program in a process of its own, as it is deployed, for measuring it from outside."""

from __future__ import annotations

import os
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedmunkey.common.errors import FederationStopped

_END_SECONDS = 30.0


@contextmanager
def measured_process(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, *, begins: str = ""
) -> Iterator[tuple[int, str]]:
    """Run a program while the context lasts, with some environment variables more; give its id and a line.

    That is its first line, or the first that begins in a certain way. What it says on stderr goes into a log. Raises
    `FederationStopped`, with the log, if it ends before it has said that.
    """
    variables = {**os.environ, **(environment or {}), "OMP_NUM_THREADS": "1"}
    with (
        log.open("w") as said,
        subprocess.Popen(  # noqa: S603 (this project's own programs)
            command, env=variables, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True
        ) as process,
    ):
        try:
            assert process.stdout is not None  # noqa: S101
            line = process.stdout.readline()
            while line and not line.startswith(begins):
                line = process.stdout.readline()
            if not line:
                raise FederationStopped(f"{log.name} did not start: {log.read_text()}")
            # What it says later is read as well: whoever writes into a full pipe waits.
            threading.Thread(target=deque, args=(process.stdout, 0), daemon=True).start()
            yield process.pid, line
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
