"""A simulation that is ended at any moment leaves nothing behind: `make moments` tries twenty, the other tests two."""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulations.whole_runs import RUN_SECONDS, started, wait_for

MOMENTS = int(os.environ.get("MUNKEY_MOMENTS", "2"))
SEED = int(os.environ.get("MUNKEY_MOMENTS_SEED", str(time.time_ns() % 10**6)))
GONE_SECONDS = 10.0
SHARED_MEMORY = Path("/dev") / "shm"
ENDINGS = (signal.SIGTERM, signal.SIGKILL)


@pytest.mark.flower
@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_run_that_is_ended_at_a_random_moment_leaves_nothing_behind(
    moment: int, tmp_path: Path, marked_processes: Callable[[str], list[str]]
) -> None:
    how, mark = ENDINGS[moment % len(ENDINGS)], uuid.uuid4().hex
    drawn = random.Random(f"{SEED} {moment}")
    words = ["--hospitals", "4", "--no-baselines", "--delete", "records:5%@2", "--output", str(tmp_path / "run")]
    shared_memory = set(SHARED_MEMORY.iterdir())
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        temporary = Path(folder)

        def is_clean() -> bool:
            """Return whether no process, folder or shared memory of the run is there."""
            left = set(SHARED_MEMORY.iterdir()) - shared_memory
            return not marked_processes(mark) and not list(temporary.iterdir()) and not _of_ray(left)

        with started(*words, mark=mark, temporary=temporary) as run:
            # A third of them before Flower is there, which takes longest to end.
            if drawn.random() < 2 / 3:
                wait_for(lambda: list(temporary.iterdir()) or run.poll() is not None, RUN_SECONDS)
            time.sleep(drawn.uniform(0, 25))
            had = len(marked_processes(mark))
            run.send_signal(how)
            ended = time.monotonic()
            clean = wait_for(is_clean, GONE_SECONDS)
            seconds = time.monotonic() - ended
            run.wait(RUN_SECONDS)
        left = [*marked_processes(mark), *map(str, temporary.iterdir())]
    sys.stdout.write(f"seed {SEED}, moment {moment}: {how.name}, {had} processes, gone in {seconds:.1f} s\n")
    assert clean, left


def _of_ray(files: set[Path]) -> list[Path]:
    """Return files of shared memory that Ray makes; other programs of the machine make others."""
    return [file for file in files if file.name.startswith(("plasma", "ray"))]
