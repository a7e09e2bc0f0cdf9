"""A federation as it is deployed: the deletion service, two agents and a requester, each a process of its own."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest

from client.dataset import Split
from client.site import SiteFolder
from common.references import FederationSecret

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
SITES = ("hospital-1", "hospital-2")
TRAIN = 12
SECONDS = 60.0
"""The longest that any step may take, on a machine that has much else to do."""


def command(program: str, *words: object) -> list[str]:
    """Return the words that run one of the programs in a new process."""
    package = {"munkey-client": "client", "munkey-server": "server"}[program]
    return [sys.executable, "-c", f"from {package}.cli import main; main()", *map(str, words)]


ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "default::ResourceWarning"}


class Running:
    """A process whose output, stdout and stderr together, is read as it comes."""

    def __init__(self, program: str, *words: object) -> None:
        self._process = subprocess.Popen(  # noqa: S603
            command(program, *words),
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._seen: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def expect(self, text: str) -> str:
        """Return the next line that holds a text."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if line is None:
                raise AssertionError(f"ended without {text!r}: {self._seen}")
            self._seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"no {text!r} within {SECONDS:.0f} s: {self._seen}")

    def stop(self) -> None:
        """End it with SIGTERM, and check that it ends by itself and without an error."""
        self._process.terminate()
        code = self._process.wait(SECONDS)
        self._reader.join()
        while (line := self._lines.get()) is not None:
            self._seen.append(line)
        assert code == 0, self._seen
        assert not [line for line in self._seen if "Traceback" in line or "ResourceWarning" in line]

    def kill(self) -> None:
        """End it with SIGKILL, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)


def ask(program: str, *words: object) -> Any:
    """Run a command to its end and return what its `--json` prints."""
    ended = subprocess.run(  # noqa: S603
        command(program, *words, "--json"),
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the federation's secret and two sites, both of which hold records of the same patients."""
    folder = tmp_path_factory.mktemp("federation")
    FederationSecret.generate().write(folder / "federation.secret")
    random = np.random.default_rng(0)
    for site in SITES:
        np.savez(
            folder / f"{site}.npz",
            train_images=random.integers(0, 256, (TRAIN, 8, 8), dtype=np.uint8),
            train_labels=np.arange(TRAIN) % 2,
            train_ids=np.array([f"{site}-scan-{row}" for row in range(TRAIN)]),
            train_subjects=np.array([f"patient-{row // 2}" for row in range(TRAIN)]),
            test_images=random.integers(0, 256, (2, 8, 8), dtype=np.uint8),
            test_labels=np.arange(2),
            test_ids=np.array([f"{site}-test-{row}" for row in range(2)]),
        )
        data = ["--data", folder / f"{site}.npz", "--secret", folder / "federation.secret"]
        shown = ask("munkey-client", "enrol", "--site-dir", folder / site, "--site", site, *data)
        assert shown["added"] == TRAIN + 2
    return folder


class Federation:
    """A copy of the enrolled sites, and the processes that were started on it."""

    def __init__(self, folder: Path, processes: ExitStack) -> None:
        self.folder = folder
        self.address = "127.0.0.1:0"
        self._processes = processes

    def start_server(self) -> Running:
        """Start the deletion service, where it was before if it was."""
        sites = [word for site in SITES for word in ("--site", site)]
        ledger = self.folder / "ledger.sqlite"
        words = ["serve", "--ledger", ledger, "--address", self.address, *sites]
        server = self._processes.enter_context(Running("munkey-server", *words))
        line = server.expect("deletion service at ")
        self.address = line.removeprefix("deletion service at ").partition(",")[0]
        return server

    def start_agents(self, *sites: str) -> list[Running]:
        """Start the agents of some sites, side by side."""
        words = [["agent", "--site-dir", self.folder / site, "--service", self.address] for site in sites]
        agents = [self._processes.enter_context(Running("munkey-client", *each)) for each in words]
        for agent in agents:
            agent.expect("deletion agent of ")
        return agents

    def forget(self, subject: str, *words: object) -> Any:
        """Ask for a subject to be forgotten, as the data-protection officer."""
        secret = self.folder / "federation.secret"
        officer = ["--requester", "data-protection-officer", "--secret", secret]
        return ask("munkey-client", "forget", "--subject", subject, *officer, "--service", self.address, *words)

    def request(self, request_id: str) -> Any:
        """Return what the deletion service says of a request."""
        return ask("munkey-server", "request", request_id, "--service", self.address)

    def held(self, site: str) -> set[str]:
        """Return the training records that a site's key store still holds."""
        names = [f"{site}-scan-{row}" for row in range(TRAIN)]
        secret = FederationSecret.read(self.folder / "federation.secret")
        with SiteFolder(self.folder / site).open() as store:
            held = {name for name in names if store.records.holds(secret.reference(name))}
            assert store.records.count(Split.TRAIN) == len(held)
        return held

    def orders(self, site: str) -> list[tuple[int, str, int]]:
        """Return number, request and records of each order that a site has applied."""
        with SiteFolder(self.folder / site).open() as store:
            return [(answer.number, answer.request_id, answer.records) for answer in store.orders.read_answers()]


