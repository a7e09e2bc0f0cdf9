"""`munkey-client verify-exact` on a site that has trained, deleted and taken records in again."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.contribution import sum_records
from fedmunkey.client.learning.exact_state import read_shared_release
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.linear_answers import TEMPERATURES
from fedmunkey.common.closed_form.release import Release, write_release
from fedmunkey.common.closed_form.solving import RIDGES, Choice, left_out_weights, shared_weights

from .conftest import SITE, TEST, TRAIN, Run, write_records

ALL = TRAIN + TEST


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The file that the site has enrolled."""
    return write_records(tmp_path / "scans.npz")


@pytest.fixture
def trained(folder: SiteFolder) -> SiteFolder:
    """A site that has taken over released weights, solved from its own records."""
    read = FeatureMap((0, 0), 30)
    with folder.open() as store:
        sums = sum_records(store, read, 2, permanent_only=False).sums
    choice = Choice(RIDGES[4], TEMPERATURES[3], 0.9, 0.3)
    weights, left_out = shared_weights(sums, choice.ridge), left_out_weights(sums)[4]
    write_release(folder.shared_weights, Release(weights, left_out, choice, read, "descriptor", {}))
    return folder


def forget(run: Run, folder: SiteFolder, service: str, *what: object) -> None:
    """Ask for a deletion as the site, and carry it out."""
    run("forget", "--site-dir", folder.path, *what, "--service", service, "--wait", 0)
    run("catch-up", "--site-dir", folder.path, "--service", service)


def test_state_is_as_if_records_had_never_been_held(run: Run, trained: SiteFolder, service: str, data: Path) -> None:
    forget(run, trained, service, "--record", "scan-3")
    forget(run, trained, service, "--subject", "scan-patient-10")

    rebuilt = run("verify-exact", "--site-dir", trained.path, "--json").json
    encoded = run("verify-exact", "--site-dir", trained.path, "--data", data, "--json").json

    assert (rebuilt["identical"], encoded["identical"]) == (True, True)
    assert (rebuilt["records"], encoded["records"]) == (ALL - 3, ALL - 3)
    assert (rebuilt["deleted"], encoded["deleted"]) == (0, 3)
    assert rebuilt["state"] == rebuilt["built"] == encoded["built"]


# Records of the test split say of no subject, so each is its own.
@pytest.mark.parametrize("what", ["--record", "--subject"])
def test_withdrawn_record_with_new_consent_gives_the_state_of_one_that_never_left(
    run: Run, trained: SiteFolder, service: str, data: Path, tmp_path: Path, what: str
) -> None:
    last = f"scan-test-{TEST - 1}"
    before = run("verify-exact", "--site-dir", trained.path, "--json").json["state"]
    forget(run, trained, service, what, last)
    without = run("verify-exact", "--site-dir", trained.path, "--json").json["state"]
    (tmp_path / "again.txt").write_text(f"{last}\n")

    words = ["enrol", "--site-dir", trained.path, "--site", SITE, "--data", data]
    refused = run(*words).out
    added = run(*words, "--new-consent", tmp_path / "again.txt", "--json").json
    after = run("verify-exact", "--site-dir", trained.path, "--json").json

    assert "1 refused" in refused
    assert "--new-consent" in refused
    assert added["added"] == 1
    assert before == after["state"] != without
    assert after["identical"]


def test_arrival_has_the_token_of_the_sites_weights(run: Run, trained: SiteFolder, tmp_path: Path) -> None:
    more = write_records(tmp_path / "more.npz", name="later", train=5)

    run("enrol", "--site-dir", trained.path, "--site", SITE, "--data", more)

    shown = run("verify-exact", "--site-dir", trained.path, "--json").json
    assert (shown["identical"], shown["records"]) == (True, ALL + 5 + TEST)


def test_weights_count_for_what_follows_from_them(run: Run, trained: SiteFolder) -> None:
    with_weights = run("verify-exact", "--site-dir", trained.path, "--json").json
    for path in (trained.shared_weights, trained.shared_weights.with_suffix(".json")):
        path.unlink()
    without = run("verify-exact", "--site-dir", trained.path, "--json").json

    assert with_weights["identical"]
    assert without["identical"]
    assert with_weights["state"] != without["state"]


def test_trace_of_something_else_is_found(run: Run, trained: SiteFolder, tmp_path: Path) -> None:
    labels = np.arange(TRAIN) % 2
    labels[4] = 1 - labels[4]
    other = write_records(tmp_path / "scans.npz", changes={"train_labels": labels})

    ended = run("verify-exact", "--site-dir", trained.path, "--data", other)

    assert ended.code == 1
    assert "DIFFERENT" in ended.out


def test_missing_record_is_found_from_files_only(run: Run, trained: SiteFolder, data: Path) -> None:
    whole = run("verify-exact", "--site-dir", trained.path, "--data", data)
    assert whole.code == 0
    assert "the same, byte for byte (from files, without 0 deleted)" in whole.out
    with sqlite3.connect(trained.key_store) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM records WHERE entry = 5")

    assert run("verify-exact", "--site-dir", trained.path).code == 0
    assert run("verify-exact", "--site-dir", trained.path, "--data", data).code == 1


def test_verification_changes_nothing_and_leaves_nothing_behind(run: Run, trained: SiteFolder) -> None:
    before = sorted(path.name for path in trained.path.iterdir())
    with KeyStore.open(trained.key_store) as store:
        generation = store.generation

    run("verify-exact", "--site-dir", trained.path)

    assert {path.name for path in trained.path.iterdir()} <= {*before, "keystore.sqlite-wal", "keystore.sqlite-shm"}
    with KeyStore.open(trained.key_store) as store:
        assert store.generation == generation
    assert read_shared_release(trained) is not None


@pytest.mark.parametrize("promise", ["certified", "empirical"])
def test_other_promises_cannot_be_verified(run: Run, data: Path, tmp_path: Path, secret: Path, promise: str) -> None:
    words = ["--site-dir", tmp_path / "site", "--site", SITE, "--data", data, "--secret", secret]
    run("enrol", *words, "--guarantee", promise)

    error = run("verify-exact", "--site-dir", tmp_path / "site").error

    assert f"{SITE} has promised {promise}: only under exact" in error


def test_other_encoder_is_refused(run: Run, folder: SiteFolder, data: Path) -> None:
    with sqlite3.connect(folder.key_store) as connection:
        connection.execute("UPDATE description SET encoder = 'another'")

    error = run("verify-exact", "--site-dir", folder.path, "--data", data).error

    assert "the key store's keys are of encoder another" in error
