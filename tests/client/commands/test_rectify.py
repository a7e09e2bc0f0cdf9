"""`munkey-client rectify`: wrong labels and pictures are corrected under their ids, as one request with one receipt."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedmunkey.client.commands import rectify
from fedmunkey.client.deletions.agent import catch_up
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, Records
from fedmunkey.common.errors import ServiceUnavailable
from fedmunkey.common.failpoints import Failpoint
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.service.deletion_service import DeletionService
from tests.coordinator import killed_at

from .conftest import SITE, Federation, Run

COUNT = 8
CLASSES = ("benign", "malignant")


def write_scans(folder: Path, name: str, rows: list[int], *, label: int = 0, seed: int = 0) -> Path:
    """Write a manifest of some records with pictures of their own."""
    with (folder / name).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "record_id", "subject_id", "split"])
        for row in rows:
            pixels = np.random.default_rng([seed, row]).integers(0, 256, (8, 8), dtype=np.uint8)
            picture = f"{Path(name).stem}-{row}.png"
            Image.fromarray(pixels).save(folder / picture)
            table.writerow([picture, CLASSES[(row + label) % 2], f"scan-{row}", f"patient-{row // 2}", "train"])
    return folder / name


@pytest.fixture
def words(run: Run, federation: Federation, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A site that has imported pictures, with keys, and the words that correct some of them."""
    site = federation.path / SITE
    for file in site.glob("keystore.*"):
        file.unlink()
    (site / "federation.secret").unlink()
    monkeypatch.chdir(federation.path)
    manifest = write_scans(federation.path, "scans.csv", list(range(COUNT)))
    named = ["--site-dir", site, "--site", SITE]
    shape = ["--image-shape", "1x8x8", *(word for name in CLASSES for word in ("--class", name))]
    ended = run("import", manifest, *named, "--secret", federation.path / "federation.secret", *shape)
    assert ended.code == 0, ended.err
    return ["rectify", *named, "--service", federation.service, "--request-id", "r-1"]


def labels(federation: Federation) -> dict[str, int]:
    with federation.site(SITE).open() as store:
        entries, found = store.records.read_entries(Split.TRAIN)
        names = [name for name, _ in store.records.read_ids(entries)]
        return dict(zip(names, found.tolist(), strict=True))


def staged(federation: Federation) -> list[Path]:
    return list((federation.path / SITE).glob("*.staged"))


def receipt(federation: Federation) -> Receipt:
    (part,) = federation.ledger.get("r-1").sites
    assert part.acknowledgement is not None
    return Receipt.of(read_envelope(part.acknowledgement.receipt))


def test_records_are_erased_and_enrolled_anew_under_their_ids_with_one_receipt(
    run: Run, federation: Federation, words: list[object]
) -> None:
    before = labels(federation)
    corrected = write_scans(federation.path, "corrected.csv", [2, 3], label=1, seed=1)

    ended = run(*words, corrected)

    assert ended.code == 0, ended.err
    assert "2 records erased, 2 records enrolled anew, corrected" in ended.out
    after = labels(federation)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"scan-2", "scan-3"}
    assert (receipt(federation).answer.records, receipt(federation).rectified) == (2, 2)
    assert not staged(federation)
    assert [status.request.request_id for status in federation.ledger.page().statuses] == ["r-1"]
    with federation.site(SITE).open() as store:
        assert store.orders.check_erasure(1, [federation.path / SITE]).found == ()
    # The new ones are records like any others.
    again = [word if word != "r-1" else "r-2" for word in words]
    assert run(*again, write_scans(federation.path, "again.csv", [2], seed=2)).code == 0
    assert labels(federation)["scan-2"] == before["scan-2"]


def test_agent_that_is_quicker_puts_them_in_place(
    run: Run, federation: Federation, words: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = labels(federation)
    at = ["--site-dir", federation.path / SITE, "--service", federation.service]

    def agent_is_quicker(store: object, channel: object) -> list[object]:
        """Let another process of the site carry the order out."""
        assert run("catch-up", *at).code == 0
        return [store, channel]

    monkeypatch.setattr(rectify, "catch_up", agent_is_quicker)
    ended = run(*words, write_scans(federation.path, "corrected.csv", [5], label=1), "--json")

    assert ended.code == 0, ended.err
    assert ended.json["rectified"] == ended.json["records"] == 1
    assert labels(federation)["scan-5"] != before["scan-5"]


@pytest.mark.parametrize(
    "point", [Failpoint.APPLY_BEFORE_COMMIT, Failpoint.APPLY_AFTER_COMMIT, Failpoint.APPLY_AFTER_ERASURE]
)
def test_command_that_dies_is_gone_on_with_and_nothing_is_twice_or_lost(
    run: Run, federation: Federation, words: list[object], point: Failpoint
) -> None:
    before = labels(federation)
    corrected = write_scans(federation.path, "corrected.csv", [0, 1], label=1)

    def dies(store: KeyStore, channel: DeletionService) -> None:
        """Carry orders out until the failpoint."""
        with killed_at(point):
            catch_up(store, channel)
        raise ServiceUnavailable("this process is no more")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rectify, "catch_up", dies)
        assert "this process is no more" in run(*words, corrected).error

    ended = run(*words, corrected)

    assert ended.code == 0, ended.err
    after = labels(federation)
    assert {name for name in after if after[name] != before[name]} == {"scan-0", "scan-1"}
    assert receipt(federation).rectified == 2
    assert not staged(federation)


