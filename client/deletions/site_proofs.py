"""How a site answers orders so that anybody can check it: it checks who asked, signs receipts and witnesses the log.

Everything that decides lies in the site's folder beside the key store, so no program can forget to pass it on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from fedmunkey.client.deletions.instructions import InstructionHearing
from fedmunkey.client.deletions.lineage.exported_models import holding
from fedmunkey.client.deletions.order_check import (
    WHOLE_SITE_DAYS,
    Taken,
    check_not_held,
    check_order,
    check_share,
    check_signer,
)
from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.client.deletions.witness import witness
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.removal import Hearing
from fedmunkey.client.site import SiteFolder, check_witness_state
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder, Records, SiteState
from fedmunkey.common.errors import InvalidDeletion, InvalidProof, KeyStoreError, NotAllowed
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys, TrustFile
from fedmunkey.common.service.deletion_service import DeletionService

logger = logging.getLogger(__name__)


class SiteProofs:
    """What stands between a site's key store and the orders that come.

    The folder of the key store has the site's key, its trusted keys and its receipts. Without a key nothing is signed.
    Without trusted keys any order is carried out, unless the site has joined a federation or had some before: it stops
    then, and so does one that has lost what it had seen of the coordinator's log.
    """

    def __init__(self, store: KeyStore, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self._clock = clock
        self._folder = SiteFolder(store.path.parent)
        self._key = SigningKey.read(self._folder.signing_key) if self._folder.signing_key.exists() else None
        self._book = ReceiptBook(store.journal)
        self._trust = TrustFile(self._folder.trust)
        federation = lambda: self._folder.read_secret().federation_id  # noqa: E731
        self._hearing = InstructionHearing(store, self._trust.read, federation, clock)

    def hear_instructions(self, service: DeletionService) -> int:
        """Take over holds and opt-outs that the site does not know; return how many. Without trusted keys, none."""
        return self._hearing.hear(service) if self._checks() else 0

    def carry_out(self, order: DeletionOrder) -> Acknowledgement:
        """Carry out an order, or refuse it; an order that was answered before keeps its answer.

        What the site has carried out before is carried out again, whatever time has passed and whoever's key has ended,
        and answered as it was: its journal knows that, or its own receipt that comes with the order.

        Raises `KeyStoreError` as `AppliedOrders.apply_all` does, and if the ledger holds as carried out here what this
        store would refuse: nothing in it can be used then. Raises `InvalidProof` if the site's own files of keys cannot
        be used. Nothing is deleted, refused or signed then.
        """
        return self.carry_out_all([order])[0]

    def carry_out_all(self, orders: Sequence[DeletionOrder]) -> list[Acknowledgement]:
        """Carry out or refuse several orders, which wait for the disk together; raises as `carry_out` does."""
        self._checks()
        last = 0 if self._key is None else self._store.orders.last
        opened = {order.number: OpenedRequest.of(order.request) for order in orders}
        try:
            answers = self._store.orders.apply_all(orders, lambda order: self._hear(order, opened[order.number]))
        except _UnheardError:
            self._store.wait_for_catch_up()
            raise
        if self._key is None:
            return answers
        kept = self._kept({order.number: opened[order.number].digest for order in orders})
        missing = {
            order.number: self._find_receipt(opened[order.number], order, answer, again=order.number <= last)
            for order, answer in zip(orders, answers, strict=True)
            if order.number not in kept
        }
        if missing:
            kept |= self._book.keep_all(missing)
        return [replace(answer, receipt=kept[answer.number]) for answer in answers]

    def answer(self, service: DeletionService, answer: Acknowledgement) -> Acknowledgement:
        """Return an answer that the store has kept, with its receipt.

        A receipt that a crash kept from being signed is signed now; for that the service is asked for the order again.
        """
        if self._key is None:
            return answer
        if kept := self._kept({answer.number: self._store.orders.request_of(answer.number)}):
            return replace(answer, receipt=kept[answer.number])
        order = next(iter(service.watch(answer.site, answer.number - 1)), None)
        if order is None:
            raise _other_order(answer)
        signed = {answer.number: self._sign(OpenedRequest.of(order.request), order, answer, again=True)}
        return replace(answer, receipt=self._book.keep_all(signed)[answer.number])

    def leave_answer(self, service: DeletionService, answer: Acknowledgement) -> bool:
        """Leave the service what this site has answered it before, where it refuses another answer to the same order.

        Both are true: the first was what the site said when it had carried the order out or refused it, the other is
        what it can say since its journal or its store is another one. Returns whether there is such an answer; where
        this site signs, it must bear the site's own receipt.
        """
        order = next(iter(service.watch(answer.site, answer.number - 1)), None)
        if order is None or order.answer is None or order.number != answer.number:
            return False
        opened = OpenedRequest.of(order.request)
        if opened.digest != self._store.orders.request_of(answer.number):
            return False
        if self._key is not None:
            if not self._is_own(order.answer, opened):
                return False
            self._book.withdraw(answer.number)
        return True

    def _kept(self, requests: Mapping[int, bytes | None]) -> dict[int, bytes]:
        """Return the receipts of orders, by the digests of their requests.

        Those that the journal has under these numbers for requests that a ledger has lost are set aside.
        """
        kept = self._book.read_all(list(requests))
        lost = [
            number
            for number, receipt in kept.items()
            if requests[number] not in (None, Receipt.of(read_envelope(receipt)).request)
        ]
        if lost:
            self._store.journal.set_aside(min(lost) - 1, kept[min(lost)])
            kept = self._book.read_all(list(requests))
        return kept

    def witness(self, service: DeletionService) -> bool:
        """Look at the coordinator's log and return whether all is well; see `client.deletions.witness.witness`.

        Raises `NotAllowed` where the service refuses this site its orders as well.
        """
        if not self._checks():
            return True
        store = self._store

        def still_served() -> None:
            """Raise `NotAllowed` where the service refuses this site its orders as well."""
            orders = service.watch_together(
                store.description.site, store.orders.last, chain=store.orders.chain() or b""
            )
            try:
                next(orders, None)
            except NotAllowed:
                raise
            except InvalidDeletion:
                # It has other orders than this site knows, which is seen to elsewhere.
                return

        return witness(
            service,
            self._book,
            self._trust.read(),
            self._clock(),
            pending=store.orders.unacknowledged,
            still_served=still_served,
        )

    def _hear(self, order: DeletionOrder, opened: OpenedRequest) -> Hearing:
        """Return what the site makes of an order; raises `_UnheardError` if it would refuse what it has carried out."""
        genuine = opened.genuine
        if genuine:
            own = order.answer if self._has_carried_out(order.answer, opened) else None
            if earlier := own or self._store.journal.find_answer(opened.digest):
                return Hearing(opened.digest, earlier=earlier)
        objection = self._objection(order, opened)
        if objection and order.answer is not None and order.answer.state is not SiteState.REFUSED:
            raise _UnheardError(
                f"the federation holds order {order.number} as carried out by this site, and this key store would "
                f"refuse it ({objection}): it cannot tell that the receipt is the site's own; put the signing key that "
                f"made it back as {self._folder.signing_key}, or have {self._folder.trust} trust its public key, and "
                "run munkey-client catch-up; until then the site does not train or predict"
            )
        commitment = self._store.reference_hashes.commitment(order.request.target)
        again = self._store.journal.find_answer_to(order.request.request_id, commitment)
        return Hearing(opened.digest, objection, again=again, genuine=genuine)

    def _has_carried_out(self, answer: Acknowledgement | None, opened: OpenedRequest) -> bool:
        """Return whether an answer from the ledger is one by which this site has carried the request out."""
        return answer is not None and answer.state is not SiteState.REFUSED and self._is_own(answer, opened)

    def _is_own(self, answer: Acknowledgement, opened: OpenedRequest) -> bool:
        """Return whether an answer from the ledger bears this site's receipt for the request."""
        if answer.site != self._store.description.site:
            return False
        try:
            envelope = read_envelope(answer.receipt)
            receipt = Receipt.of(envelope)
            receipt.check_describes(answer)
            self._trusted().verify(envelope, Role.SITE, receipt.time, answer.site)
        except InvalidProof:
            return False
        return receipt.request == opened.digest

    def _objection(self, order: DeletionOrder, opened: OpenedRequest) -> str:
        """Return why the site will not carry out an order; empty if it will."""
        if not self._checks():
            return ""
        trust = self._trusted()
        federation = self._folder.read_secret().federation_id
        try:
            check_order(order, opened, trust=trust, federation=federation, now=self._clock())
            if trust.officers > 1 and isinstance(order.request.target, Records):
                check_share(opened, self._taken(order.request.target), trust)
            check_not_held(self._store.instructions.holds_on(order.request.target))
        except InvalidProof as error:
            return str(error)
        return ""

    def _taken(self, target: Records) -> Taken:
        """Return what an order takes of the site; those of the same transaction count as erased."""
        records = self._store.records
        named = sum(map(records.holds, target.references))
        since = self._book.last_before(self._clock() - timedelta(days=WHOLE_SITE_DAYS))
        return Taken(named, sum(records.count_influences().values()), self._store.orders.erased_after(since))

    def _checks(self) -> bool:
        """Return whether there are trusted keys; raises `InvalidProof` if they, or what a witness needs, were lost."""
        if not (self._folder.checks_orders() or self._trust.was_read):
            return False
        check_witness_state(self._store.journal, self._trust.read())
        return True

    def _trusted(self) -> TrustedKeys:
        """Return the trusted keys; a site believes its own signature without having to say so."""
        trust = self._trust.read() if self._folder.trust.exists() else TrustedKeys()
        if self._key is None or any(key.key == self._key.public for key in trust.keys):
            return trust
        return trust.add(TrustedKey(self._store.description.site, Role.SITE, self._key.public))

    def _check_same(self, opened: OpenedRequest, order: DeletionOrder, answer: Acknowledgement) -> None:
        """Check that an order sent again is the one that was answered, as far as the site can still tell."""
        if (order.number, order.request.request_id) != (answer.number, answer.request_id):
            raise _other_order(answer)
        refused = answer.state is SiteState.REFUSED
        known = self._store.orders.request_of(order.number)
        if known is not None:
            if known != opened.digest or not (refused or opened.genuine):
                raise _other_order(answer)
        elif not refused and self._checks():
            try:
                check_signer(opened, self._trusted())
            except InvalidProof:
                raise _other_order(answer) from None

    def _find_receipt(
        self, opened: OpenedRequest, order: DeletionOrder, answer: Acknowledgement, *, again: bool
    ) -> bytes:
        """Return the receipt of an answer that the journal has none of; what a lost one had is in the ledger."""
        if again and order.answer and self._is_own(order.answer, opened):
            # Whatever it says, the log has it, and the site can give it back to a ledger that loses it.
            return order.answer.receipt
        return self._sign(opened, order, answer, again=again)

    def _sign(self, opened: OpenedRequest, order: DeletionOrder, answer: Acknowledgement, *, again: bool) -> bytes:
        """Return the receipt of an answer that has none."""
        if self._key is None:
            raise AssertionError("a site without a key signs nothing")
        if order.answer and order.answer.claims() == answer.claims() and self._is_own(order.answer, opened):
            # The log has it: another one would not be found there.
            return order.answer.receipt
        if again:
            self._check_same(opened, order, answer)
        refused = answer.state is SiteState.REFUSED
        receipt = Receipt(
            answer,
            opened.digest,
            self._clock(),
            None if refused else self._store.reference_hashes.commitment(order.request.target),
            self._book.head(),
            None if opened.terms is None else (opened.terms.issued, opened.terms.expires),
            self._exported(answer),
            self._store.orders.rectified(answer.number),
        )
        return receipt.sign(self._key).to_bytes()

    def _exported(self, answer: Acknowledgement) -> tuple[str, ...]:
        """Return which models that were given away hold what an order erased; no deletion waits for a register."""
        if not answer.entries:
            return ()
        try:
            return holding(self._store, answer.number)
        except KeyStoreError as error:
            logger.error("the receipt of order %d names no exported models: %s", answer.number, error)
            return ()


class _UnheardError(KeyStoreError):
    """A store would refuse what the federation holds as carried out at its site."""


def _other_order(answer: Acknowledgement) -> KeyStoreError:
    return KeyStoreError(
        f"the service does not send order {answer.number} again as it was, and the order needs a receipt; "
        "start it with the ledger that the site has followed"
    )
