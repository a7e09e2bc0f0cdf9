"""What a site has carried out is carried out again, whatever time has passed and whatever became of its key store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fedmunkey.client.deletions.agent import catch_up
from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.client.deletions.site_proofs import SiteProofs
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.on_disk.restoration import restore
from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder, SiteState, Subject
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.proofs.trusted_keys import Role
from fedmunkey.server.deletions.ledger_service import LedgerService
from tests.client.conftest import record_id, subject_id
from tests.proof_case import SECRET, SITE_KEYS, SITES, START, STRANGER, TRUST, open_coordinator, signed_request

SITE = SITES[0]
NOW, LATER = START + timedelta(days=1), START + timedelta(days=91)
FORGOTTEN = (3, 4)

Fill = Callable[..., Dataset]
Make = Callable[..., KeyStore]
Change = Callable[[KeyStore], KeyStore]


@pytest.fixture
def secret() -> FederationSecret:
    """The fixtures of this folder enrol with the case's secret."""
    return SECRET


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[LedgerService]:
    (tmp_path / "coordinator").mkdir()
    with ExitStack() as stack:
        yield open_coordinator(stack, tmp_path / "coordinator")


def give_keys(store: KeyStore) -> KeyStore:
    folder = SiteFolder(store.path.parent)
    SITE_KEYS[SITE].write(folder.signing_key)
    if not folder.secret.exists():
        SECRET.write(folder.secret)
    TRUST.write(folder.trust)
    return store


def subject(number: int) -> Subject:
    return Subject(SECRET.reference(subject_id(number)))


@pytest.fixture
def told(make_store: Make, fill: Fill, coordinator: LedgerService, tmp_path: Path) -> KeyStore:
    """A site that has forgotten two of ten subjects, and has a backup from before; the ledger has its answers."""
    store = give_keys(make_store())
    fill(store, range(10))
    store.back_up(tmp_path / "backup", NOW)
    for number in FORGOTTEN:
        coordinator.submit(signed_request(f"request-{number}", subject(number)))
    answers = catch_up(store, coordinator, clock=lambda: NOW)
    assert [answer.records for answer in answers] == [1, 1]
    return store


@pytest.fixture
def ways(told: KeyStore, make_store: Make, fill: Fill, tmp_path: Path) -> Iterator[dict[str, Callable[[], KeyStore]]]:
    """What a site may do with its key store afterwards."""
    with ExitStack() as stack:

        def restored() -> KeyStore:
            told.close()
            restore(tmp_path / "backup", told.path)
            return stack.enter_context(KeyStore.open(told.path))

        def restored_without_journal() -> KeyStore:
            told.close()
            for file in told.journal.files:
                file.unlink(missing_ok=True)
            told.path.unlink()
            restore(tmp_path / "backup", told.path, without_journal=True)
            store = stack.enter_context(KeyStore.open(told.path))
            # As `catch-up --accept-log` does, once somebody has looked.
            store.journal.forget_lost_log()
            return store

        def made_anew() -> KeyStore:
            store = give_keys(make_store())
            fill(store, range(10))
            return store

        yield {"restored": restored, "without journal": restored_without_journal, "new": made_anew}


def revoke_officer(store: KeyStore) -> None:
    officer = replace(TRUST.keys[0], revoked=START)
    trust = replace(TRUST, keys=(officer, *TRUST.keys[1:]))
    trust.write(SiteFolder(store.path.parent).trust)


@pytest.mark.parametrize("way", ["restored", "without journal", "new"])
@pytest.mark.parametrize("ended", ["expired", "revoked"])
def test_deleted_records_do_not_come_back(
    ways: dict[str, Callable[[], KeyStore]],
    coordinator: LedgerService,
    fill: Fill,
    way: str,
    ended: str,
) -> None:
    before = [coordinator.get(f"request-{number}") for number in FORGOTTEN]
    store = ways[way]()
    if ended == "revoked":
        revoke_officer(store)

    answers = catch_up(store, coordinator, clock=lambda: LATER if ended == "expired" else NOW)

    assert [(answer.state, answer.records) for answer in answers] == [(SiteState.ERASED, 1)] * 2
    assert store.records.count(Split.TRAIN) == 8
    assert store.orders.unacknowledged() == []
    assert [coordinator.get(f"request-{number}") for number in FORGOTTEN] == before
    assert ReceiptBook(store.journal).count() == (2, 2)
    assert ReceiptBook(store.journal).alarms() == []
    # Under their own ids, as another record of the subject, and as the same image of somebody else.
    fill(store, FORGOTTEN)
    fill(store, (20, 21), subjects=FORGOTTEN)
    assert store.records.count(Split.TRAIN) == 8
    for number in FORGOTTEN:
        assert store.records.refuses(SECRET.reference(record_id(number)), b"")
        assert store.records.refuses(b"", SECRET.reference(subject_id(number)))


