"""Supervision of real, small processes."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import pytest

from fedmunkey.common.errors import ProcessNotStarted
from fedmunkey.common.programs.supervision import Child, Supervisor, own_program, tell_systemd_ready
from fedmunkey.common.stop_signals import stopped_by_signals
from tests.patience import PATIENCE
from tests.processes import gone

ROOT = Path(__file__).parents[3]

SERVE = (
    "import signal; asked = [signal.SIGTERM]; signal.pthread_sigmask(signal.SIG_BLOCK, asked);"
    "print('serving', flush=True); signal.sigwait(asked); print('bye', flush=True)"
)


def child(name: str, program: str = SERVE, *words: str) -> Child:
    return Child(name, [sys.executable, "-S", "-c", program, *words], "serving")


class Watched:
    """A supervisor in a thread, and the lines of its children as they come."""

    def __init__(self, *children: Child, start_seconds: float = PATIENCE, grace_seconds: float = PATIENCE) -> None:
        self.said: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self.ready = threading.Event()
        self.error: Exception | None = None
        self.supervisor = Supervisor(
            children,
            say=lambda name, line: self.said.put((name, line)),
            start_seconds=start_seconds,
            grace_seconds=grace_seconds,
            on_ready=self.ready.set,
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run()
        except ProcessNotStarted as error:
            self.error = error

    def ended(self) -> bool:
        self._thread.join(PATIENCE)
        return not self._thread.is_alive()

    def stop(self) -> None:
        self.supervisor.stop()
        assert self.ended()


@pytest.fixture
def watch() -> Iterator[Callable[..., Watched]]:
    with ExitStack() as stack:

        def begin(*children: Child, **seconds: float) -> Watched:
            watched = Watched(*children, **seconds)
            stack.callback(watched.stop)
            return watched

        yield begin


def test_children_start_in_order_and_stop_in_reverse(watch: Callable[..., Watched]) -> None:
    watched = watch(child("first"), child("second"))

    assert watched.ready.wait(PATIENCE)
    watched.stop()

    said = [watched.said.get(timeout=PATIENCE) for _ in range(4)]
    assert said == [("first", "serving"), ("second", "serving"), ("second", "bye"), ("first", "bye")]


def test_child_that_dies_is_started_again(watch: Callable[..., Watched], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fedmunkey.common.programs.supervision")
    watched = watch(child("service", f"import os; print(os.getpid(), flush=True); {SERVE}"))
    assert watched.ready.wait(PATIENCE)
    first = int(watched.said.get(timeout=PATIENCE)[1])
    assert watched.said.get(timeout=PATIENCE) == ("service", "serving")

    os.kill(first, signal.SIGKILL)

    second = int(watched.said.get(timeout=PATIENCE)[1])
    assert second != first
    assert watched.said.get(timeout=PATIENCE) == ("service", "serving")
    watched.stop()
    lines = [record.getMessage().partition(" as process")[0] for record in caplog.records]
    assert [line.split(" after ")[0] for line in lines] == [
        "service: started",
        "service: serves",
        "service: was ended by SIGKILL",
        "service: started",
        "service: serves",
        "service: stopped",
    ]


def test_first_start_that_fails_stops_all_and_says_why(watch: Callable[..., Watched]) -> None:
    broken = child("broken", "import sys; print('error: no such ledger', flush=True); sys.exit(2)")
    watched = watch(child("service"), broken, child("never"))

    assert watched.ended()

    assert str(watched.error) == "broken did not start, it ended with code 2: error: no such ledger"
    said = [watched.said.get(timeout=PATIENCE) for _ in range(3)]
    assert said == [("service", "serving"), ("broken", "error: no such ledger"), ("service", "bye")]
    assert not watched.ready.is_set()


def test_child_that_never_serves_is_given_up(watch: Callable[..., Watched]) -> None:
    watched = watch(child("silent", "import signal; signal.pause()"), start_seconds=0.2)

    assert watched.ended()

    assert "silent did not start" in str(watched.error)
    assert "it did not serve within 0 s" in str(watched.error)


def test_program_that_is_not_there_is_named(watch: Callable[..., Watched]) -> None:
    watched = watch(Child("service", ["/nowhere/munkey"], "serving"))

    assert watched.ended()

    assert str(watched.error).startswith("service cannot be started: ")


def test_child_that_does_not_stop_is_killed_with_what_it_started(watch: Callable[..., Watched]) -> None:
    stubborn = (
        "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "inner = subprocess.Popen([sys.executable, '-S', '-c', 'import signal; signal.pause()']);"
        "print(inner.pid, flush=True); print('serving', flush=True); signal.pause()"
    )
    watched = watch(child("stubborn", stubborn), grace_seconds=0.1)
    assert watched.ready.wait(PATIENCE)
    inner = int(watched.said.get(timeout=PATIENCE)[1])

    watched.stop()

    assert gone(inner)


def test_signals_stop_it_and_get_their_handlers_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    asked: SimpleQueue[None] = SimpleQueue()

    with stopped_by_signals(lambda: asked.put(None)):
        os.kill(os.getpid(), signal.SIGTERM)
        asked.get(timeout=PATIENCE)

    assert signal.getsignal(signal.SIGTERM) == before


def test_systemd_is_told_once_all_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("notify")
        listening.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", "notify")

        tell_systemd_ready()

        assert listening.recv(100) == b"READY=1"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("module", "words"), [("fedmunkey.client.cli", ["--help"]), ("fedmunkey.server.cli", ["--help"])]
)
def test_module_in_the_working_directory_is_never_run(tmp_path: Path, module: str, words: list[str]) -> None:
    for name in ("client", "common", "fedmunkey", "protos", "server", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the working directory was run')\n")

    ended = subprocess.run(own_program(module, *words), cwd=tmp_path, capture_output=True, text=True)  # noqa: S603

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Usage" in ended.stdout


def test_every_child_of_this_interpreter_is_started_without_the_working_directory() -> None:
    roots = [ROOT / name for name in ("client", "common", "server", "simulations")]
    lines = [line for root in roots for path in root.rglob("*.py") for line in path.read_text().splitlines()]

    assert [line for line in lines if "[sys.executable" in line and '[sys.executable, "-P"' not in line] == []
