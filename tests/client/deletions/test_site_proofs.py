"""A site between the orders that come and its key store, with a coordinator that may lie."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.client.deletions.agent import catch_up
from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.client.deletions.site_proofs import SiteProofs
from fedmunkey.client.deletions.witness import _RECEIPTS_AT_ONCE
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, SiteState, Subject
from fedmunkey.common.errors import InvalidDeletion, InvalidProof, KeyStoreError, NotAllowed
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.log_heads import LogUpdate
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.proofs.trusted_keys import Role
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.transparency_log.leaves import Leaf, LeafKind
from tests.client.conftest import subject_id
from tests.proof_case import (
    SECRET,
    SITE_KEYS,
    SITES,
    START,
    STRANGER,
    TRUST,
    open_coordinator,
    signed_request,
)

SITE = SITES[0]
NOW = START + timedelta(days=1)


@pytest.fixture
def secret() -> FederationSecret:
    """The fixtures of this folder enrol with the case's secret."""
    return SECRET


@pytest.fixture
def filled(store: KeyStore, fill: Callable[..., object]) -> KeyStore:
    """A site with keys, trust and ten records of ten subjects."""
    fill(store, range(10))
    give_keys(store)
    return store


def give_keys(store: KeyStore) -> None:
    folder = SiteFolder(store.path.parent)
    SITE_KEYS[SITE].write(folder.signing_key)
    SECRET.write(folder.secret)
    TRUST.write(folder.trust)


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[LedgerService]:
    folder = tmp_path / "coordinator"
    folder.mkdir()
    with ExitStack() as stack:
        yield open_coordinator(stack, folder)


def subject(number: int) -> Subject:
    return Subject(SECRET.reference(subject_id(number)))


def order(number: int, request: DeletionRequest) -> DeletionOrder:
    return DeletionOrder(number, SITE, request)


def proofs_of(store: KeyStore, now: datetime = NOW) -> SiteProofs:
    return SiteProofs(store, clock=lambda: now)


@contextmanager
def book_of(store: KeyStore) -> Iterator[ReceiptBook]:
    book = ReceiptBook(store.journal)
    yield book


def alarms(store: KeyStore) -> list[str]:
    with book_of(store) as book:
        return [alarm.fault for alarm in book.alarms()]


def ask_and_catch_up(store: KeyStore, coordinator: LedgerService, *numbers: int) -> None:
    """Have the officer ask for some subjects, and the site answer."""
    for number in numbers:
        coordinator.submit(signed_request(f"request-{number}", subject(number)))
    catch_up(store, coordinator, clock=lambda: NOW)


def test_signed_order_is_carried_out_with_a_receipt(filled: KeyStore) -> None:
    request = signed_request(target=subject(3))
    proofs = proofs_of(filled)
    answer = proofs.carry_out(order(1, request))

    envelope = read_envelope(answer.receipt)
    receipt = Receipt.of(envelope)
    TRUST.verify(envelope, Role.SITE, NOW, SITE)
    receipt.check_describes(answer)
    assert (answer.state, answer.records) == (SiteState.ERASED, 1)
    assert receipt.request == OpenedRequest.of(request).digest
    assert (receipt.time, receipt.witnessed) == (NOW, None)
    assert receipt.tombstones is not None


