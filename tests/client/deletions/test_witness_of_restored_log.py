"""Which log a site follows after a restoration, and which it does not, whoever has the log's key."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.client.deletions.witness import witness
from fedmunkey.client.key_store import KeyStore
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.log_heads import LogHead, LogUpdate
from fedmunkey.common.proofs.merkle import EMPTY_ROOT
from fedmunkey.common.proofs.receipts import WitnessedHead
from fedmunkey.common.proofs.restored_log import RestoredLog
from fedmunkey.common.proofs.signing.canonical import parse_canonical
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import envelope_of
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.transparency_log.leaves import leaf_of_restored
from fedmunkey.server.transparency_log.log import TransparencyLog
from fedmunkey.server.transparency_log.restating import enter_restored, state_restored
from tests.proof_case import LOG, OFFICER_KEY, START, STRANGER, TRUST, open_coordinator, signed_request

HOUR = timedelta(hours=1)


class Restored:
    """A log that a site has seen with five leaves, put back to a copy of three, and gone on otherwise from there."""

    def __init__(self, folder: Path, book: ReceiptBook) -> None:
        self.book = book
        self._stack = ExitStack()
        self._folder = folder
        folder.mkdir()
        self.service = open_coordinator(self._stack, folder)
        self.ask(1, 2, 3)
        assert self.look(START)
        self._stack.close()
        for file in folder.glob("ledger.sqlite*"):
            shutil.copy(file, folder / f"copy-of-{file.name}")
        self.service = open_coordinator(self._stack, folder)
        self.ask(4, 5)
        assert self.look(START + HOUR)
        self.put_back()
        self.ask(6)

    def put_back(self) -> None:
        self._stack.close()
        for file in self._folder.glob("ledger.sqlite*"):
            file.unlink()
        for file in self._folder.glob("copy-of-*"):
            shutil.copy(file, self._folder / file.name.removeprefix("copy-of-"))
        self.service = open_coordinator(self._stack, self._folder)

    @property
    def log(self) -> TransparencyLog:
        return TransparencyLog(self.service.ledger.engine, LOG, clock=lambda: START)

    def ask(self, *numbers: int) -> None:
        for number in numbers:
            self.service.submit(signed_request(f"request-{number}"))

    def look(self, now: datetime, trust: TrustedKeys = TRUST, service: LedgerService | None = None) -> bool:
        return witness(service or self.service, self.book, trust, now)

    def state(self, at: datetime, *officers: SigningKey, size: int = 3, key: SigningKey = LOG) -> Envelope:
        """Enter a statement into the log, as somebody could who has the database and a key."""
        said = state_restored(self.log, key, "the disk failed", size, at)
        for officer in officers:
            said = said.countersign(officer)
        self.log.extend([leaf_of_restored(said)])
        return said

    def alarms(self) -> list[str]:
        return [alarm.fault for alarm in self.book.alarms()]

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def restored(store: KeyStore, tmp_path: Path) -> Iterator[Restored]:
    made = Restored(tmp_path / "coordinator", ReceiptBook(store.journal))
    yield made
    made.close()


def test_followed_log_leaves_the_evidence_of_what_it_lost(restored: Restored, store: KeyStore) -> None:
    seen = restored.book.head()
    assert not restored.look(START + 2 * HOUR)
    said = restored.state(START + 3 * HOUR, OFFICER_KEY)

    assert restored.look(START + 4 * HOUR)
    assert restored.look(START + 5 * HOUR)

    assert len(restored.alarms()) == 2
    assert "restored from a copy of 3 leaves" in restored.alarms()[1]
    head = restored.book.head()
    assert head == WitnessedHead(5, restored.log.root(5))
    ((evidence,),) = store.journal.query("SELECT envelope FROM alarms WHERE fault LIKE '%restored from a copy%'")
    document = parse_canonical(evidence, "the evidence")
    lost = LogHead.of(envelope_of(document["lost"]))
    assert seen is not None
    assert (lost.size, lost.root) == (seen.size, seen.root)
    assert seen.root != head.root
    TRUST.verify(envelope_of(document["lost"]), Role.LOG, lost.time)
    assert envelope_of(document["restored"]) == said


@pytest.mark.parametrize("call", range(1, 5))
@pytest.mark.parametrize("after", [False, True])
def test_two_programs_of_a_site_that_look_at_once_follow_it_once(
    restored: Restored, monkeypatch: pytest.MonkeyPatch, call: int, after: bool
) -> None:
    """An agent follows the restored log before or after any of the questions that a command asks about it."""
    restored.state(START + 3 * HOUR, OFFICER_KEY)
    update, calls = restored.service.log_update, iter(range(1, 100))

    def beside_another(*asked: Any) -> LogUpdate | None:
        if next(calls) != call:
            return update(*asked)
        monkeypatch.undo()
        shown = update(*asked) if after else None
        assert restored.look(START + 4 * HOUR)
        return shown if after else update(*asked)

    monkeypatch.setattr(restored.service, "log_update", beside_another)

    assert restored.look(START + 4 * HOUR)

    (followed,) = restored.alarms()
    assert "restored from a copy of 3 leaves" in followed
    assert next(calls) > call


def test_head_of_before_does_not_take_the_place_of_one_that_was_followed_meanwhile(
    restored: Restored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program has the answer of the log that is lost just now, and keeps it after another has followed the copy."""
    restored.state(START + 3 * HOUR, OFFICER_KEY)
    assert restored.look(START + 4 * HOUR)
    restored.ask(7, 8)
    service, update = restored.service, restored.service.log_update

    def before_the_loss(*asked: Any) -> LogUpdate | None:
        monkeypatch.undo()
        shown = update(*asked)
        restored.put_back()
        restored.ask(6)
        restored.state(START + 6 * HOUR, OFFICER_KEY)
        assert restored.look(START + 7 * HOUR)
        monkeypatch.setattr(service, "log_update", restored.service.log_update)
        return shown

    monkeypatch.setattr(service, "log_update", before_the_loss)

    assert restored.look(START + 7 * HOUR, service=service)

    assert restored.book.head() == WitnessedHead(5, restored.log.root(5))
    assert all("restored from a copy of 3 leaves" in fault for fault in restored.alarms())
    assert restored.look(START + 8 * HOUR)


