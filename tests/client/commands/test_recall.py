"""Models that were given away: which of them hold what was erased since, at this site and at others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from fedmunkey.client.commands.recall import MUST_BE_REPLACED
from fedmunkey.client.console.application import make_console
from fedmunkey.client.console.office import Office
from fedmunkey.client.deletions.lineage.exported_models import FILE, ExportRegister, holding
from fedmunkey.client.deletions.lineage.taken_releases import note_taken
from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.client.predicting.exporting import export as exporting
from fedmunkey.common.clock import utc_now
from fedmunkey.common.closed_form.release import Release, write_release
from fedmunkey.common.deletions.outcomes import Outcome
from fedmunkey.common.deletions.renewals import ReleasedWeights, SiteContribution
from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.common.proofs.contributions import Contribution
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.service.channel import DeletionChannel
from tests.console_case import served
from tests.patience import PATIENCE
from tests.releases import give

from .conftest import OTHER, SITE, Ended, Federation, Run, catch_up
from .test_export import take_over

Export = Callable[..., Path]


@pytest.fixture
def export(run: Run, federation: Federation, tmp_path: Path) -> Export:
    """Return what exports a site's predictor."""

    def make(name: str, site: str = SITE, mix: str = "federation") -> Path:
        path = tmp_path / f"{name}.onnx"
        ended = run("export", path, "--site-dir", federation.path / site, "--case-mix", mix)
        assert ended.code == 0, ended.err
        return path

    return make


@pytest.fixture
def check(run: Run, federation: Federation) -> Callable[..., Ended]:
    def ask(path: Path, *words: object, site: str = SITE) -> Ended:
        return run("recall", "--site-dir", federation.path / site, "--check", path, *words)

    return ask


@pytest.fixture
def sites(federation: Federation) -> Federation:
    """The federation, whose sites have taken weights over before anything was erased."""
    for name in (SITE, OTHER):
        taken(federation, name)
    return federation


def taken(federation: Federation, name: str, release: Release | None = None) -> Release:
    """Have a site take weights over, as the last step of a round does: its own, or those that another has."""
    folder = federation.site(name)
    if release is None:
        release = take_over(folder)
    else:
        write_release(folder.shared_weights, release)
    with folder.open() as store:
        note_taken(folder, store, release.digest(), store.orders.last)
    return release


def forget(run: Run, federation: Federation, subject: str, *sites: str) -> str:
    """Have an officer ask for a subject, and sites carry it out; return the request's id."""
    request = f"request-of-{len(subject)}-{subject[-2:]}"
    asked = run(*federation.officer, "--subject", subject, "--request-id", request, "--wait", 0)
    assert asked.code == Outcome.PENDING, asked.err
    catch_up(run, federation, *sites)
    return request


def renew(federation: Federation, release: Release) -> None:
    """Write down, as a round does, that weights were solved for by both sites after all that they have erased."""
    parts = []
    for name in (SITE, OTHER):
        folder = federation.site(name)
        with folder.open() as store:
            last = store.orders.last
        said = Contribution(name, "1-round", last, bytes(32), utc_now())
        signed = said.sign(SigningKey.read(folder.signing_key)).to_bytes()
        parts.append(SiteContribution(name, last, signed))
    give(federation.ledger, ReleasedWeights(release.digest(), 70, 12, tuple(parts)))


def certificate_of(run: Run, federation: Federation, request: str, name: str = "certificate") -> Path:
    path = federation.path / f"{name}.json"
    keys = federation.path / "trust.json"
    ended = run("certificate", request, "--output", path, "--keys", keys, "--service", federation.service)
    assert ended.code == 0, ended.err
    return path


