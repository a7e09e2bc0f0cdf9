"""A whole run in processes, from image files to deletions and predictions: no patient's or record's id gets out.

Everything that the coordinator keeps or prints, every byte between it and the site, and everything that the site's
programs print is searched for ids in all forms that a careless line of code would give them.
"""

from __future__ import annotations

import asyncio
import base64
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from fedmunkey.simulations.faults.proxy import Proxy
from tests.processes import Running

pytestmark = pytest.mark.processes

SITE = "hospital-1"
PATIENTS = [f"PATIENT-7f3a{number}c51e" for number in range(6)]
RECORDS = [f"RECORD-{number}b08d44f9" for number in range(12)]
STRANGER = "PATIENT-0dd57a9e"
"""Somebody of whom nobody holds anything."""

IDS = (*PATIENTS, *RECORDS, STRANGER)


def texts(identifier: str) -> dict[str, bytes]:
    """Return forms that do not depend on the id's place in a longer text, by what they are."""
    plain = identifier.encode()
    return {
        "text": plain,
        "UTF-16, little endian": identifier.encode("utf-16-le"),
        "UTF-16, big endian": identifier.encode("utf-16-be"),
        "hexadecimal": plain.hex().encode(),
        "hexadecimal, capitals": plain.hex().upper().encode(),
    }