def test_receipt_holds_no_reference_and_no_id(filled: KeyStore) -> None:
    proofs = proofs_of(filled)
    answer = proofs.carry_out(order(1, signed_request(target=subject(3))))

    payload = read_envelope(answer.receipt).payload
    for secret in (SECRET.reference(subject_id(3)).hex(), subject_id(3), filled.reference_hashes.key.hex()):
        assert secret.encode() not in payload


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (replace(signed_request(target=subject(3)), signature=b""), "unsigned"),
        (signed_request(target=subject(3), key=STRANGER), "not trusted"),
        (replace(signed_request(target=subject(4)), target=subject(3)), "altered"),
        (signed_request(target=subject(3), days=0.5), "expired"),
        (signed_request(target=subject(3), requester=SITES[1], key=SITE_KEYS[SITES[1]]), "out of scope"),
    ],
)
def test_refused_order_deletes_nothing_and_is_answered_with_a_signed_reason(
    filled: KeyStore, request_: DeletionRequest, reason: str
) -> None:
    proofs = proofs_of(filled)
    answer = proofs.carry_out(order(1, request_))

    receipt = Receipt.of(read_envelope(answer.receipt))
    assert (answer.state, answer.records, answer.guarantee) == (SiteState.REFUSED, 0, Guarantee.EMPIRICAL)
    assert reason in answer.reason
    assert receipt.answer.reason == answer.reason
    assert receipt.tombstones is None
    assert sum(filled.records.count_consents().values()) == 10
    assert filled.orders.last == 1
    assert not filled.records.has_deleted(SECRET.reference(subject_id(3)))


def test_refusal_stays_even_if_the_requester_is_trusted_later(filled: KeyStore) -> None:
    made = order(1, signed_request(target=subject(3), key=STRANGER))
    proofs = proofs_of(filled)
    proofs.carry_out(made)
    TRUST.add(replace(TRUST.keys[0], key=STRANGER.public)).write(SiteFolder(filled.path.parent).trust)
    again = proofs.carry_out(made)
    next_ = proofs.carry_out(order(2, signed_request("request-2", subject(4), key=STRANGER)))

    assert again.state is SiteState.REFUSED
    assert next_.state is SiteState.ERASED


@pytest.mark.parametrize("together", [False, True])
def test_replay_gets_the_earlier_answer_and_answers_never_change(filled: KeyStore, together: bool) -> None:
    request, next_ = signed_request(target=subject(3)), signed_request("request-2", subject(5))
    other = signed_request("request-3", subject(4))
    orders = [order(1, request), order(2, request), order(3, other), order(4, next_)]
    proofs = proofs_of(filled)
    answers = proofs.carry_out_all(orders) if together else [proofs.carry_out(made) for made in orders]
    proofs = proofs_of(filled, NOW + timedelta(days=1))
    again = proofs.carry_out_all(orders)

    assert [answer.state for answer in answers] == [SiteState.ERASED] * 4
    assert answers[1] == replace(answers[0], number=2)
    assert [Receipt.of(read_envelope(answer.receipt)).answer.number for answer in answers] == [1, 2, 3, 4]
    assert [answer.receipt for answer in again] == [answer.receipt for answer in answers]
    assert sum(filled.records.count_consents().values()) == 7


def test_every_receipt_of_a_backlog_is_shown_to_be_in_the_log(filled: KeyStore, coordinator: LedgerService) -> None:
    count = 2 * _RECEIPTS_AT_ONCE + 3
    ask_and_catch_up(filled, coordinator, *range(count))

    with book_of(filled) as book:
        assert book.count() == (count, count)
        assert not book.alarms()


def test_site_without_trusted_keys_carries_out_unsigned_orders(store: KeyStore, fill: Callable[..., object]) -> None:
    fill(store, range(3))
    request = replace(signed_request(target=subject(1)), signature=b"")
    proofs = proofs_of(store)
    answer = proofs.carry_out(order(1, request))

    assert (answer.state, answer.receipt) == (SiteState.ERASED, b"")
    assert ReceiptBook(store.journal).count() == (0, 0)


def test_site_whose_files_cannot_be_used_deletes_nothing(filled: KeyStore) -> None:
    folder = SiteFolder(filled.path.parent)
    folder.trust.write_text("{}")
    proofs = proofs_of(filled)
    with pytest.raises(InvalidProof):
        proofs.carry_out(order(1, signed_request(target=subject(3))))
    folder.signing_key.chmod(0o644)
    with pytest.raises(InvalidProof, match="chmod 600"):
        proofs_of(filled)

    assert filled.orders.last == 0