def test_model_may_stay_until_the_site_erases_and_its_successor_may_stay_again(
    run: Run, sites: Federation, export: Export, check: Callable[..., Ended]
) -> None:
    files = [export("shared"), export("own", mix="own")]
    assert [check(path).code for path in files] == [0, 0]

    request = forget(run, sites, "scan-patient-0")

    for path in files:
        ended = check(path)
        assert ended.code == MUST_BE_REPLACED == 7
        assert f"request {request}: erased at this site after the model was written" in ended.out
        assert json.loads(check(path, "--json").out)["reasons"][0]["request"] == request
    owed = run("export", sites.path / "late.onnx", "--site-dir", sites.path / SITE).error
    assert f"still hold what request {request} erased" in owed
    taken(sites, SITE)
    assert check(export("renewed")).code == 0
    assert check(files[0]).code == MUST_BE_REPLACED
    shown = run("recall", "--site-dir", sites.path / SITE, "--json").json
    assert [(each["name"], each["state"], each["requests"]) for each in shown] == [
        ("shared.onnx", "must be replaced", [request]),
        ("own.onnx", "must be replaced", [request]),
        ("renewed.onnx", "may stay", []),
    ]


def test_what_has_no_entry_recalls_nothing(
    run: Run, sites: Federation, export: Export, check: Callable[..., Ended]
) -> None:
    path = export("shared", mix="own")
    forget(run, sites, "nobody-here")
    assert run(
        *sites.officer, "--record", "scan-test-1", "--site", SITE, "--request-id", "held-out", "--wait", 0
    ).code == int(Outcome.PENDING)
    catch_up(run, sites)

    with sites.site(SITE).open() as store:
        assert [answer.records for answer in store.orders.read_answers()] == [0, 1]
    assert check(path).code == 0


def test_receipt_certificate_and_output_name_the_files_and_no_patient(
    run: Run, sites: Federation, export: Export
) -> None:
    files = [export("shared"), export("own", mix="own")]
    digests = [each["digest"] for each in run("recall", "--site-dir", sites.path / SITE, "--json").json]
    asked = run(*sites.officer, "--subject", "scan-patient-3", "--request-id", "request-3", "--wait", 0)
    assert asked.code == Outcome.PENDING
    carried_out = run("catch-up", "--site-dir", sites.path / SITE, "--service", sites.service)
    catch_up(run, sites, OTHER)
    certificate = certificate_of(run, sites, "request-3")

    with sites.site(SITE).open() as store:
        (receipt,) = ReceiptBook(store.journal).read_all([1]).values()
        (other,) = [Receipt.of(read_envelope(receipt))]
        facts = run("status", "--site-dir", sites.path / SITE, "--json").json
    assert other.exported == tuple(digests)
    assert "2 models that were given away must be replaced: munkey-client recall" in carried_out.out
    assert facts["exported_models"] == {"may stay": 0, "must be replaced": 2, "withdrawn": 0}
    shown = run("verify", certificate, "--keys", sites.path / "trust.json", "--json")
    named = {each["site"]: each["exported"] for each in shown.json["sites"]}
    assert named == {SITE: [{"digest": one, "must_be_replaced": True} for one in digests], OTHER: []}
    assert any("hospital-1 names 2 models that it had given away" in line for line in shown.json["proved"])
    listed = run("recall", "--site-dir", sites.path / SITE)
    lineage = run("recall", "--site-dir", sites.path / SITE, "--request", "request-3")
    said = [carried_out.out, listed.out, lineage.out, *(path.read_bytes().decode("latin-1") for path in files)]
    assert "scan-" not in "".join([*said, shown.out])


def test_request_is_followed_to_releases_and_models(run: Run, sites: Federation, export: Export) -> None:
    before = json.loads(sites.site(SITE).shared_weights.with_suffix(".json").read_text())["digest"]
    path = export("shared")
    request = forget(run, sites, "scan-patient-1")
    typed = ["recall", "--site-dir", sites.path / SITE, "--request", request]

    owed = run(*typed, "--json").json
    after = taken(sites, SITE).digest()
    renewed = run(*typed, "--json").json

    assert after != before
    assert owed["releases"] == [{"digest": before, "renewed": False}]
    assert renewed["releases"] == [{"digest": before, "renewed": True}]
    assert [each["name"] for each in renewed["models"]] == [path.name]
    assert "the site has had no order of request unheard-of" in run(*typed[:-1], "unheard-of").error


