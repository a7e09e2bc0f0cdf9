"""Hearing instructions at a site: what the coordinator has is believed where officers whom the site trusts signed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from fedmunkey.client.key_store import KeyStore
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.governance.instructions import Instruction, InstructionKind
from fedmunkey.common.proofs.governance.standing import Standing, check_instruction
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.service.deletion_service import DeletionService

logger = logging.getLogger(__name__)


class InstructionHearing:
    """Asks for instructions before orders are carried out; whom the site does not trust is said once.

    `trust` reads the site's trusted keys, `federation` the id of its federation.
    """

    def __init__(
        self,
        store: KeyStore,
        trust: Callable[[], TrustedKeys],
        federation: Callable[[], str],
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._trust = trust
        self._federation = federation
        self._clock = clock
        self._said: set[bytes] = set()

    def hear(self, service: DeletionService) -> int:
        """Take over what the site does not know; return how many instructions are news.

        What the site cannot read any more is asked for again. One that it does not believe is asked for the next time
        as well: the site may trust its signer by then. Raises as the service, and `KeyStoreError` if nothing can be
        written.
        """
        kept = self._store.instructions
        whole = kept.is_whole()
        after, digest = kept.last() if whole else (0, b"")
        believed: list[tuple[int, Instruction]] = []
        standing = kept.standing() if whole else Standing()
        while found := service.instructions(after, digest):
            for number, document in found:
                one = self._read(document)
                if one is not None and (one.digest in standing.known or self._believes(one, standing)):
                    believed.append((number, one))
                    standing = Standing.of([*standing.known.values(), one])
                after, digest = number, b"" if one is None else one.digest
            if not digest:
                # What cannot be read has no digest to go on from.
                break
        before = kept.standing().known.keys() if whole else set[bytes]()
        news = [(number, one) for number, one in believed if one.digest not in before]
        if news or not whole:
            kept.add(believed if not whole else news, all_of_them=not whole)
            self._act_on([one for _, one in news], standing)
        return len(news)

    def _read(self, document: bytes) -> Instruction | None:
        try:
            return Instruction.parse(document)
        except InvalidProof as error:
            logger.warning("the coordinator has an instruction that cannot be read: %s", error)
            return None

    def _believes(self, one: Instruction, standing: Standing) -> bool:
        try:
            if one.federation != self._federation():
                raise InvalidProof("meant for another federation")
            check_instruction(one, standing, self._trust(), self._clock(), late=True)
        except InvalidProof as error:
            if one.digest not in self._said:
                self._said.add(one.digest)
                logger.warning("the instruction %r is not followed by this site: %s", one.instruction_id, error)
            return False
        return True

    def _act_on(self, news: list[Instruction], standing: Standing) -> None:
        """Let everybody begin again who has read records of an opt-out, or those that one has left out."""
        concerned = [
            standing.known[one.ends] if one.kind is InstructionKind.END and one.ends in standing.known else one
            for one in news
        ]
        if any(one.kind is InstructionKind.OPT_OUT for one in concerned):
            self._store.records.begin_again()
