"""What is asked for again: signed anew under its id, or where site or ledger have lost what they knew."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path

import pytest

from fedmunkey.client.deletions.agent import catch_up
from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.on_disk.restoration import restore
from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER as OFFICER_NAME
from fedmunkey.common.deletions.words import DeletionRequest, SiteState, Subject, Target, WholeSite
from fedmunkey.common.privacy.guarantees import Guarantee, Influence
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.ledger.ledger import Ledger
from tests.client.conftest import SITE, Encode, MakeRecords, record_id, subject_id
from tests.proof_case import SECRET, SITE_KEYS, START, TRUST, open_coordinator, signed_request

Fill = Callable[..., Dataset]
Make = Callable[..., KeyStore]

NOW = START + timedelta(days=1)
OFFICER = TRUST.keys[0]


@pytest.fixture
def secret() -> FederationSecret:
    return SECRET


def subject(number: int) -> Subject:
    return Subject(SECRET.reference(subject_id(number)))


@pytest.fixture
def open_ledger(tmp_path: Path) -> Iterator[Callable[[str], LedgerService]]:
    """Return what gives a coordinator with a ledger of its own."""
    with ExitStack() as stack:

        def opened(name: str) -> LedgerService:
            (tmp_path / name).mkdir()
            return open_coordinator(stack, tmp_path / name, lambda: NOW)

        yield opened


def give_keys(store: KeyStore, trust: TrustedKeys) -> KeyStore:
    folder = SiteFolder(store.path.parent)
    SITE_KEYS[SITE].write(folder.signing_key)
    SECRET.write(folder.secret)
    trust.write(folder.trust)
    return store


@pytest.fixture
def store(make_store: Make, fill: Fill) -> KeyStore:
    # The log is another one whenever the ledger is.
    made = give_keys(make_store(guarantee=Guarantee.EXACT), TrustedKeys((OFFICER, *TRUST.keys[2:])))
    fill(made, range(6), subjects=[1, 1, 2, 3, 4, 5])
    return made


@pytest.fixture
def come_back(make_records: MakeRecords, encode_records: Encode) -> Callable[[KeyStore], None]:
    """Return what enrols one of the first subject's records with new consent."""

    def enrol(store: KeyStore) -> None:
        records = make_records([0], subjects=[1])
        encoding = encode_records(records)
        store.records.enrol(records, encoding, SECRET, new_consent=frozenset([record_id(0)]))

    return enrol


def said(ledger: LedgerService, name: str) -> tuple[SiteState, int, Guarantee]:
    """Return the site's answer to a request as the ledger has it."""
    (answer,) = [found.acknowledgement for found in ledger.get(name).sites if found.site == SITE]
    assert answer is not None
    return answer.state, answer.records, answer.guarantee


def ask(ledger: LedgerService, store: KeyStore, name: str, target: Target, issued: timedelta) -> tuple[SiteState, int]:
    """Ask for a deletion and return what the site answers, as the ledger has it."""
    ledger.submit(signed_request(name, target, issued=START + issued))
    catch_up(store, ledger, clock=lambda: NOW)
    assert store.orders.unacknowledged() == []
    return said(ledger, name)[:2]


DAY = timedelta(hours=6)


def test_request_that_is_signed_anew_gets_the_earlier_answer(
    store: KeyStore, open_ledger: Callable[[str], LedgerService]
) -> None:
    assert ask(open_ledger("first"), store, "request-1", subject(1), 0 * DAY) == (SiteState.ERASED, 2)
    (before,) = store.orders.read_answers()

    later = open_ledger("later")
    # Others come first, so that numbers differ.
    assert ask(later, store, "request-2", subject(2), 0 * DAY) == (SiteState.ERASED, 1)
    assert ask(later, store, "request-1", subject(1), 1 * DAY) == (SiteState.ERASED, 2)

    (answer,) = [answer for answer in store.orders.read_answers() if answer.number == 2]
    assert (answer.records, answer.entries, answer.guarantee) == (before.records, before.entries, before.guarantee)
    # It is signed for what was asked for now.
    receipt = Receipt.of(read_envelope(ReceiptBook(store.journal).read_all([2])[2]))
    assert receipt.request == store.orders.request_of(2)
    assert receipt.answer.records == 2
    assert store.records.count(Split.TRAIN) == 3


