"""`munkey-client` as a person types it, on a site with records, beside a deletion service in this process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmunkey.client.cli import main
from fedmunkey.client.commands.enrol import enrol
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import Acknowledgement, SiteState
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.transparency_log.log import TransparencyLog
from fedmunkey.server.transparency_log.log_key import open_log_key
from tests.typed import Ended, Run, runner

__all__ = ["OTHER", "SITE", "TEST", "TRAIN", "Ended", "Federation", "Run", "carry_out", "catch_up", "write_records"]

SITE = "hospital-1"
OTHER = "hospital-2"
TRAIN = 70
TEST = 6
STORE_FILES = {"keystore.sqlite", "keystore.keys", "keystore.journal", "keystore.master", "federation.secret"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `munkey-client`; a site of these tests that has no trusted keys is told to do without."""
    typed = runner("munkey-client", main, monkeypatch, capsys)

    def run(*words: object, stdin: str = "") -> Ended:
        told = ["--insecure-orders"] if words and words[0] in ("agent", "catch-up") else []
        return typed(*words, *told, stdin=stdin)

    return run


def write_records(
    path: Path, name: str = "scan", train: int = TRAIN, changes: Mapping[str, NDArray[Any]] | None = None
) -> Path:
    """Write a data set of two classes; of each subject there are two training records."""
    random = np.random.default_rng(len(name))
    arrays: dict[str, Any] = {
        "train_images": random.integers(0, 256, (train, 8, 8), dtype=np.uint8),
        "train_labels": np.arange(train) % 2,
        "train_ids": np.array([f"{name}-{row}" for row in range(train)]),
        "train_subjects": np.array([f"{name}-patient-{row // 2}" for row in range(train)]),
        "test_images": random.integers(0, 256, (TEST, 8, 8), dtype=np.uint8),
        "test_labels": np.arange(TEST) % 2,
        "test_ids": np.array([f"{name}-test-{row}" for row in range(TEST)]),
        **(changes or {}),
    }
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a secret, a data set and a site that has enrolled it; tests work on copies."""
    made = tmp_path_factory.mktemp("enrolled")
    secret = made / "federation.secret"
    FederationSecret.generate().write(secret)
    enrol(site_dir=made / SITE, site=SITE, data=write_records(made / "scans.npz"), secret=secret)
    return made


@pytest.fixture
def secret(enrolled: Path, tmp_path: Path) -> Path:
    """The federation secret."""
    return Path(shutil.copy2(enrolled / "federation.secret", tmp_path))


@pytest.fixture
def enrolment(enrolled: Path, tmp_path: Path, secret: Path) -> list[object]:
    """The words that enrol the records of a site."""
    data = shutil.copy2(enrolled / "scans.npz", tmp_path)
    return ["enrol", "--site-dir", tmp_path / SITE, "--site", SITE, "--data", data, "--secret", secret]


@pytest.fixture
def folder(enrolled: Path, tmp_path: Path) -> SiteFolder:
    """The folder of a site that has enrolled them."""
    return SiteFolder(Path(shutil.copytree(enrolled / SITE, tmp_path / SITE)))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerService]:
    """The deletion service of a federation of two sites."""
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        opened.register(SITE)
        opened.register(OTHER)
        service = LedgerService(opened)
        yield service
        service.close()


@pytest.fixture
def service(ledger: LedgerService) -> Iterator[str]:
    """The address at which that service is served."""
    with DeletionServer(ledger) as server:
        yield server.address


def carry_out(ledger: LedgerService, site: str, *, state: SiteState = SiteState.ERASED, records: int = 1) -> None:
    """Answer a site's orders, as its agent would."""
    for order in ledger.watch(site, 0):
        counted = (state, records, records, Guarantee.EMPIRICAL, 0.25)
        ledger.acknowledge(Acknowledgement(order.number, site, order.request.request_id, *counted))


@dataclass(frozen=True)
class Federation:
    """Two sites, an officer and a coordinator, all with keys."""

    path: Path
    service: str
    ledger: LedgerService

    def site(self, name: str) -> SiteFolder:
        return SiteFolder(self.path / name)

    @property
    def officer(self) -> list[object]:
        key, secret = self.path / "officer.pem", self.path / "federation.secret"
        return ["forget", "--as", "officer", "--signing-key", key, "--secret", secret, "--service", self.service]


@pytest.fixture(scope="session")
def second_site(enrolled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("second")
    data = write_records(made / "scans.npz", train=12)
    enrol(site_dir=made / OTHER, site=OTHER, data=data, secret=enrolled / "federation.secret")
    return made / OTHER


@pytest.fixture
def federation(
    run: Run,
    folder: SiteFolder,
    secret: Path,
    second_site: Path,
    tmp_path: Path,
) -> Iterator[Federation]:
    assert (folder.path, secret.parent) == (tmp_path / SITE, tmp_path)
    shutil.copytree(second_site, tmp_path / OTHER)
    run("signing-keys", "new", tmp_path / "officer.pem")
    for name in (SITE, OTHER):
        run("signing-keys", "new", "--site-dir", tmp_path / name)
    place, log_key = open_log_key(None, str(tmp_path / "ledger.sqlite"))
    for where in (tmp_path, tmp_path / SITE, tmp_path / OTHER):
        run("trust", "add", "officer-1", tmp_path / "officer.pub", "--role", "officer", "--in", where)
        run("trust", "add", "log", place.with_suffix(".pub"), "--role", "log", "--in", where)
    for name in (SITE, OTHER):
        run("trust", "add", name, tmp_path / name / "site-key.pub", "--role", "site", "--in", tmp_path)
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        opened.register(SITE)
        opened.register(OTHER)
        proofs = CoordinatorProofs(TransparencyLog(opened.engine, log_key), tmp_path / "trust.json")
        service = LedgerService(opened, proofs=proofs)
        with DeletionServer(service) as server:
            yield Federation(tmp_path, server.address, service)
        service.close()


def catch_up(run: Run, federation: Federation, *sites: str) -> None:
    """Have sites, both of them if none is named, carry out what is outstanding."""
    for name in sites or (SITE, OTHER):
        ended = run("catch-up", "--site-dir", federation.path / name, "--service", federation.service)
        assert ended.code == 0, ended.err