def test_site_that_erased_nothing_is_told_by_the_certificate(
    run: Run, sites: Federation, export: Export, check: Callable[..., Ended]
) -> None:
    first = taken(sites, OTHER, _other_release(sites))
    renew(sites, first)
    old = export("old", OTHER)
    request = forget(run, sites, "scan-patient-30")
    keys = ["--keys", sites.path / "trust.json"]
    asking = ["--service", sites.service]
    assert check(old, site=OTHER).code == 0
    assert "nothing shows that the weights were renewed" in check(old, *asking, site=OTHER).out
    owed = certificate_of(run, sites, request, "owed")
    assert "nothing shows that the weights were renewed" in check(old, "--certificate", owed, *keys, site=OTHER).out
    renewed = take_over(sites.site(SITE))
    renew(sites, renewed)
    certificate = certificate_of(run, sites, request)

    stale = check(old, "--certificate", certificate, *keys, site=OTHER)
    assert stale.code == MUST_BE_REPLACED
    words = f"request {request}: {SITE} erased records, and the weights were renewed as {renewed.digest()[:16]}"
    assert words in stale.out
    asked = check(old, *asking, site=OTHER)
    assert (asked.code, words in asked.out) == (MUST_BE_REPLACED, True)
    taken(sites, OTHER, renewed)
    new = export("new", OTHER)
    assert check(new, "--certificate", certificate, *keys, site=OTHER).code == 0
    assert check(new, *asking, site=OTHER).code == 0
    later = taken(sites, OTHER, replace(renewed, choice=replace(renewed.choice, temperature=0.5)))
    assert len({first.digest(), renewed.digest(), later.digest()}) == 3
    newest = export("later", OTHER)
    assert check(newest, "--certificate", certificate, *keys, site=OTHER).code == 0
    assert check(newest, *asking, site=OTHER).code == 0


def _other_release(federation: Federation) -> Release:
    release = take_over(federation.site(OTHER))
    return replace(release, choice=replace(release.choice, temperature=0.04))


def test_whoever_was_given_a_model_needs_no_folder_of_the_site(
    run: Run, sites: Federation, export: Export, tmp_path: Path
) -> None:
    path = export("shared")
    request = forget(run, sites, "scan-patient-5")
    typed = ["recall", "--check", path, "--certificate", certificate_of(run, sites, request)]

    ended = run(*typed, "--keys", sites.path / "trust.json")

    assert ended.code == MUST_BE_REPLACED
    assert f"request {request}: the receipt of the site that gave it away names it" in ended.out
    assert "certificates are checked with --keys" in run(*typed).error
    assert "is asked as a site; name its folder" in run(*typed, "--service", sites.service).error
    (tmp_path / "other.onnx").write_bytes(b"no model")
    refused = run("recall", "--check", tmp_path / "other.onnx", *typed[3:], "--keys", sites.path / "trust.json").error
    assert "is no ONNX file" in refused


def test_unknown_and_altered_files_are_refused(
    run: Run, sites: Federation, export: Export, check: Callable[..., Ended]
) -> None:
    path, tmp_path = export("shared"), sites.path
    for name, content in (("altered", path.read_bytes() + b"\x00"), ("unknown", b"")):
        (tmp_path / name).write_bytes(content)
        ended = check(tmp_path / name)
        assert ended.code == EXIT_CODE
        assert "is no file that this site has exported, or it was changed since" in ended.err
    assert "cannot be read (No such file or directory)" in check(tmp_path / "absent").error
    assert "is no file that this site has exported" in check(path, site=OTHER).error
    assert "a model is checked with the site's folder" in run("recall", "--check", path).error