def test_what_another_order_has_erased_meanwhile_does_not_come_back(
    run: Run, federation: Federation, words: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rectify, "catch_up", lambda *_: [])
    corrected = write_scans(federation.path, "corrected.csv", [2, 3, 6], label=1)
    run(*federation.officer, "--record", "scan-2", "--wait", 0, "--request-id", "officer-1")
    assert run(*words, corrected).code == 6
    assert run("catch-up", "--site-dir", federation.path / SITE, "--service", federation.service).code == 0

    assert "scan-2" not in labels(federation)
    assert receipt(federation).rectified == 2
    assert not staged(federation)


def test_staged_copy_is_sealed_private_and_loses_what_is_erased(
    run: Run, federation: Federation, words: list[object]
) -> None:
    assert words
    with federation.site(SITE).open() as store:
        corrected = store.staging
        entries, _ = store.records.read_entries(Split.TRAIN)
        assert len(entries) == COUNT
        assert corrected.find("waiting") is None
    site = federation.path / SITE
    write_scans(federation.path, "corrected.csv", [0, 1], label=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rectify, "sign_for", _unavailable)
        assert "go on with --request-id r-1" in run(*words, federation.path / "corrected.csv").error
    (file,) = staged(federation)
    assert file.stat().st_mode & 0o077 == 0
    assert b"scan-" not in file.read_bytes()
    secret = FederationSecret.read(site / "federation.secret")
    with federation.site(SITE).open() as store:
        wanted = Records(frozenset({secret.reference("scan-0")}), SITE)
        store.orders.apply(DeletionOrder(1, SITE, DeletionRequest("other", SITE, wanted)))
        waiting = store.staging.find("r-1")
        assert waiting is not None
        assert waiting.references == [secret.reference("scan-1")]
        both = Records(frozenset({secret.reference("scan-1")}), SITE)
        store.orders.apply(DeletionOrder(2, SITE, DeletionRequest("more", SITE, both)))
    assert not staged(federation)


def _unavailable(*_: object, **__: object) -> None:
    raise ServiceUnavailable("nobody answers")


def test_hold_keeps_what_would_be_corrected(run: Run, federation: Federation, words: list[object]) -> None:
    before = labels(federation)
    office = ["--signing-key", federation.path / "officer.pem", "--secret", federation.path / "federation.secret"]
    run("hold", "place", *office, "--service", federation.service, "--record", "scan-2")

    assert run(*words, write_scans(federation.path, "corrected.csv", [2], label=1)).code == 8
    assert labels(federation) == before
    assert not staged(federation)


def test_mistakes_are_one_line_and_nothing_is_asked(run: Run, federation: Federation, words: list[object]) -> None:
    before = labels(federation)
    missing = write_scans(federation.path, "missing.csv", [2], label=1)
    (federation.path / "missing-2.png").unlink()
    stranger = write_scans(federation.path, "stranger.csv", [2, COUNT])
    other = federation.path / "other.csv"
    other.write_text(stranger.read_text().replace("patient-1", "patient-9"))
    for file, fault in (
        (missing, "row 2 cannot be used"),
        (stranger, "1 record of the file, the first is number 2, cannot be corrected: not held here"),
        (other, "cannot be corrected: not held here under that subject"),
    ):
        error = run(*words, file).error
        assert fault in error
        assert "scan-" not in error
    office = ["--signing-key", federation.path / "officer.pem", "--secret", federation.path / "federation.secret"]
    run("opt-out", "add", *office, "--service", federation.service, "--subject", "patient-1")
    run("catch-up", "--site-dir", federation.path / SITE, "--service", federation.service)
    assert "on the federation's opt-out list" in run(*words, write_scans(federation.path, "out.csv", [2])).error
    assert not federation.ledger.page().statuses
    assert not staged(federation)
    assert json.dumps(before)
