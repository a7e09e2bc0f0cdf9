"""The opt-out list as officers type it, and what enrolment, import and export make of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmunkey.client.records.dataset import Split

from .conftest import OTHER, SITE, TEST, TRAIN, Federation, Run, catch_up, write_records

PATIENT = ["--subject", "scan-patient-1"]


def office(federation: Federation, *, secret: bool = True) -> list[object]:
    words: list[object] = ["--signing-key", federation.path / "officer.pem", "--service", federation.service]
    return [*words, "--secret", federation.path / "federation.secret"] if secret else words


def opt_out(run: Run, federation: Federation, *about: object, name: str = "out-1") -> None:
    ended = run("opt-out", "add", *office(federation), "--id", name, *about)
    assert ended.code == 0, ended.err


def used(federation: Federation) -> int:
    with federation.site(SITE).open() as store:
        return len(store.records.read_entries(Split.TRAIN)[0])


def test_patient_that_opts_out_is_used_nowhere_and_comes_back_when_it_ends(run: Run, federation: Federation) -> None:
    opt_out(run, federation, *PATIENT)
    assert used(federation) == TRAIN, "the site has not heard of it"
    catch_up(run, federation)

    assert used(federation) == TRAIN - 2
    with federation.site(SITE).open() as store:
        assert store.records.count(Split.TRAIN) == TRAIN
        assert store.records.count(Split.TEST) == TEST
    (listed,) = run("opt-out", "list", "--service", federation.service, "--json").json
    assert (listed["id"], listed["in_force"], listed["about"]) == ("out-1", True, "subject")
    assert "scan-patient" not in json.dumps(listed)
    ended = run("opt-out", "end", "out-1", *office(federation, secret=False))
    assert "opt-out out-1 is in force no more" in ended.out
    catch_up(run, federation)
    assert used(federation) == TRAIN
    assert run("opt-out", "list", "--service", federation.service, "--json").json[0]["in_force"] is False


def test_what_is_opted_out_can_be_erased_all_the_same(run: Run, federation: Federation) -> None:
    opt_out(run, federation, *PATIENT)
    run(*federation.officer, *PATIENT, "--wait", 0, "--request-id", "r-1")
    catch_up(run, federation)

    assert federation.ledger.get("r-1").erased == 4


@pytest.mark.parametrize("about", [PATIENT, ["--record", "scan-2", "--record", "scan-3"]])
def test_enrolment_leaves_out_what_is_on_the_list_whatever_the_consent(
    run: Run, federation: Federation, about: list[object]
) -> None:
    run(*federation.officer, *PATIENT, "--wait", 0)
    catch_up(run, federation)
    opt_out(run, federation, *about)
    catch_up(run, federation)
    consent = federation.path / "consent.txt"
    consent.write_text("scan-2\nscan-3\n")
    words = ["enrol", "--site-dir", federation.path / SITE, "--site", SITE, "--data", federation.path / "scans.npz"]
    write_records(federation.path / "scans.npz")

    ended = run(*words, "--new-consent", consent)

    assert ended.code == 0, ended.err
    assert "2 left out: they or their subjects are on the federation's opt-out list" in ended.out
    assert used(federation) == TRAIN - 2


def test_enrolment_stops_before_the_first_record_where_the_list_cannot_be_read(
    run: Run, federation: Federation
) -> None:
    opt_out(run, federation, *PATIENT)
    catch_up(run, federation)
    with federation.site(SITE).open() as store, store.journal.writing() as journal:
        journal.execute("UPDATE instructions SET sealed = zeroblob(40)")

    words = ["enrol", "--site-dir", federation.path / SITE, "--site", SITE, "--data", federation.path / "more.npz"]
    write_records(federation.path / "more.npz", name="late", train=4)
    error = run(*words).error
    assert "everybody counts as opted out" in error
    assert "run munkey-client catch-up" in error
    with federation.site(SITE).open() as store:
        assert store.records.count(Split.TRAIN) == TRAIN
    catch_up(run, federation, SITE)
    assert used(federation) == TRAIN - 2
    assert run(*words).code == 0
    assert used(federation) == TRAIN + 2


def test_list_outlives_the_key_store(run: Run, federation: Federation) -> None:
    opt_out(run, federation, *PATIENT)
    catch_up(run, federation)
    for file in ("keystore.sqlite", "keystore.keys"):
        (federation.path / SITE / file).unlink()

    write_records(federation.path / "scans.npz")
    words = ["--site", SITE, "--secret", federation.path / "federation.secret"]
    ended = run("enrol", "--site-dir", federation.path / SITE, *words, "--data", federation.path / "scans.npz")

    assert ended.code == 0, ended.err
    assert "2 left out" in ended.out
    assert (federation.path / OTHER).exists()


def test_who_may_only_look_opts_nobody_out(run: Run, federation: Federation, tmp_path: Path) -> None:
    run("trust", "allow", "officer-1", "--may", "view", "--in", tmp_path)

    error = run("opt-out", "add", *office(federation), *PATIENT).error

    assert "not theirs to sign" in error