def forms(identifier: str) -> dict[str, bytes]:
    """Return what to look for, by what it is: base64 is found wherever in a longer text the id stands."""
    found = texts(identifier)
    for before in range(3):
        # Characters at the edges also stand for bits of the neighbours.
        whole = base64.b64encode(bytes(before) + identifier.encode())
        found[f"base64 after {before} bytes"] = whole[-(-before * 4 // 3) : len(whole) - len(whole) % 4 - 4]
    return found


def leaks(contents: Iterable[bytes], identifiers: Iterable[str] = IDS) -> set[tuple[str, str]]:
    """Return which ids are in some bytes, and in which form; capitals count as small letters too."""
    everything = b"\0|\0".join(contents)
    small = everything.lower()
    return {
        (identifier, name)
        for identifier in identifiers
        for name, form in forms(identifier).items()
        if form in everything or (not name.startswith("base64") and form.lower() in small)
    }


_SESSION = """
import json, sys
from fedmunkey.{package}.cli import main
codes = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["{program}", *words]
    try:
        main()
    except SystemExit as ended:
        codes.append(ended.code)
print("exit codes", *codes)
"""


def start(folder: Path, program: str, *commands: Iterable[object]) -> Running:
    """Start commands, one after the other as a person types them, in a process that is not ours."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    script = _SESSION.format(program=program, package=program.removeprefix("munkey-"))
    return Running([sys.executable, "-P", "-u", "-c", script, words], folder)


def end(session: Running) -> list[int]:
    """Wait until such a session ends by itself and return each command's exit code."""
    session.end()
    return [int(code) for code in session.expect("exit codes").split()[2:]]


class NotedReader:
    """Notes what is read from a connection."""

    def __init__(self, reader: asyncio.StreamReader, pieces: list[bytes]) -> None:
        self._reader, self._pieces = reader, pieces

    async def read(self, most: int) -> bytes:
        self._pieces.append(await self._reader.read(most))
        return self._pieces[-1]


class Relay(Proxy):
    """A proxy that notes what passes in both directions."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._passed: list[list[bytes]] = []

    @property
    def passed(self) -> list[bytes]:
        """What has passed: each connection's two directions by themselves, so that nothing is cut in two."""
        return [b"".join(list(pieces)) for pieces in self._passed]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._passed.append([])
        await super()._pump(cast(asyncio.StreamReader, NotedReader(reader, self._passed[-1])), writer)


def write_files(folder: Path) -> None:
    """Write images that are called by their patient, who is also in their headers, and a manifest with faults."""
    random = np.random.default_rng(0)
    folder.mkdir()
    with (folder / "scans.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "record_id", "patient_id", "split"])
        for row, record in enumerate(RECORDS[:10]):
            patient = PATIENTS[row // 2]
            text = PngImagePlugin.PngInfo()
            text.add_text("Comment", f"{patient} {record}")
            image = Image.fromarray(random.integers(0, 256, (12, 12), dtype=np.uint8))
            image.save(folder / f"{patient}-{row}.png", pnginfo=text)
            table.writerow([f"{patient}-{row}.png", ("benign", "malignant")[row % 2], record, patient, "train"])
        table.writerow([f"{PATIENTS[5]}.png", "benign", RECORDS[10], PATIENTS[5], "train"])
        table.writerow([f"{PATIENTS[0]}-0.png", PATIENTS[5], RECORDS[11], PATIENTS[5], "train"])
    (folder / f"{STRANGER}.png").write_text(f"no image of {STRANGER}")


@dataclass
class Run:
    """What a run has left behind: in a folder, on the way between site and coordinator, and in what was printed.

    The coordinator's service is still running; the programs whose output is kept by side have ended. What was
    predicted is by itself.
    """

    folder: Path
    relay: Relay
    service: Running
    coordinator: list[bytes]
    site: list[bytes]
    answers: list[bytes]

    def kept(self) -> list[bytes]:
        """Return every file of the coordinator, and all that it has printed."""
        files = [path.read_bytes() for path in (self.folder / "coordinator").rglob("*") if path.is_file()]
        return [*files, *self.coordinator, self.service.output]

    def site_files(self) -> list[bytes]:
        """Return every file of the site's folder."""
        return [path.read_bytes() for path in (self.folder / SITE).rglob("*") if path.is_file()]

    def client(self, *commands: tuple[int, list[object]]) -> None:
        """Run commands of the site, each with the exit code that it must have."""
        self.site.append(self._ran("munkey-client", commands))

    def ask(self, *commands: tuple[int, list[object]]) -> None:
        """Run predictions, which call a file as it was typed."""
        self.answers.append(self._ran("munkey-client", commands))

    def server(self, *commands: tuple[int, list[object]]) -> None:
        """Run commands of the coordinator, each with the exit code that it must have."""
        self.coordinator.append(self._ran("munkey-server", commands))

    def _ran(self, program: str, commands: Iterable[tuple[int, list[object]]]) -> bytes:
        started = start(self.folder, program, *(words for _, words in commands))
        ended = end(started)
        assert ended == [code for code, _ in commands], started.output
        return started.output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A federation of one hospital in which everything has been done once, rightly and wrongly; it is still running."""
    folder = tmp_path_factory.mktemp("federation")
    (folder / "coordinator").mkdir()
    scans, site, secret = folder / "scans", folder / SITE, folder / "federation.secret"
    write_files(scans)
    with ExitStack() as stack:
        ledger = folder / "coordinator" / "ledger.sqlite"
        serve = ["serve", "--ledger", ledger, "--address", "127.0.0.1:0", "--site", SITE]
        service = stack.enter_context(start(folder, "munkey-server", serve))
        names = ["--class", "benign", "--class", "malignant", "--image-shape", "1x12x12"]
        files = ["import", scans / "scans.csv", "--site-dir", site, "--site", SITE, "--secret", secret]
        importing = start(folder, "munkey-client", ["secret", secret], [*files, *names])
        address = service.expect("deletion service at ").removeprefix("deletion service at ").partition(",")[0]
        relay = stack.enter_context(Relay(address))
        # A missing file and an unknown label: both rows are refused, and named by their numbers.
        assert end(importing) == [0, 1], importing.output
        run = Run(folder, relay, service, [], [importing.output], [])
        at = ["--service", relay.address]
        agent = stack.enter_context(
            start(folder, "munkey-client", ["agent", "--site-dir", site, *at, "--insecure-orders"])
        )
        agent.expect("deletion agent of ")

        own = ["--site-dir", site, *at]
        officer = ["--as", "officer", "--secret", secret, *at]
        image = scans / f"{PATIENTS[1]}-2.png"
        run.client(
            (0, ["forget", "--record", RECORDS[0], "--request-id", "one-record", *own]),
            (0, ["forget", "--subject", PATIENTS[2], "--request-id", "a-patient", *officer]),
            (3, ["forget", "--subject", STRANGER, "--request-id", "a-stranger", *officer]),
            (2, ["forget", "--record", RECORDS[11], *own]),
            (2, ["forget", "--subject", PATIENTS[3], "--as", "officer", *at]),
            # What was deleted is refused, beside the rest of the faults.
            (1, files),
            (0, ["status", "--site-dir", site]),
            (0, ["verify-exact", "--site-dir", site]),
        )
        run.ask(
            (0, ["predict", image, "--site-dir", site, "--json"]),
            (1, ["predict", image, scans / f"{STRANGER}.png", "--site-dir", site]),
            (2, ["predict", scans / f"{STRANGER}.png", "--site-dir", site]),
        )
        run.server((0, ["requests", *at]), (0, ["request", "a-patient", "--json", *at]))
        run.site.append(agent.output)
        yield run


def test_no_id_is_in_what_the_coordinator_keeps_or_prints(run: Run) -> None:
    kept = run.kept()

    # Without these, silence would say nothing.
    assert b"a-patient" in b"".join(kept)
    assert b"completed" in b"".join(run.coordinator)
    assert len(b"".join(kept)) > 10_000
    assert leaks(kept) == set()


def test_no_id_is_on_the_wire(run: Run) -> None:
    passed = b"".join(run.relay.passed)

    assert b"a-patient" in passed
    assert b"officer" in passed
    assert leaks(run.relay.passed) == set()


def test_no_id_is_in_what_the_sites_programs_print_or_readable_in_its_files(run: Run) -> None:
    printed, files = b"".join(run.site), run.site_files()

    for words in (b"error: ", b"order 1: ", b"there is no such file", b"was deleted", b"the same, byte for byte"):
        assert words in printed
    assert len(files) >= 3
    assert leaks(run.site) == leaks(files) == set()


def test_prediction_names_the_files_that_were_typed_and_nobody_else(run: Run) -> None:
    answered, error = b"".join(run.answers).split(b"error: ")

    assert {identifier for identifier, _ in leaks([answered])} == {PATIENTS[1], STRANGER}
    assert leaks([error]) == set()


def test_federations_secret_is_not_at_the_coordinator_and_not_on_the_wire(run: Run) -> None:
    secret = (run.folder / "federation.secret").read_text().strip()

    for contents in (run.kept(), run.relay.passed):
        everything = b"".join(contents)
        assert bytes.fromhex(secret) not in everything
        assert secret.encode() not in everything.lower()


def test_planted_leak_is_found_wherever_it_goes(run: Run) -> None:
    # A request may be called as somebody likes; whoever calls it by a patient has told everyone.
    leaky = f"about {PATIENTS[4]}"
    secret = ["--secret", run.folder / "federation.secret", "--service", run.relay.address]
    officer = ["--as", "officer", *secret]
    run.client((3, ["forget", "--subject", STRANGER, "--request-id", leaky, *officer]))

    found = {(PATIENTS[4], "text")}
    assert leaks(run.kept()) == found
    assert leaks(run.relay.passed) == found
    assert leaks(run.site) == found


@pytest.mark.parametrize("name", forms("any"))
@pytest.mark.parametrize("before", ["", "a", "ab"])
def test_id_is_found_in_every_form(name: str, before: str) -> None:
    for text in (f"{before}{PATIENTS[0]}", f"{before}{PATIENTS[0]} and more"):
        content = texts(text).get(name, base64.b64encode(text.encode()))

        assert PATIENTS[0] in {found for found, _ in leaks([b"noise", content, b"noise"])}