@pytest.mark.parametrize("target", [subject(2), subject(9), WholeSite(SITE)])
def test_other_request_under_the_same_id_is_another_one(
    store: KeyStore, open_ledger: Callable[[str], LedgerService], target: Target
) -> None:
    ask(open_ledger("first"), store, "request-2", subject(2), 0 * DAY)
    ask(open_ledger("second"), store, "request-1", subject(1), 0 * DAY)

    found = ask(open_ledger("third"), store, "request-1", target, 1 * DAY)

    assert found == ((SiteState.ERASED, 3) if isinstance(target, WholeSite) else (SiteState.NOTHING_HELD, 0))


def test_what_came_in_again_is_deleted_again(
    store: KeyStore, open_ledger: Callable[[str], LedgerService], come_back: Callable[[KeyStore], None]
) -> None:
    ask(open_ledger("first"), store, "request-1", subject(1), 0 * DAY)
    come_back(store)

    assert ask(open_ledger("second"), store, "request-1", subject(1), 1 * DAY) == (SiteState.ERASED, 1)


def test_earlier_answer_that_claimed_more_is_not_given_again(
    store: KeyStore, open_ledger: Callable[[str], LedgerService], come_back: Callable[[KeyStore], None]
) -> None:
    ask(open_ledger("first"), store, "request-1", subject(1), 0 * DAY)
    assert store.orders.read_answers()[0].guarantee is Guarantee.EXACT
    come_back(store)
    entries, _ = store.records.read_entries(Split.TRAIN)
    store.records.write_tokens(store.generation, entries, store.records.read_tokens(entries), used=Influence.UNBOUNDED)
    ask(open_ledger("second"), store, "request-2", subject(1), 1 * DAY)

    assert ask(open_ledger("third"), store, "request-1", subject(1), 2 * DAY) == (SiteState.NOTHING_HELD, 0)


def test_answer_that_a_lost_journal_changed_does_not_stay_pending(
    make_store: Make, fill: Fill, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(guarantee=Guarantee.EXACT)
    fill(store, range(4))
    store.back_up(tmp_path / "monday.backup", NOW)
    with Ledger(tmp_path / "ledger.sqlite") as opened, closing(LedgerService(opened)) as ledger:
        opened.register(SITE)
        ledger.submit(DeletionRequest("request-1", OFFICER_NAME, subject(1)))
        catch_up(store, ledger)
        assert said(ledger, "request-1") == (SiteState.ERASED, 1, Guarantee.EXACT)
        store.close()
        for file in (*store.journal.files, store.path):
            file.unlink(missing_ok=True)
        restore(tmp_path / "monday.backup", store.path, without_journal=True)

        with KeyStore.open(store.path) as again, caplog.at_level(logging.WARNING):
            again.journal.forget_lost_log()
            (answer,) = catch_up(again, ledger)

            # What the site can say now, and what it said then: neither takes the other's place.
            assert (answer.state, answer.records, answer.guarantee) == (SiteState.ERASED, 1, Guarantee.EMPIRICAL)
            assert said(ledger, "request-1") == (SiteState.ERASED, 1, Guarantee.EXACT)
            assert again.orders.read_answers() == [answer]
            assert again.orders.unacknowledged() == []
            assert catch_up(again, ledger) == []
    assert any("was answered by this site before, and the service keeps that" in line for line in caplog.messages)


def test_refusal_that_a_new_store_does_not_repeat_does_not_stay_pending(
    make_store: Make, fill: Fill, open_ledger: Callable[[str], LedgerService]
) -> None:
    ledger = open_ledger("coordinator")
    store = give_keys(make_store(), TrustedKeys(TRUST.keys[1:]))
    fill(store, range(4))
    assert ask(ledger, store, "request-1", subject(1), 0 * DAY) == (SiteState.REFUSED, 0)

    # The officer is trusted by now.
    again = give_keys(make_store(), TRUST)
    fill(again, range(4))
    (answer,) = catch_up(again, ledger, clock=lambda: NOW)

    assert (answer.state, answer.records) == (SiteState.ERASED, 1)
    assert said(ledger, "request-1")[0] is SiteState.REFUSED
    assert again.orders.unacknowledged() == []
    ask(ledger, again, "request-2", subject(2), 0 * DAY)
    book = ReceiptBook(again.journal)
    assert (book.count(), book.alarms()) == ((1, 1), [])
