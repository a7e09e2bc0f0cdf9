"""A federation as it is deployed: the deletion service, two agents and a requester, each a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.outcomes import Outcome
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.programs.supervision import own_program
from tests.patience import PATIENCE
from tests.processes import ENVIRONMENT, Running

pytestmark = pytest.mark.processes

SITES = ("hospital-1", "hospital-2")
TRAIN = 12


def command(program: str, *words: object) -> list[str]:
    """Return the words that run one of the programs in a new process."""
    return own_program(f"fedmunkey.{program.removeprefix('munkey-')}.cli", *map(str, words))


def ask(program: str, *words: object, code: int = 0) -> Any:
    """Run a command to its end, which is to have an exit code, and return what its `--json` prints."""
    asked = command(program, *words, "--json")
    ended = subprocess.run(asked, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)  # noqa: S603
    assert ended.returncode == code, ended.stderr
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
        server = self._start("munkey-server", *words)
        line = server.expect("deletion service at ")
        self.address = line.removeprefix("deletion service at ").partition(",")[0]
        return server

    def start_agents(self, *sites: str) -> list[Running]:
        """Start the agents of some sites, side by side."""
        words = [
            ["agent", "--site-dir", self.folder / site, "--service", self.address, "--insecure-orders"]
            for site in sites
        ]
        agents = [self._start("munkey-client", *each) for each in words]
        for agent in agents:
            agent.expect("deletion agent of ")
        return agents

    def _start(self, program: str, *words: object) -> Running:
        return self._processes.enter_context(Running(command(program, *words), self.folder))

    def forget(self, subject: str, *words: object, code: int = 0) -> Any:
        """Ask for a subject to be forgotten, as the data-protection officer."""
        secret = self.folder / "federation.secret"
        officer = ["--as", "officer", "--secret", secret]
        return ask(
            "munkey-client", "forget", "--subject", subject, *officer, "--service", self.address, *words, code=code
        )

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
    told = [(site["site"], site["state"], site["entries"]) for site in status["sites"]]
    assert told == [(site, "erased", 2) for site in SITES]
    assert "patient-1" not in json.dumps(status)
    for site, agent in zip(SITES, agents, strict=True):
        assert "erased, 2 records, 2 entries" in agent.expect("order 1: ")
        assert federation.held(site) == scans(site, *set(range(TRAIN)) - {2, 3})
    for process in (*agents, server):
        process.stop_well()


def test_killed_agent_catches_up_when_it_is_started_again(federation: Federation) -> None:
    first, second = SITES
    server = federation.start_server()
    killed, other = federation.start_agents(*SITES)
    federation.forget("patient-0", "--request-id", "request-1")
    killed.expect("order 1: ")

    killed.kill()
    waiting = federation.forget("patient-1", "--request-id", "request-2", "--wait", 0, code=Outcome.PENDING)
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
        process.stop_well()


def test_restarted_service_has_lost_nothing_and_agents_find_it_again(federation: Federation) -> None:
    server = federation.start_server()
    agents = federation.start_agents(*SITES)
    before = federation.forget("patient-0", "--request-id", "request-1")

    server.stop_well()
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
        process.stop_well()