def test_receipt_that_a_crash_kept_from_being_signed_is_signed_later(
    filled: KeyStore, coordinator: LedgerService
) -> None:
    coordinator.submit(signed_request(target=subject(3)))
    (made,) = coordinator.watch(SITE, 0)
    filled.orders.apply(made)

    catch_up(filled, coordinator, clock=lambda: NOW)

    with book_of(filled) as book:
        assert book.count() == (1, 1)
    assert coordinator.get("request-1").sites[0].state is SiteState.ERASED


def test_order_that_is_sent_again_in_another_form_gets_no_receipt(filled: KeyStore) -> None:
    made = order(1, signed_request(target=subject(3)))
    filled.orders.apply(made)

    proofs = proofs_of(filled)
    with pytest.raises(KeyStoreError, match="as it was"):
        proofs.carry_out(order(1, replace(made.request, target=subject(4))))
    assert proofs.carry_out(made).receipt


def test_every_receipt_is_shown_to_be_in_the_log(filled: KeyStore, coordinator: LedgerService) -> None:
    for number in range(1, 5):
        ask_and_catch_up(filled, coordinator, number)

    assert sum(filled.records.count_consents().values()) == 6
    with book_of(filled) as book:
        head = book.head()
        assert book.count() == (4, 4)
        assert not book.alarms()
        second = book.read_all([2])[2]
    assert head is not None
    assert head.size == 8
    assert second is not None
    seen = Receipt.of(read_envelope(second)).witnessed
    assert seen is not None
    assert seen.size == 2


class Liar:
    """A coordinator that shows another log than it keeps."""

    def __init__(self, service: LedgerService, show: Callable[[int], LogUpdate | None]) -> None:
        self._service = service
        self._show = show

    def __getattr__(self, name: str) -> object:
        return getattr(self._service, name)

    def log_update(self, seen_size: int, _leaves: object = ()) -> LogUpdate | None:
        return self._show(seen_size)


@pytest.fixture
def witnessed(filled: KeyStore, coordinator: LedgerService) -> KeyStore:
    """The site once it has answered two orders and seen the log."""
    for number in (1, 2):
        ask_and_catch_up(filled, coordinator, number)
    return filled


def forked(tmp_path: Path, leaves: int) -> LedgerService:
    """Return a coordinator with the same keys and another history."""
    folder = tmp_path / f"forked-{leaves}"
    folder.mkdir()
    with ExitStack() as stack:
        service = open_coordinator(stack, folder)
        proofs = service._proofs
        assert proofs is not None
        proofs.log.extend([Leaf(LeafKind.REQUEST, f"x-{n}", b"%d" % n) for n in range(leaves)])
        stack.pop_all()
        return service