@pytest.mark.parametrize(
    ("officers", "trust"),
    [
        ((), TRUST),
        ((STRANGER,), TRUST),
        ((OFFICER_KEY,), TRUST.end("officer-1", START + HOUR)),
        ((OFFICER_KEY,), TRUST.revoke("officer-1", START)),
        ((OFFICER_KEY,), TRUST.add(TrustedKey("officer-2", Role.OFFICER, STRANGER.public)).require(2)),
    ],
)
def test_log_is_not_followed_for_too_few_officers_or_ended_keys(
    restored: Restored, officers: tuple[SigningKey, ...], trust: TrustedKeys
) -> None:
    seen = restored.book.head()
    restored.state(START + 3 * HOUR, *officers)

    assert not restored.look(START + 4 * HOUR, trust)

    assert restored.book.head() == seen
    assert all("cannot be trusted" in alarm for alarm in restored.alarms())


def test_log_is_followed_after_the_officers_key_has_ended(restored: Restored) -> None:
    """Whoever was off meanwhile hears of it later; a site that has looked since the key's end follows no such word."""
    restored.state(START + 3 * HOUR, OFFICER_KEY)
    ended = TRUST.end("officer-1", START + 4 * HOUR)

    assert restored.look(START + 5 * HOUR, ended)

    assert "restored from a copy of 3 leaves" in restored.alarms()[-1]
    restored.ask(7, 8)
    assert restored.look(START + 6 * HOUR, ended)
    restored.put_back()
    restored.ask(6)
    restored.state(START + 4 * HOUR - HOUR / 2, OFFICER_KEY)
    assert not restored.look(START + 7 * HOUR, ended)


def test_statement_from_before_explains_nothing_that_was_seen_since(restored: Restored) -> None:
    """Whoever takes the coordinator over later has the statement, and the key of the log."""
    said = restored.state(START + 3 * HOUR, OFFICER_KEY)
    restored.look(START + 4 * HOUR)
    restored.ask(7, 8)
    assert restored.look(START + 5 * HOUR)

    restored.put_back()
    restored.ask(6)
    restored.log.extend([leaf_of_restored(said)])

    assert not restored.look(START + 6 * HOUR)
    assert "cannot be trusted" in restored.alarms()[-1]


def test_statement_that_is_dated_in_the_future_is_not_followed_before(restored: Restored) -> None:
    restored.state(START + 30 * HOUR, OFFICER_KEY)

    assert not restored.look(START + 4 * HOUR)
    assert restored.look(START + 31 * HOUR)


def test_head_that_the_site_saw_of_the_copy_must_fit(restored: Restored, tmp_path: Path) -> None:
    """A log that goes on from less than the statement says has dropped what the site knows that the copy held."""
    with ExitStack() as stack:
        (tmp_path / "other").mkdir()
        other = open_coordinator(stack, tmp_path / "other")
        for number in (1, 9, 8, 7):
            other.submit(signed_request(f"request-{number}"))
        log = TransparencyLog(other.ledger.engine, LOG, clock=lambda: START)
        said = state_restored(log, LOG, "the disk failed", 3, START + 3 * HOUR).countersign(OFFICER_KEY)
        log.extend([leaf_of_restored(said)])

        assert not restored.look(START + 4 * HOUR, service=other)

        smaller = state_restored(log, LOG, "the disk failed", 1, START + 4 * HOUR).countersign(OFFICER_KEY)
        log.extend([leaf_of_restored(smaller)])
        assert restored.look(START + 5 * HOUR, service=other)
        assert "copy of 1 leaves" in restored.alarms()[-1]


def test_statement_about_another_log_or_twice_is_not_entered(restored: Restored) -> None:
    head = WitnessedHead(3, bytes(32))
    said = RestoredLog(head, head, "the disk failed", START).sign(LOG).countersign(OFFICER_KEY)
    with pytest.raises(InvalidProof, match="about another log"):
        enter_restored(restored.log, LOG, said, TRUST)

    right = state_restored(restored.log, LOG, "the disk failed", 0, START).countersign(OFFICER_KEY)
    assert RestoredLog.of(right).kept == WitnessedHead(0, EMPTY_ROOT)
    assert enter_restored(restored.log, LOG, right, TRUST) == 5
    assert enter_restored(restored.log, LOG, right, TRUST) == 5


def test_altered_statement_is_not_read(restored: Restored) -> None:
    said = state_restored(restored.log, LOG, "the disk failed", 3, START).countersign(OFFICER_KEY)
    changed = replace(said, payload=said.payload.replace(b"disk", b"tape"))

    with pytest.raises(InvalidProof, match="was changed"):
        enter_restored(restored.log, LOG, changed, TRUST)
