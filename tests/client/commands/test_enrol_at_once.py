"""Two processes that enrol into one folder at the same moment: one makes the key store, and no record is lost."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from tests.processes import ENVIRONMENT

pytestmark = pytest.mark.processes

ROUNDS, ROWS = 4, 6
# What takes seconds to import is imported before they are let go.
PROGRAM = """
import sys
from fedmunkey.client.cli import main
import fedmunkey.client.commands.enrol, fedmunkey.common.model.encoders, fedmunkey.client.learning.neighbour_index
print("ready", flush=True)
for line in sys.stdin:
    sys.argv = ["munkey-client", *line.rstrip("\\n").split("\\t")]
    try:
        code = main()
    except SystemExit as ended:
        code = ended.code
    print(f"ended {code or 0}", flush=True)
"""


class Enrolling:
    """A process that enrols whenever it is told to."""

    def __init__(self, stack: ExitStack, log: Path) -> None:
        self._log = log
        self._process = stack.enter_context(
            subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", PROGRAM],
                env=ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(log.open("wb")),
                text=True,
                bufsize=1,
            )
        )
        stack.callback(self._process.kill)

    def start(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\t".join(map(str, words)) + "\n")

    def wait(self, said: str) -> str:
        """Return the first line that begins so."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(said):
                return line.strip()
        raise AssertionError(self._log.read_text())


@pytest.fixture
def data(tmp_path: Path) -> list[Path]:
    """Two files with the same patients, some of whose records are in both."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3 * ROWS, 8, 8), dtype=np.uint8)
    paths = []
    for number, first in enumerate((0, ROWS)):
        rows = range(first, first + 2 * ROWS)
        paths.append(tmp_path / f"{number}.npz")
        np.savez(
            paths[-1],
            train_images=images[first : first + 2 * ROWS],
            train_labels=np.array(rows) % 2,
            train_ids=np.array([f"scan-{row}" for row in rows]),
            train_subjects=np.array([f"patient-{row}" for row in rows]),
            test_images=np.array([np.full((8, 8), 200 + number, np.uint8)]),
            test_labels=np.zeros(1, dtype=np.int64),
            test_ids=np.array([f"test-{number}"]),
        )
    return paths


def test_two_enrolments_at_once_lose_nothing(tmp_path: Path, data: list[Path]) -> None:
    secret = FederationSecret.generate()
    secret_file = tmp_path / "federation.secret"
    secret.write(secret_file)
    with ExitStack() as stack:
        both = [Enrolling(stack, tmp_path / f"log-{number}") for number in range(2)]
        for process in both:
            process.wait("ready")
        for turn in range(ROUNDS):
            folder = SiteFolder(tmp_path / f"site-{turn}")
            words = [
                "enrol",
                "--site-dir",
                folder.path,
                "--site",
                "hospital-1",
                "--secret",
                tmp_path / "federation.secret",
            ]
            # What an earlier store left is taken over by one of them only.
            before = turn % 2 == 1
            if before:
                both[0].start(*words, "--data", data[0])
                assert both[0].wait("ended") == "ended 0"
                for name in ("keystore.sqlite", "keystore.keys"):
                    (folder.path / name).unlink()
            for process, path in zip(both[:: -1 if turn % 4 > 1 else 1], data, strict=True):
                process.start(*words, "--data", path)
            ended = [process.wait("ended") for process in both]

            assert ended == ["ended 0", "ended 0"], [path.read_text() for path in tmp_path.glob("log-*")]
            with KeyStore.open(folder.key_store) as store:
                entries, _ = store.records.read_entries(Split.TRAIN)
                names = sorted(record for record, _ in store.records.read_ids(entries))
                assert names == sorted(f"scan-{row}" for row in range(3 * ROWS))
                assert len(store.ciphers.held()) == len(entries) + store.records.count(Split.TEST) == 3 * ROWS + 2
                assert len(store.records.read_keys(entries)) == 3 * ROWS
                assert store.records.agrees_with(secret)
            assert folder.read_secret().reference("") == secret.reference("")
            assert not list(folder.path.glob(".enrolling-*"))


def test_enrolments_of_two_sites_into_one_folder_do_not_mix(tmp_path: Path, data: list[Path]) -> None:
    secrets = [FederationSecret.generate(), FederationSecret.generate()]
    for number, secret in enumerate(secrets):
        secret.write(tmp_path / f"secret-{number}")
    with ExitStack() as stack:
        both = [Enrolling(stack, tmp_path / f"log-{number}") for number in range(2)]
        for process in both:
            process.wait("ready")
        for turn in range(ROUNDS):
            folder = SiteFolder(tmp_path / f"site-{turn}")
            # Another name, or another federation.
            other = turn % 2
            for number, (process, path) in enumerate(zip(both, data, strict=True)):
                name = f"hospital-{number}" if other else "hospital"
                words = ["--secret", tmp_path / f"secret-{0 if other else number}", "--data", path]
                process.start("enrol", "--site-dir", folder.path, "--site", name, *words)
            ended = [process.wait("ended") for process in both]

            assert sorted(ended) == ["ended 0", "ended 2"], [path.read_text() for path in tmp_path.glob("log-*")]
            with KeyStore.open(folder.key_store) as store:
                winner = ended.index("ended 0")
                assert store.records.count(Split.TRAIN) == 2 * ROWS
                assert store.description.site == (f"hospital-{winner}" if other else "hospital")
                assert store.records.agrees_with(folder.read_secret())
                assert folder.read_secret().reference("") == secrets[0 if other else winner].reference("")
    assert "Traceback" not in "".join(path.read_text() for path in tmp_path.glob("log-*"))
