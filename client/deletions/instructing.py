"""Giving instructions, as commands and the console do: signed here, read back, and what they came too late for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.listing import RequestQuery, RequestSummary
from fedmunkey.common.deletions.words import OFFICER, Records, Subject
from fedmunkey.common.proofs.governance.instructions import Instruction, InstructionKind, sign_instruction
from fedmunkey.common.proofs.governance.standing import Standing
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.service.console_service import ConsoleService
from fedmunkey.common.service.deletion_service import DeletionService

_MOST_LOOKED_UP = 100


def read_standing(service: DeletionService) -> Standing:
    """Return the instructions that stand, as the coordinator has them; raises `InvalidProof` if one cannot be read."""
    found: list[Instruction] = []
    number, digest = 0, b""
    while some := service.instructions(number, digest):
        found += [Instruction.parse(document) for _, document in some]
        number, digest = some[-1][0], found[-1].digest
    return Standing.of(found)


def give(
    service: DeletionService,
    kind: InstructionKind,
    name: str,
    about: Records | Subject,
    key: SigningKey,
    federation: str,
    now: datetime | None = None,
) -> Instruction:
    """Sign a hold or an opt-out, have it entered and return it; raises as the service."""
    made = sign_instruction(name, kind, about, key, federation, now or utc_now())
    service.instruct(made.to_bytes())
    return made


def end(
    service: DeletionService, kind: InstructionKind, named: str, key: SigningKey, now: datetime | None = None
) -> Instruction:
    """Sign the end of a hold or an opt-out, have it entered and return what has ended; raises as the service."""
    over = read_standing(service).find(named, kind)
    name = f"end-{over.digest.hex()[:32]}"
    made = sign_instruction(name, InstructionKind.END, over.digest, key, over.federation, now or utc_now())
    service.instruct(made.to_bytes())
    return over


def entered_requests(service: ConsoleService, about: Records | Subject) -> Sequence[RequestSummary]:
    """Return the office's requests that name any of what an instruction names, the first hundred."""
    named = about.references if isinstance(about, Records) else {about.reference}
    references = tuple(sorted(named)[:_MOST_LOOKED_UP])
    return service.find(RequestQuery(OFFICER, references=references)).requests