def test_withdrawn_model_is_named_no_more(run: Run, sites: Federation, export: Export) -> None:
    path, kept = export("shared"), export("kept", mix="own")
    folder = sites.site(SITE)
    assert run("recall", "--site-dir", folder.path, "--withdrawn", path).code == 0
    forget(run, sites, "scan-patient-7")

    shown = run("recall", "--site-dir", folder.path, "--json").json
    with folder.open() as store:
        (receipt,) = ReceiptBook(store.journal).read_all([1]).values()

    assert [each["state"] for each in shown] == ["withdrawn", "must be replaced"]
    assert Receipt.of(read_envelope(receipt)).exported == (shown[1]["digest"],)
    assert kept.exists()


def test_deletion_while_a_model_is_written_is_not_in_it(
    run: Run, sites: Federation, export: Export, check: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    written, asked = exporting._written, list[Any]()

    def forget_meanwhile(*given: Any) -> Any:
        if not asked:
            asked.append(forget(run, sites, "scan-patient-9"))
            taken(sites, SITE)
        return written(*given)

    monkeypatch.setattr(exporting, "_written", forget_meanwhile)

    path = export("shared")

    models = ExportRegister(sites.site(SITE)).read()
    assert [bool(model.withdrawn) for model in models] == [True, False]
    assert models[1].last_order == 1
    assert check(path).code == 0


def test_register_that_was_cut_off_goes_on_and_a_damaged_one_says_so_and_stops_no_deletion(
    run: Run, sites: Federation, export: Export, check: Callable[..., Ended]
) -> None:
    export("first")
    register = sites.path / SITE / FILE
    register.write_bytes(register.read_bytes() + b'{"event": "expor')
    path = export("second")
    assert [model.name for model in ExportRegister(sites.site(SITE)).read()] == ["first.onnx", "second.onnx"]
    lines = register.read_text().splitlines()
    for damaged in ("{}", "[]", "no JSON", lines[0].replace('"digest": "', '"digest": "X')):
        register.write_text("\n".join([damaged, *lines]) + "\n")
        assert "line 1 of" in check(path).error
    forget(run, sites, "scan-patient-11")

    with sites.site(SITE).open() as store:
        assert store.orders.read_answers()[0].entries == 2


def test_orders_that_a_restored_ledger_gave_other_numbers_are_believed_to_be_in_the_model(
    run: Run, sites: Federation, export: Export, check: Callable[..., Ended]
) -> None:
    path = export("shared")
    request = forget(run, sites, "scan-patient-13")
    taken(sites, SITE)
    later = export("later")
    with sites.site(SITE).open() as store:
        store.orders.set_aside(0, store.orders.request_ids())
        assert store.orders.last == 0
        named = holding(store, 1)

    ended = check(path)

    # The first is found by its number; the order that the second names has none any more.
    assert [hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, later)] == list(named)
    assert check(later).code == MUST_BE_REPLACED

    assert ended.code == MUST_BE_REPLACED
    assert request in ended.out


def test_console_of_the_site_says_that_models_must_be_replaced(run: Run, sites: Federation, export: Export) -> None:
    export("shared")
    channel = DeletionChannel(sites.service, timeout=PATIENCE)
    face = make_console(Office.of_site(sites.site(SITE)), channel)
    with served(face, channel.close) as address:
        browser = httpx.Client(base_url=f"http://{address}", follow_redirects=True, timeout=PATIENCE)
        with browser:
            assert browser.get(face.entrance.address(address)).status_code == 200
            before = browser.get("/own").text
            assert "may stay" in browser.get("/models").text
            forget(run, sites, "scan-patient-15")
            after = browser.get("/own").text
            german = browser.get("/own", headers={"accept-language": "de"}).text
            models = browser.get("/models").text

    assert "must be replaced" in models
    assert "shared.onnx" in models
    assert "must be replaced" not in before
    assert "1 model that was given away must be replaced" in after
    assert "1 weitergegebenes Modell muss ersetzt werden" in german


def test_what_was_erased_before_there_were_weights_recalls_nothing(
    run: Run, sites: Federation, export: Export, check: Callable[..., Ended]
) -> None:
    forget(run, sites, "scan-patient-17")
    taken(sites, OTHER)

    assert check(export("first", OTHER), "--service", sites.service, site=OTHER).code == 0
