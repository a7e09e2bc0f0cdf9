"""What sites give back of a ledger that was restored, what is certified with it, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from fedmunkey.common.errors import DeletionConflict, InvalidDeletion, InvalidProof, NotAllowed
from fedmunkey.common.proofs import certificate_words
from fedmunkey.common.proofs.certificate import Certificate
from fedmunkey.common.proofs.log_heads import LogHead
from fedmunkey.common.proofs.receipts import Receipt, WitnessedHead
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.proofs.verification import verify_certificate
from fedmunkey.common.service.wire import log_update_from_wire, log_update_to_wire
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.metrics import make_registry
from fedmunkey.server.transparency_log.log import TransparencyLog
from fedmunkey.server.transparency_log.restating import enter_restored, state_restored
from tests.proof_case import (
    LOG,
    OFFICER_KEY,
    SITE_KEYS,
    SITES,
    START,
    TRUST,
    answered,
    open_coordinator,
    signed_request,
)


class Lost:
    """A service that has certified a request, and whose ledger then went back to before it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.now = START
        self.service = self._open()
        self.copy()
        self.receipts = self.answer("request-1")
        update = self.service.log_update(0)
        assert update is not None
        head = LogHead.of(update.head)
        self.seen = WitnessedHead(head.size, head.root)
        self._stack.close()
        for file in folder.glob("ledger.sqlite*"):
            file.unlink()
        shutil.copy(folder / "copy", folder / "ledger.sqlite")
        self.service = self._open()

    def _open(self) -> LedgerService:
        return open_coordinator(self._stack, self._folder, lambda: self.now)

    def copy(self) -> None:
        self._stack.close()
        shutil.copy(self._folder / "ledger.sqlite", self._folder / "copy")
        self.service = self._open()

    def answer(self, request_id: str, seen: WitnessedHead | None = None) -> list[bytes]:
        """Have both sites answer a request; return their receipts."""
        self.service.submit(signed_request(request_id))
        receipts = []
        for site in SITES:
            *_, order = self.service.watch(site, 0)
            answer = answered(order, seen, START)
            self.service.acknowledge(answer)
            receipts.append(answer.receipt)
        return receipts

    def say(self) -> None:
        log = TransparencyLog(self.service.ledger.engine, LOG, clock=lambda: START)
        said = state_restored(log, LOG, "the disk failed", 0, START).countersign(OFFICER_KEY)
        enter_restored(log, LOG, said, TRUST)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[Lost]:
    made = Lost(tmp_path)
    yield made
    made.close()


def test_receipts_that_are_given_back_are_in_the_log_and_name_the_lost_request(lost: Lost) -> None:
    for site, receipt in zip(SITES, lost.receipts, strict=True):
        lost.service.recall(site, [receipt])
        lost.service.recall(site, [receipt])

    assert lost.service.recalled("request-1") == tuple(lost.receipts)
    assert lost.service.recalled("request-1", SITES[1]) == (lost.receipts[1],)
    assert lost.service.recalled("request-2") == ()
    update = lost.service.log_update(0)
    assert update is not None
    assert LogHead.of(update.head).size == 2
    (found,) = lost.service.ledger.summary().lost
    assert (found.request_id, found.sites) == ("request-1", SITES)
    assert found.digest == Receipt.of(read_envelope(lost.receipts[0])).request

    assert "fedmunkey_lost_requests 1.0" in generate_latest(make_registry(lost.service.ledger)).decode()

    lost.answer("request-1")
    assert lost.service.ledger.summary().lost == ()


def test_another_request_under_a_lost_id_leaves_it_lost(lost: Lost) -> None:
    lost.service.recall(SITES[0], lost.receipts[:1])

    lost.service.submit(signed_request("request-1", days=80))

    assert [found.request_id for found in lost.service.ledger.summary().lost] == ["request-1"]


def test_receipts_of_others_are_not_taken_back(lost: Lost) -> None:
    receipt = Receipt.of(read_envelope(lost.receipts[0]))
    forged = receipt.sign(SITE_KEYS[SITES[1]]).to_bytes()

    for site, given in ((SITES[1], lost.receipts[:1]), (SITES[0], [forged]), (SITES[0], [b"{}"])):
        with pytest.raises(InvalidDeletion, match="gives back is refused"):
            lost.service.recall(site, given)
    with pytest.raises(InvalidDeletion, match="at most 100"):
        lost.service.recall(SITES[0], lost.receipts[:1] * 101)
    assert lost.service.recalled("request-1") == ()


def test_lost_request_is_taken_again_after_it_has_expired_and_no_other(lost: Lost) -> None:
    lost.now = START + timedelta(days=100)
    with pytest.raises(NotAllowed, match="expired"):
        lost.service.submit(signed_request("request-1"))

    lost.service.recall(SITES[0], lost.receipts[:1])

    assert lost.service.submit(signed_request("request-1")).request.request_id == "request-1"
    with pytest.raises(NotAllowed, match="expired"):
        lost.service.submit(signed_request("request-2"))


def test_certificate_of_a_receipt_that_names_a_lost_head_needs_the_statement(lost: Lost) -> None:
    lost.answer("request-2", lost.seen)
    with pytest.raises(DeletionConflict, match="munkey-server restored"):
        lost.service.certificate("request-2")
    lost.say()
    lost.answer("request-3")

    made = lost.service.certificate("request-2")
    verified = verify_certificate(made, TRUST)

    assert (verified.lost, verified.erased) == (SITES, 6)
    assert any("restored from a copy of 0 leaves" in line for line in certificate_words.proved(verified))
    assert any("was lost when it was restored" in line for line in certificate_words.not_proved(verified, TRUST))
    assert not any("That log extends" in line for line in certificate_words.proved(verified))
    certificate = Certificate.from_bytes(made)
    (said,) = certificate.restored
    assert certificate.to_bytes() == made
    # One that needs no statement has none, and none is put into it.
    other = Certificate.from_bytes(lost.service.certificate("request-3"))
    assert other.restored == ()
    for changed in (
        replace(certificate, restored=()),
        replace(certificate, restored=(replace(said, proof=replace(said.proof, number=0)),)),
        replace(other, restored=(said,)),
    ):
        with pytest.raises(InvalidProof, match="was changed or cut"):
            verify_certificate(changed.to_bytes(), TRUST)
    log_only = replace(said.envelope, signatures=said.envelope.signatures[:1], _bytes=b"")
    log = TransparencyLog(lost.service.ledger.engine, LOG, clock=lambda: START)
    with pytest.raises(InvalidProof, match="must be signed by 1 officers"):
        enter_restored(log, LOG, log_only, TRUST)


def test_statement_goes_over_the_wire(lost: Lost) -> None:
    lost.say()
    update = lost.service.log_update(0)
    assert update is not None
    assert len(update.restored) == 1
    assert "fedmunkey_log_restored 1.0" in generate_latest(make_registry(lost.service.ledger)).decode()

    assert log_update_from_wire(log_update_to_wire(update)) == update
