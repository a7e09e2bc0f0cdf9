"""The faces of the consoles as they are deployed, each with a browser that has come in."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from fedmunkey.common.console.serving import LINK_LINE
from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.simulations.bench.consoles.large_federation import EVERYONE, LargeFederation
from fedmunkey.simulations.bench.measured_process import measured_process
from fedmunkey.simulations.bench.memory import resident_memory
from fedmunkey.simulations.programs.free_ports import HOST, free_ports

_PATIENCE_SECONDS = 120.0

EVIDENCE = "evidence"
SCREENS = {
    "requests": "/requests",
    "requests, last page": "/requests?page=2000",
    "requests, by state": "/requests?state=completed&page=3",
    "requests, by site": "/requests?site=site-0007",
    "request": f"/requests/{EVERYONE}",
    EVIDENCE: f"/evidence/{EVERYONE}",
    "sites": "/sites",
    "sites, last page": "/sites?page=20",
    "log": "/log",
    "overview": "/overview",
}
"""What every face shows."""

OPERATORS = {
    "members": "/members",
    "members, last page": "/members?page=20",
    "models": "/models",
    "run": "/models/runs/2026-01-01-run",
    "release": "/models/releases/1",
}
OFFICERS = {"new request": "/new", "countersign": "/countersign", "bundle": "/evidence"}


@dataclass(frozen=True)
class FaceUnderLoad:
    """A face: its screens, a browser with a session, and the process that shows it."""

    name: str
    screens: Mapping[str, str]
    browser: httpx.Client
    process: int

    def memory(self) -> int:
        """Return the bytes of memory that the process has at the moment."""
        return resident_memory(self.process)

    def click(self, path: str) -> float:
        """Ask for a screen; return the seconds until the whole page was there."""
        start = time.perf_counter()
        answer = self.browser.get(path)
        seconds = time.perf_counter() - start
        if answer.status_code != httpx.codes.OK:
            raise FederationStopped(f"{self.name}: {path} was answered with {answer.status_code}")
        return seconds


@contextmanager
def running_faces(federation: LargeFederation, folder: Path) -> Iterator[list[FaceUnderLoad]]:
    """Run the deletion service and both consoles while the context lasts."""
    service, operators, members, officers = (f"{HOST}:{port}" for port in free_ports(4))
    coordinator = str(federation.coordinator.path)
    serve = ["serve", "--coordinator-dir", coordinator, "--address", service]
    of_server = ["console", "--coordinator-dir", coordinator, "--service", service, "--no-browser"]
    of_server += ["--listen", operators, "--members-address", members]
    of_client = ["console", "--as", "officer", "--signing-key", str(federation.officer_key), "--no-browser"]
    of_client += ["--secret", str(federation.secret), "--identity", str(federation.officer.folder)]
    of_client += ["--keys", str(federation.coordinator.trust), "--service", service, "--listen", officers]
    with ExitStack() as stack:
        stack.enter_context(measured_process(own_program("fedmunkey.server.cli", *serve), folder / "serve.log"))
        shown, link = stack.enter_context(_console("server", of_server, folder))
        operator = stack.enter_context(httpx.Client(follow_redirects=True, timeout=_PATIENCE_SECONDS))
        _come_in(operator, link)
        known = _certified(federation.officer)
        base = f"https://{members}"
        member = stack.enter_context(
            httpx.Client(base_url=base, verify=known, follow_redirects=True, timeout=_PATIENCE_SECONDS)
        )
        member.post("/open").raise_for_status()
        own, link = stack.enter_context(_console("client", of_client, folder))
        officer = stack.enter_context(httpx.Client(follow_redirects=True, timeout=_PATIENCE_SECONDS))
        _come_in(officer, link)
        yield [
            FaceUnderLoad("operator", SCREENS | OPERATORS, operator, shown),
            FaceUnderLoad("member", SCREENS, member, shown),
            FaceUnderLoad("officer", SCREENS | OFFICERS, officer, own),
        ]


@contextmanager
def _console(program: str, words: list[str], folder: Path) -> Iterator[tuple[int, str]]:
    """Run a console; give its process and the link that it prints."""
    command = own_program(f"fedmunkey.{program}.cli", *words)
    with measured_process(command, folder / f"{program}-console.log", begins=LINK_LINE) as (process, line):
        yield process, line.removeprefix(LINK_LINE).strip()


def _come_in(browser: httpx.Client, link: str) -> None:
    browser.get(link).raise_for_status()
    browser.base_url = httpx.URL(re.sub(r"/open.*", "", link))


def _certified(identity: Identity) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=identity.ca_file)
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    return context