@pytest.fixture
def federation(enrolled: Path, tmp_path: Path) -> Iterator[Federation]:
    with ExitStack() as processes:
        yield Federation(Path(shutil.copytree(enrolled, tmp_path / "federation")), processes)


def scans(site: str, *rows: int) -> set[str]:
    return {f"{site}-scan-{row}" for row in rows}


def test_subject_is_forgotten_wherever_its_records_are(federation: Federation) -> None:
    server = federation.start_server()
    agents = federation.start_agents(*SITES)

    shown = federation.forget("patient-1", "--request-id", "request-1")
    status = federation.request("request-1")

    assert (shown["state"], shown["records"]) == ("completed", 4)
    assert shown["remains"]
    assert (status["state"], status["guarantee"]) == ("completed", "exact")
    assert [(site["site"], site["state"], site["entries"]) for site in status["sites"]] == [
        (site, "erased", 2) for site in SITES
    ]
    assert "patient-1" not in json.dumps(status)
    for site, agent in zip(SITES, agents, strict=True):
        assert "erased, 2 records, 2 entries" in agent.expect("order 1: ")
        assert federation.held(site) == scans(site, *set(range(TRAIN)) - {2, 3})
    for process in (*agents, server):
        process.stop()


def test_killed_agent_catches_up_when_it_is_started_again(federation: Federation) -> None:
    first, second = SITES
    server = federation.start_server()
    killed, other = federation.start_agents(*SITES)
    federation.forget("patient-0", "--request-id", "request-1")
    killed.expect("order 1: ")

    killed.kill()
    waiting = federation.forget("patient-1", "--request-id", "request-2", "--wait", 0)
    other.expect("order 2: ")
    in_between = federation.request("request-2")
    (restarted,) = federation.start_agents(first)
    line = restarted.expect("order 2: ")
    again = federation.forget("patient-1", "--request-id", "request-2")

    assert waiting["state"] == "dispatched"
    assert [site["state"] for site in in_between["sites"]] == ["pending", "erased"]
    assert "erased, 2 records, 2 entries" in line
    assert again["state"] == "completed"
    for site in (first, second):
        assert federation.orders(site) == [(1, "request-1", 2), (2, "request-2", 2)]
        assert federation.held(site) == scans(site, *range(4, TRAIN))
    for process in (restarted, other, server):
        process.stop()


def test_restarted_service_has_lost_nothing_and_agents_find_it_again(federation: Federation) -> None:
    server = federation.start_server()
    agents = federation.start_agents(*SITES)
    before = federation.forget("patient-0", "--request-id", "request-1")

    server.stop()
    for agent in agents:
        agent.expect("trying again")
    server = federation.start_server()
    after = federation.forget("patient-1", "--request-id", "request-2")

    before.pop("remains")
    assert federation.request("request-1") == before
    assert after["state"] == "completed"
    for site in SITES:
        assert federation.orders(site) == [(1, "request-1", 2), (2, "request-2", 2)]
    for process in (*agents, server):
        process.stop()
