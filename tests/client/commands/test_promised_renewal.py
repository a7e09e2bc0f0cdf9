"""A site answers from shared weights that hold what it has erased since, but for no longer than was promised."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.client.deletions.promised_renewal import CONTRIBUTED, RENEW_WITHIN, owed_renewal
from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.predicting import warm_predictor
from fedmunkey.client.site import SiteFolder, model_shape
from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.release import Release, write_release
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionRequest, Records
from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.deletions.ledger_service import LedgerService

from .conftest import SITE, Run
from .test_predict import imported

__all__ = ["imported"]

SETTINGS = Settings().replace(image_shape="1x16x16", num_classes=2)
DAYS = 7.0
WEEK = timedelta(days=DAYS)


@pytest.fixture
def site(run: Run, imported: Path, tmp_path: Path) -> SiteFolder:
    """A site with a key, which has taken weights over before it was asked to forget anything."""
    folder = SiteFolder(Path(shutil.copytree(imported / SITE, tmp_path / SITE)))
    assert run("signing-keys", "new", "--site-dir", folder.path).code == 0
    take_over(folder, contributed=0)
    return folder


def take_over(folder: SiteFolder, **about: object) -> None:
    """Have a site take weights over, with facts as a round's last step writes them."""
    with folder.open() as store:
        read = FeatureMap.of(Recipe.of(SETTINGS), model_shape(SETTINGS, store.description))
    facts: dict[str, Any] = {RENEW_WITHIN: DAYS, **({CONTRIBUTED: about["contributed"]} if about else {})}
    release = Release.nothing(read, 2, SETTINGS.encoder)
    write_release(folder.shared_weights, replace(release, about={"guarantee": "exact", **facts}))


def forget(run: Run, site: SiteFolder, ledger: LedgerService, service: str, imported: Path, row: int) -> None:
    """Have the site carry a deletion out; returns when it has signed that."""
    reference = FederationSecret.read(imported / "federation.secret").reference
    target = Records(frozenset({reference(f"PATIENT-{row}")}), SITE)
    ledger.submit(DeletionRequest(f"request-{row}", SITE, target))
    ended = run("catch-up", "--site-dir", site.path, "--service", service)
    assert ended.code == 0, ended.err


def _check(about: Mapping[str, Any], store: KeyStore, now: datetime) -> None:
    owed = owed_renewal(about, store)
    if owed is not None:
        owed.check(now)


def erased_at(folder: SiteFolder, number: int) -> datetime:
    with folder.open() as store:
        (receipt,) = ReceiptBook(store.journal).read_all([number]).values()
    return Receipt.of(read_envelope(receipt)).time


def test_predict_answers_within_the_promise_and_refuses_after_it(
    run: Run, site: SiteFolder, ledger: LedgerService, service: str, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = ["predict", imported / "20.png", "--site-dir", site.path]
    forget(run, site, ledger, service, imported, 0)
    at = erased_at(site, 1)

    def ask_at(time: datetime) -> Any:
        monkeypatch.setattr(warm_predictor, "utc_now", lambda: time)
        return run(*asking)

    in_time, late = ask_at(at + WEEK), ask_at(at + WEEK + timedelta(seconds=1))
    take_over(site, contributed=1)
    renewed = run(*asking)

    assert in_time.code == 0, in_time.err
    assert "upright" in in_time.out + renewed.out or "lying" in in_time.out + renewed.out
    assert late.error.startswith(
        f"the shared weights hold what was erased on {at:%Y-%m-%d} and should have been renewed by "
        f"{at + WEEK:%Y-%m-%d %H:%M} UTC"
    )
    assert "munkey-server run --renew" in late.err
    assert renewed.code == 0, renewed.err


def test_the_first_of_several_deletions_counts(
    run: Run, site: SiteFolder, ledger: LedgerService, service: str, imported: Path
) -> None:
    for row in (0, 1, 2):
        forget(run, site, ledger, service, imported, row)
    times = [erased_at(site, number) for number in (1, 2, 3)]

    with site.open() as store:
        for contributed, first in ((0, times[0]), (1, times[1]), (2, times[2])):
            about = {CONTRIBUTED: contributed, RENEW_WITHIN: DAYS}
            _check(about, store, first + WEEK)
            with pytest.raises(InvalidWeights, match="should have been renewed"):
                _check(about, store, first + WEEK + timedelta(microseconds=1))
        _check({CONTRIBUTED: 3, RENEW_WITHIN: DAYS}, store, times[2] + 9 * WEEK)


def test_what_was_never_in_the_weights_promises_nothing(
    run: Run, site: SiteFolder, ledger: LedgerService, service: str, imported: Path
) -> None:
    # Held-out records only, and one that nobody holds.
    forget(run, site, ledger, service, imported, 22)
    forget(run, site, ledger, service, imported, 999)
    late = erased_at(site, 1) + 9 * WEEK

    with site.open() as store:
        _check({CONTRIBUTED: 0, RENEW_WITHIN: DAYS}, store, late)
    forget(run, site, ledger, service, imported, 0)
    with site.open() as store, pytest.raises(InvalidWeights, match="should have been renewed"):
        _check({CONTRIBUTED: 0, RENEW_WITHIN: DAYS}, store, erased_at(site, 3) + 9 * WEEK)


@pytest.mark.parametrize("about", [{}, {RENEW_WITHIN: DAYS}, {CONTRIBUTED: 0}, {CONTRIBUTED: "0", RENEW_WITHIN: DAYS}])
def test_weights_that_say_nothing_of_a_promise_have_none(
    run: Run, site: SiteFolder, ledger: LedgerService, service: str, imported: Path, about: dict[str, object]
) -> None:
    """Those of `--model` are another's, and promise nothing for this site."""
    forget(run, site, ledger, service, imported, 0)
    late = erased_at(site, 1) + 9 * WEEK

    with site.open() as store:
        _check(about, store, late)
        with pytest.raises(InvalidWeights, match="should have been renewed"):
            _check({CONTRIBUTED: 0, RENEW_WITHIN: DAYS}, store, late)