@pytest.mark.parametrize(
    ("leaves", "reason"),
    [(3, "3 leaves, not the 4"), (4, "same size differ"), (9, "consistency proof"), (0, "0 leaves, not the 4")],
)
def test_rewritten_shortened_or_forked_log_raises_the_alarm(
    witnessed: KeyStore, tmp_path: Path, leaves: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = forked(tmp_path, leaves)
    proofs = proofs_of(witnessed)
    with caplog.at_level(logging.ERROR, logger="fedmunkey.client.deletions.witness"):
        first, second = proofs.witness(other), proofs.witness(other)

    assert (first, second) == (False, False)
    assert "ALARM" in caplog.text
    (fault,) = alarms(witnessed)
    assert reason in fault
    assert "the last good head had 4 leaves" in fault
    other.ledger.close()


def test_log_without_the_sites_receipt_raises_the_alarm(
    witnessed: KeyStore, coordinator: LedgerService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CoordinatorProofs, "check_receipt", lambda *_: False)

    ask_and_catch_up(witnessed, coordinator, 3)

    (fault,) = alarms(witnessed)
    assert "receipt for order 3 is not in the log" in fault


def test_receipt_that_another_program_signs_meanwhile_is_not_looked_for(
    witnessed: KeyStore, coordinator: LedgerService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent has carried out an order, and has not given its answer, when training looks at the log."""
    coordinator.submit(signed_request("request-3", subject(3)))
    (brought,) = coordinator.watch(SITE, witnessed.orders.last)
    read_unproven = ReceiptBook.read_unproven

    def after_the_agent(book: ReceiptBook, *asked: Any, **more: Any) -> dict[int, bytes]:
        monkeypatch.undo()
        proofs_of(witnessed).carry_out(brought)
        return read_unproven(book, *asked, **more)

    monkeypatch.setattr(ReceiptBook, "read_unproven", after_the_agent)

    assert proofs_of(witnessed).witness(coordinator)

    assert alarms(witnessed) == []
    assert witnessed.orders.unacknowledged() == [brought.number]


def test_answer_that_the_coordinator_openly_refuses_raises_no_alarm(
    witnessed: KeyStore, coordinator: LedgerService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as refusing:
        refusing.setattr(CoordinatorProofs, "check_receipt", refuse)
        ask_and_catch_up(witnessed, coordinator, 3)
    assert [answer.number for answer in witnessed.orders.read_unacknowledged()] == [3]
    assert alarms(witnessed) == []

    catch_up(witnessed, coordinator, clock=lambda: NOW)

    assert witnessed.orders.read_unacknowledged() == []
    assert alarms(witnessed) == []


def refuse(*_: object) -> bool:
    raise InvalidDeletion("the coordinator's keys are out of date")


def test_hidden_and_badly_signed_logs_raise_the_alarm(witnessed: KeyStore, coordinator: LedgerService) -> None:
    update = coordinator.log_update(0)
    assert update is not None
    by_stranger = replace(update, head=replace(update.head, signatures=update.head.sign("x", b"", STRANGER).signatures))
    shown: tuple[tuple[LogUpdate | None, str], ...] = ((None, "shows no log"), (by_stranger, "not trusted"))
    proofs = proofs_of(witnessed)
    for lie, _ in shown:
        assert not proofs.witness(Liar(coordinator, lambda _, lie=lie: lie))  # type: ignore[arg-type, misc]

    for fault, (_, reason) in zip(alarms(witnessed), shown, strict=True):
        assert reason in fault


def test_log_alone_that_is_refused_raises_the_alarm_and_a_site_that_is_refused_everything_does_not(
    witnessed: KeyStore, coordinator: LedgerService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_allowed(*_: object, **__: object) -> Any:
        raise NotAllowed("the certificate was revoked")

    proofs = proofs_of(witnessed)
    monkeypatch.setattr(coordinator, "log_update", not_allowed)
    with monkeypatch.context() as revoked:
        revoked.setattr(coordinator, "watch_together", not_allowed)
        with pytest.raises(NotAllowed):
            proofs.witness(coordinator)
    assert alarms(witnessed) == []

    assert not proofs.witness(coordinator)
    (fault,) = alarms(witnessed)
    assert "cannot be trusted: the certificate was revoked; the last good head had" in fault


def test_site_goes_on_forgetting_and_keeps_its_last_good_head_after_an_alarm(
    witnessed: KeyStore, tmp_path: Path
) -> None:
    other = forked(tmp_path, 9)
    proofs = proofs_of(witnessed)
    proofs.witness(other)
    answer = proofs.carry_out(order(3, signed_request("request-3", subject(3))))
    seen = Receipt.of(read_envelope(answer.receipt)).witnessed

    assert answer.state is SiteState.ERASED
    assert seen is not None
    assert seen.size == 4
    assert len(alarms(witnessed)) == 1
    other.ledger.close()


def test_site_without_the_logs_key_witnesses_nothing(filled: KeyStore, coordinator: LedgerService) -> None:
    without = type(TRUST)(tuple(key for key in TRUST.keys if key.role is not Role.LOG))
    without.write(SiteFolder(filled.path.parent).trust)
    ask_and_catch_up(filled, coordinator, 3)

    with book_of(filled) as book:
        assert book.head() is None
        assert book.count() == (1, 0)
