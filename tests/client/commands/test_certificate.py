"""From a signed request to a certificate, with the commands that an officer, a site and a stranger type."""

from __future__ import annotations

import sqlite3

import pytest

from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER, Outcome, Records, Subject, WholeSite
from fedmunkey.common.proofs.signing.signing_key import SigningKey

from .conftest import OTHER, SITE, TRAIN, Federation, Run, catch_up


def test_officer_deletes_a_patient_and_anybody_can_check_it(run: Run, federation: Federation) -> None:
    words = [*federation.officer, "--subject", "scan-patient-2", "--request-id", "request-1"]
    output, page, keys = (federation.path / name for name in ("certificate.json", "certificate.html", "trust.json"))

    run(*words, "--wait", 0)
    catch_up(run, federation)
    shown = run(*words, "--json").json
    made = run(
        "certificate", "request-1", "--service", federation.service,
        "--output", output, "--keys", keys, "--html", page,
    )  # fmt: skip
    pdf = federation.path / "certificate.pdf"
    printed = run("certificate", "request-1", "--service", federation.service,
                  "--output", output, "--keys", keys, "--pdf", pdf)  # fmt: skip
    unchecked = run("certificate", "request-1", "--service", federation.service, "--output", output, "--pdf", pdf)
    verified = run("verify", output, "--keys", keys, "--json").json
    named = run("verify", output, "--keys", keys, "--secret", federation.path / "federation.secret",
                "--subject", "-", stdin="scan-patient-2\n").out  # fmt: skip

    assert (shown["state"], shown["records"]) == ("completed", 4)
    assert "2 receipts, checked" in made.out
    # Without the extra, it is named.
    assert pdf.read_bytes().startswith(b"%PDF-") if pdf.exists() else "fedmunkey[pdf]" in printed.err
    assert "a PDF is written only of a certificate that was checked" in unchecked.error
    assert [(site["site"], site["state"], site["entries"]) for site in verified["sites"]] == [
        (SITE, "erased", 2),
        (OTHER, "erased", 2),
    ]
    assert verified["guarantee"] == "exact"
    assert "It is about the patient that you named." in named
    for path in (output, page):
        assert "scan-patient-2" not in path.read_text()
        assert "request-1" in page.read_text()


def test_certificate_about_somebody_else_is_refused(run: Run, federation: Federation) -> None:
    run(*federation.officer, "--subject", "scan-patient-2", "--request-id", "request-1", "--wait", 0)
    catch_up(run, federation)
    output, keys = federation.path / "c.json", federation.path / "trust.json"
    run("certificate", "request-1", "--service", federation.service, "--output", output)
    check = ["verify", output, "--keys", keys]

    other = run(*check, "--secret", federation.path / "federation.secret", "--subject", "scan-patient-3").error
    changed = federation.path / "changed.json"
    changed.write_bytes(output.read_bytes().replace(b'"number":0', b'"number":1'))

    assert "something else than what you named" in other
    assert "scan-patient-3" not in other
    assert run("verify", changed, "--keys", keys).code == 2
    assert run(*check, "--subject", "scan-patient-2").code == 2
    assert run("verify", federation.path / "none", "--keys", keys).code == 2


def test_certificate_is_not_written_before_every_site_has_answered(run: Run, federation: Federation) -> None:
    run(*federation.officer, "--subject", "scan-patient-2", "--request-id", "request-1", "--wait", 0)
    output = federation.path / "c.json"
    words = ["certificate", "request-1", "--service", federation.service, "--output", output]

    assert f"no answer from {SITE}, {OTHER}" in run(*words).error
    assert "--keys" in run(*words, "--html", federation.path / "c.html").error
    assert not output.exists()


def test_site_signs_with_the_key_in_its_folder(run: Run, federation: Federation) -> None:
    words = ["forget", "--record", "scan-5", "--site-dir", federation.path / SITE, "--service", federation.service]

    run(*words, "--request-id", "request-1", "--wait", 0)
    catch_up(run, federation)
    shown = run("status", "--site-dir", federation.path / SITE, "--json").json

    assert federation.ledger.get("request-1").sites[0].state == "erased"
    assert shown["entries"] == TRAIN - 1
    assert shown["unsigned_orders"] == "refused"
    assert shown["receipts"] == {"signed": 1, "in_the_log": 1}
    assert shown["signing_key"] == SigningKey.read(federation.site(SITE).signing_key).public.key_id
    assert shown["log"].startswith("2 leaves, root ")
    assert shown["alarms"] == []


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (["--as", "officer", "--record", "scan-5"], Records),
        (["--as", "officer", "--record", "scan-5", "--site", SITE], Records),
        (["--as", "officer", "--all", "--site", SITE, "--yes"], WholeSite),
        (["--as", SITE, "--subject", "scan-patient-1"], Subject),
    ],
)
def test_whoever_has_a_key_asks_from_any_machine(
    run: Run, federation: Federation, words: list[str], target: type
) -> None:
    site = federation.path / SITE / "site-key.pem"
    key = federation.path / "officer.pem" if "officer" in words else site
    common = ["--secret", federation.path / "federation.secret", "--service", federation.service, "--wait", 0]

    ended = run("request", *words, "--key", key, "--request-id", "request-1", *common)

    assert ended.code == Outcome.PENDING, ended.err
    made = federation.ledger.get("request-1").request
    assert isinstance(made.target, target)
    assert made.requester == (OFFICER if "officer" in words else SITE)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--as", SITE, "--record", "a", "--site", OTHER], "leave --site out"),
        (["--as", "officer", "--subject", "a", "--key", "none.pem"], "cannot be read"),
        (["--as", SITE, "--subject", "a"], "not trusted"),
    ],
)
def test_mistake_in_a_request_is_one_line(run: Run, federation: Federation, words: list[str], part: str) -> None:
    usual = ["--key", federation.path / "officer.pem", "--service", federation.service]
    error = run("forget", "--secret", federation.path / "federation.secret", *usual, *words).error

    assert part in error
    assert not federation.ledger.page().statuses


def test_taken_over_coordinator_deletes_nothing_at_a_site_with_trusted_keys(run: Run, federation: Federation) -> None:
    """It writes an order into its own ledger, as if the officer had asked."""
    secret = FederationSecret.read(federation.path / "federation.secret")
    run(*federation.officer, "--subject", "scan-patient-2", "--request-id", "request-1", "--wait", 0)
    with sqlite3.connect(federation.path / "ledger.sqlite") as ledger:
        ledger.execute("UPDATE requests SET subject_reference = ?", (secret.reference("scan-patient-9"),))
    ledger.close()

    catch_up(run, federation)

    shown = run("status", "--site-dir", federation.path / SITE, "--json").json
    assert shown["entries"] == TRAIN
    assert [(order["state"], order["reason"][:18]) for order in shown["orders"]] == [("refused", "altered: the targe")]


def test_alarm_is_shown_by_the_status(run: Run, federation: Federation) -> None:
    run(*federation.officer, "--subject", "scan-patient-2", "--request-id", "request-1", "--wait", 0)
    catch_up(run, federation)
    with sqlite3.connect(federation.path / "ledger.sqlite") as ledger:
        for table in ("log_leaves", "log_nodes", "log_heads"):
            ledger.execute(f"DELETE FROM {table}")  # noqa: S608
        ledger.execute("UPDATE log_size SET size = 0")
    ledger.close()

    catch_up(run, federation)

    table = run("status", "--site-dir", federation.path / SITE).out
    assert "ALARM: the coordinator's log cannot be trusted" in table
