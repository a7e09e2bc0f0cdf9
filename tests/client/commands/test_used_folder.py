"""A site's folder that was used before: what its key store knew holds for the next, and nothing is read too early."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedmunkey.client.importing import site_enrolment
from fedmunkey.client.key_store import Tokens
from fedmunkey.client.key_store.on_disk.journal import Journal
from fedmunkey.client.learning.last_round import LastRound
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, Records, Subject
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.model.model_choice import choose_shape, initial_model
from fedmunkey.common.privacy.guarantees import Influence
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.deletions.ledger_service import LedgerService

from .conftest import SITE, TEST, TRAIN, Run, write_records

WAIT = "run munkey-client catch-up first"


@pytest.fixture
def used(run: Run, folder: SiteFolder, tmp_path: Path, ledger: LedgerService, service: str, secret: Path) -> SiteFolder:
    """A site whose records given for good have trained weights, and which has forgotten a patient."""
    data = write_records(tmp_path / "given.npz", name="given", train=4)
    given = ["--site-dir", folder.path, "--site", SITE, "--data", data, "--consent", "permanent"]
    assert run("enrol", *given).code == 0
    with folder.open() as store:
        entries, _ = store.records.read_entries(Split.TRAIN)
        trained = entries[store.records.read_permanent(entries)]
        tokens = Tokens.zeros(len(trained), store.description.exemplar_size)
        store.records.write_tokens(store.generation, trained, tokens, used=Influence.UNBOUNDED)
    settings = Settings().replace(image_shape="1x8x8", num_classes=2)
    folder.write_shared_weights(initial_model(choose_shape(settings), 0), settings)
    patient = Subject(FederationSecret.read(secret).reference("scan-patient-3"))
    ledger.submit(DeletionRequest("request-1", OFFICER, patient))
    assert run("catch-up", "--site-dir", folder.path, "--service", service).code == 0
    return folder


def lose(folder: SiteFolder, *suffixes: str) -> None:
    for suffix in suffixes:
        for file in folder.path.glob(f"keystore.{suffix}*"):
            file.unlink()


def guarantee_of(run: Run, folder: SiteFolder, ledger: LedgerService, service: str, record: str) -> str:
    reference = folder.read_secret().reference(record)
    ledger.submit(DeletionRequest(f"forget-{record}", OFFICER, Records(frozenset([reference]), SITE)))
    (shown,) = run("catch-up", "--site-dir", folder.path, "--service", service, "--json").json
    return str(shown["guarantee"])


def test_new_store_beside_the_journal_goes_on_from_it(
    run: Run, used: SiteFolder, ledger: LedgerService, service: str, enrolment: list[object], tmp_path: Path
) -> None:
    lose(used, "sqlite", "keys")

    assert WAIT in run(*enrolment).error
    (heard,) = run("catch-up", "--site-dir", used.path, "--service", service, "--json").json
    assert (heard["records"], heard["guarantee"]) == (2, "exact")
    shown = run(*enrolment, "--json").json
    assert (shown["added"], shown["refused"]) == (TRAIN + TEST - 2, 2)
    given = ["--site-dir", used.path, "--site", SITE, "--data", tmp_path / "given.npz", "--consent", "permanent"]
    assert run("enrol", *given).code == 0

    assert run("status", "--site-dir", used.path, "--json").json["influences"]["unbounded"] == 4
    assert guarantee_of(run, used, ledger, service, "given-1") == "empirical"
    assert guarantee_of(run, used, ledger, service, "scan-1") == "exact"


def test_without_the_journal_the_worst_is_claimed_aloud(
    run: Run,
    used: SiteFolder,
    ledger: LedgerService,
    service: str,
    enrolment: list[object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    lose(used, "")

    with caplog.at_level(logging.WARNING):
        assert WAIT in run(*enrolment).error
    assert any(
        "its journal" in said and "is lost: the privacy budget counts as spent" in said for said in caplog.messages
    )
    assert run("catch-up", "--site-dir", used.path, "--service", service).code == 0
    shown = run(*enrolment, "--json").json

    assert (shown["added"], shown["refused"]) == (TRAIN + TEST - 2, 2)
    assert guarantee_of(run, used, ledger, service, "scan-1") == "empirical"
    assert guarantee_of(run, used, ledger, service, "given-1") == "empirical"


def test_damaged_journal_is_put_aside_and_the_worst_is_claimed(
    run: Run, used: SiteFolder, enrolment: list[object]
) -> None:
    lose(used, "sqlite", "keys")
    journal = Journal(used.key_store).path
    journal.write_bytes(b"something else, and long enough to be taken for a database" * 20)

    assert WAIT in run(*enrolment).error

    assert journal.with_name("keystore.journal.damaged").exists()
    with used.open() as store:
        assert store.is_restored


@pytest.mark.parametrize("budget", [3.0])
def test_budget_counts_as_spent_where_nobody_knows(
    run: Run, used: SiteFolder, service: str, enrolment: list[object], budget: float
) -> None:
    lose(used, "")

    run(*enrolment, "--guarantee", "certified", "--epsilon", budget)
    run("catch-up", "--site-dir", used.path, "--service", service)

    assert run("status", "--site-dir", used.path, "--json").json["spent"]["epsilon"] is None


def test_member_with_a_secret_and_no_journal_was_used(run: Run, folder: SiteFolder, enrolment: list[object]) -> None:
    lose(folder, "")
    folder.identity.mkdir()

    assert WAIT in run(*enrolment).error


def test_site_without_an_identity_that_has_contributed_to_a_round_was_used(
    run: Run, folder: SiteFolder, enrolment: list[object]
) -> None:
    """It may have died before it had the weights of that round."""
    lose(folder, "")
    LastRound("1-a", 0).write(folder)

    assert WAIT in run(*enrolment).error


def test_member_that_enrols_for_the_first_time_was_not(run: Run, tmp_path: Path, enrolment: list[object]) -> None:
    SiteFolder(tmp_path / SITE).identity.mkdir(parents=True)
    SiteFolder(tmp_path / SITE).signing_key.touch()

    assert run(*enrolment, "--json").json["added"] == TRAIN + TEST


def test_what_an_earlier_store_knew_outlives_an_interruption(
    run: Run, used: SiteFolder, service: str, enrolment: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(used, "sqlite", "keys")

    def cut(source: Path, target: Path) -> None:
        if target == used.key_store:
            raise KeyStoreError("the power was cut")
        os.link(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(site_enrolment, "link", cut)
        assert "the power was cut" in run(*enrolment).error
    assert not used.key_store.exists()

    assert WAIT in run(*enrolment).error
    (heard,) = run("catch-up", "--site-dir", used.path, "--service", service, "--json").json
    assert heard["records"] == 2


def test_nothing_is_predicted_before_deletions_are_heard(
    run: Run, folder: SiteFolder, ledger: LedgerService, service: str, tmp_path: Path, secret: Path
) -> None:
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "image.png")
    typed = ["predict", tmp_path / "image.png", "--site-dir", folder.path]
    assert run(*typed).code == 0
    with folder.open() as store:
        store.database.connection.execute("UPDATE description SET restored = 1")
    patient = Subject(FederationSecret.read(secret).reference("scan-patient-3"))
    ledger.submit(DeletionRequest("request-1", OFFICER, patient))

    assert WAIT in run(*typed).error
    assert run(*typed, "--service", service).code == 0

    with folder.open() as store:
        assert store.records.count(Split.TRAIN) == TRAIN - 2
