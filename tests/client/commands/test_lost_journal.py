"""A key store that is made anew in a site's folder: what it does not know it neither claims nor lets back in."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmunkey.common.deletions.words import Outcome, SiteProgress, SiteState
from fedmunkey.common.model.model_choice import choose_shape, initial_model
from fedmunkey.common.settings.settings import Settings

from .conftest import OTHER, SITE, TEST, TRAIN, Ended, Federation, Run, catch_up

WAIT = "run munkey-client catch-up first"
CANNOT_TELL = "its key store is a restored or a new one, and cannot tell what the one before it held"


def ask(run: Run, federation: Federation, request_id: str, *words: object) -> Ended:
    return run(*federation.officer, *words, "--request-id", request_id, "--wait", 0)


def lose(federation: Federation, *suffixes: str) -> None:
    """Take away files of a key store whose site has had shared weights."""
    settings = Settings().replace(image_shape="1x8x8", num_classes=2)
    federation.site(SITE).write_shared_weights(initial_model(choose_shape(settings), 0), settings)
    for suffix in suffixes:
        for file in federation.site(SITE).path.glob(f"keystore.{suffix}*"):
            file.unlink()


def hear(run: Run, federation: Federation, *words: object) -> Ended:
    return run("catch-up", "--site-dir", federation.site(SITE).path, "--service", federation.service, *words)


def answer(federation: Federation, request_id: str) -> SiteProgress:
    (found,) = [part for part in federation.ledger.get(request_id).sites if part.site == SITE]
    return found


def test_site_that_has_lost_its_journal_follows_no_log_unasked(
    run: Run, federation: Federation, enrolment: list[object]
) -> None:
    ask(run, federation, "r-1", "--subject", "scan-patient-1")
    catch_up(run, federation)
    lose(federation, "")

    assert WAIT in run(*enrolment).error
    assert "what the site has seen of the coordinator's log is lost" in hear(run, federation).error
    assert answer(federation, "r-1").state is SiteState.ERASED

    assert hear(run, federation, "--accept-log").code == 0
    assert run(*enrolment, "--json").json["refused"] == 2
    assert hear(run, federation).code == 0


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("lost", [["sqlite", "keys"], [""]], ids=["store", "store and journal"])
def test_nobody_comes_back_whom_the_whole_site_had_to_forget(
    run: Run, federation: Federation, enrolment: list[object], lost: list[str], pending: bool
) -> None:
    ask(run, federation, "r-1", "--subject", "scan-patient-1")
    catch_up(run, federation)
    assert ask(run, federation, "r-2", "--everything", "--site", SITE, "--yes").code == Outcome.PENDING
    if not pending:
        catch_up(run, federation)
    lose(federation, *lost)

    assert WAIT in run(*enrolment).error
    assert hear(run, federation, *(["--accept-log"] if lost == [""] else [])).code == 0
    shown = run(*enrolment, "--json").json

    assert (shown["added"], shown["refused"]) == (0, TRAIN + TEST)
    consented = federation.path / "consented.txt"
    consented.write_text("scan-7\n")
    assert run(*enrolment, "--new-consent", consented, "--json").json["added"] == 1
    found = answer(federation, "r-2")
    if pending:
        assert (found.state, found.reason) == (SiteState.NOTHING_HELD, CANNOT_TELL)
    else:
        assert (found.state, found.reason) == (SiteState.ERASED, "")


@pytest.mark.parametrize("empty", [False, True])
def test_order_that_an_emptied_site_hears_first_is_answered_with_what_it_knows(
    run: Run, federation: Federation, enrolment: list[object], empty: bool
) -> None:
    ask(run, federation, "r-1", "--subject", "scan-patient-1")
    catch_up(run, federation)
    lose(federation, "sqlite", "keys")
    assert WAIT in run(*enrolment).error
    if empty:
        # It has caught up, and its records are not enrolled again yet.
        catch_up(run, federation, SITE)

    ask(run, federation, "r-2", "--record", "scan-7", "--site", SITE)
    catch_up(run, federation)

    found = answer(federation, "r-2")
    assert (found.state, found.reason) == (SiteState.NOTHING_HELD, CANNOT_TELL)
    again = ask(run, federation, "r-2", "--record", "scan-7", "--site", SITE)
    assert again.code == Outcome.NOTHING_HELD
    assert f"Whether an earlier key store held it, {SITE} cannot tell" in again.err + again.out
    # It stays out all the same.
    assert run(*enrolment, "--json").json["refused"] == 3
    # The certificate claims no more.
    output, keys = federation.path / "certificate.json", federation.path / "trust.json"
    typed = ["certificate", "r-2", "--service", federation.service, "--output", output, "--keys", keys]
    assert run(*typed).code == 0
    verified = run("verify", output, "--keys", keys, "--json").document
    assert "whether they did before is left open" in verified["headline"]
    assert any(CANNOT_TELL in line for line in verified["proved"])
    assert any(f"Whether {SITE} held what was named" in line for line in verified["not_proved"])


def test_site_that_was_never_another_knows_that_it_holds_nothing(run: Run, federation: Federation) -> None:
    ask(run, federation, "r-1", "--subject", "nobody")
    catch_up(run, federation, OTHER, SITE)

    found = answer(federation, "r-1")
    assert (found.state, found.reason) == (SiteState.NOTHING_HELD, "")


def test_receipts_that_a_lost_journal_had_are_given_back(run: Run, federation: Federation, tmp_path: Path) -> None:
    backup, site = tmp_path / "later.backup", federation.site(SITE)
    ask(run, federation, "r-1", "--subject", "scan-patient-1")
    catch_up(run, federation)
    assert run("backup", "--site-dir", site.path, "--output", backup).code == 0
    with site.open() as store:
        receipts = store.journal.query("SELECT number, receipt FROM receipts")
        targets = store.journal.query("SELECT * FROM targets")
    lose(federation, "sqlite", "journal")
    assert run("restore", backup, "--site-dir", site.path, "--without-journal").code == 0

    assert hear(run, federation, "--accept-log").code == 0

    with site.open() as store:
        assert store.journal.query("SELECT number, receipt FROM receipts") == receipts
        assert store.journal.query("SELECT * FROM targets") == targets
        assert not store.orders.lacks_targets()