@pytest.mark.parametrize("way", ["restored", "without journal", "new"])
def test_other_orders_that_have_expired_are_refused_as_ever(
    ways: dict[str, Callable[[], KeyStore]], coordinator: LedgerService, way: str
) -> None:
    store = ways[way]()
    coordinator.submit(signed_request("request-7", subject(7)))

    *_, last = catch_up(store, coordinator, clock=lambda: LATER)

    assert (last.state, last.reason[:7]) == (SiteState.REFUSED, "expired")
    assert store.records.count(Split.TRAIN) == 8


def forged(order: DeletionOrder) -> Acknowledgement:
    """Return an answer for a site by whoever has not its key."""
    request_id = order.request.request_id
    answer = Acknowledgement(order.number, SITE, request_id, SiteState.ERASED, 1, 1, Guarantee.EMPIRICAL, 0.0)
    digest = OpenedRequest.of(order.request).digest
    return replace(answer, receipt=Receipt(answer, digest, NOW, None, None).sign(STRANGER).to_bytes())


def test_answer_that_is_not_the_sites_own_is_no_evidence_and_stops_it(make_store: Make, fill: Fill) -> None:
    store = give_keys(make_store())
    fill(store, range(5))
    made = DeletionOrder(1, SITE, signed_request(target=subject(3), key=STRANGER))
    altered = replace(made, request=replace(signed_request("request-3", subject(4)), target=subject(3)))
    proofs = SiteProofs(store, clock=lambda: NOW)
    for order in (made, altered):
        with pytest.raises(KeyStoreError, match=r"order 1 as carried out by this site.*does not train or predict"):
            proofs.carry_out(replace(order, answer=forged(order)))

    assert store.orders.last == 0


@pytest.mark.usefixtures("told")
def test_store_that_cannot_tell_is_not_used_until_it_can(
    make_store: Make, fill: Fill, coordinator: LedgerService
) -> None:
    store = give_keys(make_store())
    fill(store, range(10))
    folder = SiteFolder(store.path.parent)
    folder.signing_key.unlink()
    STRANGER.write(folder.signing_key)
    without = replace(TRUST, keys=tuple(key for key in TRUST.keys if (key.role, key.name) != (Role.SITE, SITE)))
    without.write(folder.trust)

    with pytest.raises(KeyStoreError, match=r"refuse it \(expired: .*put the signing key that made it back"):
        catch_up(store, coordinator, clock=lambda: LATER)

    assert store.orders.last == 0
    with pytest.raises(KeyStoreError, match="run munkey-client catch-up first"):
        store.records.read_entries(Split.TRAIN)
    folder.signing_key.unlink()
    give_keys(store)
    catch_up(store, coordinator, clock=lambda: LATER)
    assert not store.is_restored
    assert store.records.count(Split.TRAIN) == 8


@pytest.mark.parametrize("kind", ["unsigned", "altered", "by a stranger"])
def test_refused_copy_of_a_request_burns_nothing(told: KeyStore, kind: str) -> None:
    genuine = signed_request("request-5", subject(5))
    copy = {
        "unsigned": replace(genuine, signature=b""),
        "altered": replace(genuine, target=subject(6)),
        "by a stranger": signed_request("request-5", subject(5), key=STRANGER),
    }[kind]
    proofs = SiteProofs(told, clock=lambda: NOW)

    refused = proofs.carry_out(DeletionOrder(3, SITE, copy))
    heard = proofs.carry_out(DeletionOrder(4, SITE, genuine))
    again = proofs.carry_out(DeletionOrder(5, SITE, copy))
    repeated = proofs.carry_out(DeletionOrder(6, SITE, genuine))

    # What the stranger signed is the same statement, so it asks for what was done.
    expected = SiteState.ERASED if kind == "by a stranger" else SiteState.REFUSED
    assert (refused.state, heard.state, again.state) == (SiteState.REFUSED, SiteState.ERASED, expected)
    assert repeated == replace(heard, number=6)
    assert told.records.count(Split.TRAIN) == 7
    receipt = Receipt.of(read_envelope(repeated.receipt))
    assert (receipt.answer.number, receipt.request) == (6, OpenedRequest.of(genuine).digest)


def test_records_with_new_consent_are_not_deleted_by_the_old_request(
    told: KeyStore, make_records: Callable[..., Dataset], encode_records: Callable[..., Encoding]
) -> None:
    records = make_records(FORGOTTEN)
    told.records.enrol(records, encode_records(records), SECRET, new_consent=frozenset(map(record_id, FORGOTTEN)))
    held = told.records.count(Split.TRAIN)
    proofs = SiteProofs(told, clock=lambda: NOW)

    answer = proofs.carry_out(DeletionOrder(3, SITE, signed_request("request-3", subject(3))))

    assert (held, told.records.count(Split.TRAIN)) == (10, 10)
    assert answer.state is SiteState.ERASED
