"""The whole way of a deployment: enrol, join, train, predict, forget, prove; and who is turned away."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from fedmunkey.client.records.dataset import Dataset
from fedmunkey.common.clock import utc_now
from fedmunkey.simulations.deploy_local.hospital_files import (
    HOSPITALS,
    MANIFEST,
    PATIENT,
    write_hospital_files,
)
from fedmunkey.simulations.deploy_local.terminal import Background, StepFailed, Terminal
from fedmunkey.simulations.programs.free_ports import free_ports

OFFICER = "officer"


@dataclass(frozen=True)
class Addresses:
    """Where everything listens, on loopback."""

    superlink: str
    control: str
    deletions: str
    joining: str
    metrics: str
    runtimes: tuple[str, ...]

    @classmethod
    def free(cls) -> Addresses:
        """Return addresses that are free at this moment."""
        first, second, third, fourth, fifth, *others = [f"127.0.0.1:{port}" for port in free_ports(5 + len(HOSPITALS))]
        return cls(first, second, third, fourth, fifth, tuple(others))


class Walkthrough:
    """One deployment, with real images."""

    def __init__(self, terminal: Terminal, data: Dataset) -> None:
        self._terminal = terminal
        self._at = Addresses.free()
        self._files = write_hospital_files(data, terminal.folder)
        self._request = str(uuid.uuid4())

    def run(self) -> dict[str, Any]:
        """Go the whole way and return what was found; raises `StepFailed` at the first thing that does not hold."""
        self._make_coordinator()
        coordinator = self._terminal.start("coordinator", "munkey-server", "up", "coordinator.toml")
        coordinator.expect("coordinator is up")
        self._join()
        self._take_in_records()
        sites = self._start_sites(coordinator)
        accuracy = self._train()
        self._agree_anew()
        self._restart_an_agent(sites[1])
        self._forget()
        renewed = self._renew()
        self._certify()
        self._turn_away(coordinator)
        self._terminal.say("stop everything")
        return {
            "accuracy": accuracy,
            "request": self._request,
            "records": self._files.records,
            "renewed_seconds": round(renewed, 1),
        }

    def _make_coordinator(self) -> None:
        terminal, at = self._terminal, self._at
        terminal.say("coordinator: make the federation, say who may ask for deletions, start everything from one file")
        terminal.type("munkey-server", "init", "--host", "127.0.0.1", "--coordinator-dir", "coordinator")
        terminal.type("munkey-client", "signing-keys", "new", "officer.pem")
        trust = ["--role", "officer", "--in", "coordinator"]
        terminal.type("munkey-server", "trust", "add", OFFICER, "officer.pub", *trust)
        terminal.say("coordinator: the federation card, what all members must agree on, signed by the authority")
        agreed = [*self._classes(), "--image-shape", self._files.shape]
        terminal.type("munkey-server", "card", "make", *agreed, "--coordinator-dir", "coordinator")
        self._write("coordinator.toml", coordinator_file(at))
        terminal.type("munkey-server", "up", "coordinator.toml", "--check")

    def _join(self) -> None:
        terminal, at = self._terminal, self._at
        terminal.say("invite three hospitals and the data-protection officer; each joins with its invitation")
        for name, role in [*((hospital, "site") for hospital in HOSPITALS), (OFFICER, "officer")]:
            where = ["--coordinator-dir", "coordinator", "--joining-address", at.joining]
            terminal.type("munkey-server", "invite", name, "--role", role, *where, "--output", f"{name}.json")
            folder = ["--site-dir", name] if role == "site" else ["--identity", name]
            terminal.type("munkey-client", "join", f"{name}.json", *folder)
        terminal.type("munkey-server", "members", "--coordinator-dir", "coordinator")
        terminal.say("each hospital trusts the officer's key; keys.json is what certificates are checked with")
        for hospital in HOSPITALS:
            trust = ["--role", "officer", "--in", hospital]
            terminal.type("munkey-client", "trust", "add", OFFICER, "officer.pub", *trust)

    def _take_in_records(self) -> None:
        terminal = self._terminal
        terminal.say("hospitals: one secret for all of them, and each takes in its own real images")
        terminal.type("munkey-client", "secret", "federation.secret")
        own = ["--secret", "federation.secret"]
        first, *others = HOSPITALS
        taken = ["munkey-client", "import", f"{first}-files/{MANIFEST}", "--site-dir", first, "--site", first, *own]
        terminal.say("what is not as the federation card says is refused: here, classes in another order")
        terminal.type(*taken, *self._classes(turned=True), refused=True)
        terminal.type(*taken)
        for hospital in others:
            where = ["--site-dir", hospital, "--site", hospital, "--data", f"{hospital}-files/records.npz"]
            terminal.type("munkey-client", "enrol", *where, "--secret", "federation.secret")

    def _start_sites(self, coordinator: Background) -> list[Background]:
        terminal = self._terminal
        terminal.say("hospitals: start everything from one file")
        for hospital, runtime in zip(HOSPITALS, self._at.runtimes, strict=True):
            self._write(f"{hospital}.toml", site_file(hospital, self._at, runtime))
        terminal.type("munkey-client", "up", f"{HOSPITALS[0]}.toml", "--check")
        sites = [terminal.start(hospital, "munkey-client", "up", f"{hospital}.toml") for hospital in HOSPITALS]
        for hospital, site in zip(HOSPITALS, sites, strict=True):
            site.expect(f"site {hospital} is up")
            site.expect("SuperNode ID")
            coordinator.expect(f"SuperNode of {hospital} is registered")
        return sites

    def _classes(self, *, turned: bool = False) -> list[str]:
        names = self._files.class_names
        return [word for name in (reversed(names) if turned else names) for word in ("--class", name)]

    def _train(self) -> float:
        terminal = self._terminal
        terminal.say("a run that contradicts the federation card does not begin")
        terminal.type("munkey-server", "run", "coordinator.toml", "--set", "encoder-mirror=false", refused=True)
        terminal.say("coordinator: solve for shared weights in one round, over TLS; hospitals' sums are masked")
        rounds = json.loads(terminal.type("munkey-server", "run", "coordinator.toml", "--json"))
        self._check_round(rounds)
        accuracy = float(rounds[-1]["mean"]["test-accuracy"])
        terminal.say("a hospital asks its own memory bank, with the weights that it took over from the run")
        terminal.type("munkey-client", "predict", self._files.picture, "--site-dir", HOSPITALS[0])
        return accuracy

    def _agree_anew(self) -> None:
        terminal, at = self._terminal, self._at
        terminal.say("another version of the card is a decision of every site: until it accepts, rounds leave it out")
        why = ["--set", "renew-within=5", "--reason", "weights are to be renewed within five days"]
        terminal.type("munkey-server", "card", "make", *why, "--coordinator-dir", "coordinator")
        terminal.type("munkey-server", "run", "coordinator.toml", refused=True)
        for hospital in HOSPITALS:
            terminal.type("munkey-client", "card", "accept", "--site-dir", hospital, "--service", at.deletions)

    def _check_round(self, rounds: list[dict[str, Any]]) -> None:
        self._terminal.check(
            f"one round was run, by all {len(HOSPITALS)} hospitals",
            lambda: [len(each["sites"]) for each in rounds] == [len(HOSPITALS)],
        )

    def _restart_an_agent(self, site: Background) -> None:
        started = re.search(r"agent: started as process (\d+)", site.expect("agent: started as process"))
        if started is None:
            raise StepFailed("the log does not say which process the agent is")
        self._terminal.say("a deletion agent dies; it is started again by itself")
        os.kill(int(started[1]), signal.SIGKILL)
        self._terminal.check(f"kill -9 {started[1]}", lambda: "SIGKILL" in site.expect("agent: was ended by SIGKILL"))

    def _forget(self) -> None:
        terminal, at = self._terminal, self._at
        terminal.say("the officer asks for a patient of two hospitals to be forgotten, and waits for all three answers")
        asked = [
            "--as",
            OFFICER,
            "--signing-key",
            "officer.pem",
            "--identity",
            OFFICER,
            "--secret",
            "federation.secret",
        ]
        (terminal.folder / "patient.txt").write_text(f"{PATIENT}\n", encoding="utf-8")
        what = ["--subject-file", "patient.txt", "--request-id", self._request, "--service", at.deletions]
        terminal.type("munkey-client", "forget", *asked, *what, "--wait", 120)
        status = self._status()
        terminal.check(
            f"erased: all {self._files.records} records of the patient, weights to be renewed, guarantee exact",
            lambda: (
                (status["state"], status["records"], status["guarantee"]) == ("erased", self._files.records, "exact")
            ),
        )

    def _renew(self) -> float:
        """Return how many seconds after the last hospital's answer the command that renews weights had ended."""
        terminal = self._terminal
        terminal.say("the coordinator renews the shared weights, although one patient is few; then all is completed")
        rounds = json.loads(terminal.type("munkey-server", "run", "coordinator.toml", "--renew", "--now", "--json"))
        ended = utc_now()
        self._check_round(rounds)
        status = self._status()
        terminal.check("completed: no weights hold anything of the patient", lambda: status["state"] == "completed")
        return (
            ended - max(datetime.fromisoformat(site["acknowledged_at"]) for site in status["sites"])
        ).total_seconds()

    def _status(self) -> dict[str, Any]:
        shown = ["--service", self._at.deletions, "--coordinator-dir", "coordinator", "--json"]
        found: dict[str, Any] = json.loads(self._terminal.type("munkey-server", "request", self._request, *shown))
        return found

    def _certify(self) -> None:
        terminal, at = self._terminal, self._at
        terminal.say("the certificate, checked with the public keys alone")
        self._collect_keys()
        about = ["--keys", "keys.json", "--identity", OFFICER, "--service", at.deletions]
        terminal.type("munkey-client", "certificate", self._request, "--output", "certificate.json", *about)
        whom = ["--secret", "federation.secret", "--subject-file", "patient.txt"]
        terminal.type("munkey-client", "verify", "certificate.json", "--keys", "keys.json", *whom)
        terminal.type(
            "python", "-m", "fedmunkey.common.proofs.verify_certificate", "certificate.json", "--keys", "keys.json"
        )
        terminal.say("no file of the hospitals that held the patient has a byte of what was deleted")
        for hospital in HOSPITALS[:2]:
            terminal.type("munkey-client", "verify-erasure", 1, "--site-dir", hospital)

    def _collect_keys(self) -> None:
        self._terminal.type(
            "munkey-client", "trust", "add", OFFICER, "officer.pub", "--role", "officer", "--in", "keys.json"
        )
        log = ["coordinator/log-key.pub", "--role", "log", "--in", "keys.json"]
        self._terminal.type("munkey-client", "trust", "add", "log", *log)
        for hospital in HOSPITALS:
            site = [f"{hospital}/site-key.pub", "--role", "site", "--in", "keys.json"]
            self._terminal.type("munkey-client", "trust", "add", hospital, *site)

    def _turn_away(self, coordinator: Background) -> None:
        terminal, at = self._terminal, self._at
        terminal.say("who is turned away: plain text, a stranger, and whoever wants to start runs from outside")
        # Elsewhere, for beside the coordinator's file of settings it would act as the coordinator.
        terminal.type("munkey-server", "requests", "--service", at.deletions, refused=True, inside="elsewhere")
        terminal.type("munkey-server", "init", "--host", "127.0.0.1", "--coordinator-dir", "stranger")
        stranger = ["--service", at.deletions, "--coordinator-dir", "stranger"]
        terminal.type("munkey-server", "requests", *stranger, refused=True)
        trusted = ssl.create_default_context(cafile=terminal.folder / "coordinator/identity/ca.pem")
        terminal.check(f"http://{at.superlink} does not answer in plain text", lambda: not _answers(at.superlink))
        terminal.check(
            f"https://{at.superlink}/health answers", lambda: _status("GET", at.superlink, "/health", trusted) == 200
        )
        terminal.check(
            f"https://{at.superlink}/v1/control/start-run is not there",
            lambda: _status("POST", at.superlink, "/v1/control/start-run", trusted) == 404,
        )
        terminal.say("a hospital is shut out: its certificate and its SuperNode are refused within seconds")
        last = HOSPITALS[-1]
        reason = ["--reason", "its server was stolen", "--coordinator-dir", "coordinator"]
        terminal.type("munkey-server", "revoke", last, *reason)
        coordinator.expect(f"SuperNode of {last} is unregistered")
        own = ["--site-dir", last, "--service", at.deletions, "--patience", 0]
        terminal.type("munkey-client", "catch-up", *own, refused=True)

    def _write(self, name: str, text: str) -> None:
        (self._terminal.folder / name).write_text(text, encoding="utf-8")
        self._terminal.say(f"{name}:\n{text.rstrip()}")


def coordinator_file(at: Addresses) -> str:
    """Return what `coordinator.toml` says."""
    return f"""coordinator-dir = "coordinator"
superlink = "{at.superlink}"
superlink-control = "{at.control}"
deletion-service = "{at.deletions}"
joining = "{at.joining}"
metrics = "{at.metrics}"

[run]
min-sites = {len(HOSPITALS)}
"""


def site_file(hospital: str, at: Addresses, runtime: str) -> str:
    """Return what `site.toml` says."""
    return f"""site-dir = "{hospital}"
superlink = "{at.superlink}"
deletion-service = "{at.deletions}"
runtime = "{runtime}"
evaluation = "counts"
fewest-evaluated = 40
"""


def _status(method: str, address: str, path: str, trusted: ssl.SSLContext) -> int:
    return httpx.request(method, f"https://{address}{path}", verify=trusted, timeout=30).status_code


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/health", timeout=30).is_success
    except httpx.TransportError:
        return False
