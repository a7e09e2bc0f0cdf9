"""Standing instructions about records and subjects: legal holds, the opt-out list, and what ends either.

An officer signs each; what it names stays outside of the statement, which holds its digest, as with requests.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from fedmunkey.common.deletions.limits import is_line
from fedmunkey.common.deletions.words import Records, Subject
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signed_requests import target_digest
from fedmunkey.common.proofs.signing.canonical import canonical_json, parse_canonical, read_hex, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import Statement, envelope_of, read_time, write_time

PREDICATE_TYPE = "urn:fedmunkey:instruction:v1"

INSTRUCTION_BYTES = 2 * 2**20
"""Bytes that an instruction has at most, with what it names."""

NAME_CHARACTERS = 100
"""Characters that the id of an instruction may have, since sites name it in their answers."""

MOST_NAMED = 10_000
"""References that one instruction may name."""


class InstructionKind(StrEnum):
    """What is to be done from now on."""

    HOLD = "hold"
    """Nothing that it names is erased."""
    OPT_OUT = "opt-out"
    """Nothing that it names is learned from, enrolled or exported."""
    END = "end"
    """A hold or an opt-out is in force no more."""


@dataclass(frozen=True)
class Instruction:
    """One instruction as its signers have signed it; who they are is not checked.

    `target` is None for one that ends another, whose digest is `ends`. `federation` is the secret's `federation_id`.
    """

    instruction_id: str
    kind: InstructionKind
    target: Records | Subject | None
    federation: str
    issued: datetime
    ends: bytes
    envelope: Envelope

    @cached_property
    def digest(self) -> bytes:
        """The 32 bytes by which others name it: SHA-256 of what was signed."""
        return hashlib.sha256(self.envelope.payload).digest()

    @property
    def references(self) -> frozenset[bytes]:
        """What it names."""
        if self.target is None:
            return frozenset()
        return self.target.references if isinstance(self.target, Records) else frozenset({self.target.reference})

    def to_bytes(self) -> bytes:
        """Return it with what it names, as it travels and is kept."""
        named = sorted(reference.hex() for reference in self.references)
        return canonical_json({"envelope": self.envelope.to_document(), "references": named})

    @classmethod
    def parse(cls, data: bytes, what: str = "an instruction") -> Instruction:
        """Read what `to_bytes` made; raises `InvalidProof` if it is anything else, or was altered."""
        document, listed = take(parse_canonical(data, what, INSTRUCTION_BYTES), what, envelope=dict, references=list)
        envelope = envelope_of(document)
        statement = Statement.of(envelope, PREDICATE_TYPE)
        name, kind, about, ends, federation, issued = take(
            statement.predicate, what, id=str, instruction=str, about=str, ends=str, federation=str, issued=str
        )
        if kind not in set(InstructionKind) or not name or not is_line(name, NAME_CHARACTERS):
            raise InvalidProof(f"{what} is not one that this version knows")
        references = [read_hex(str(reference), "a reference") for reference in listed]
        ended = read_hex(ends, "what an instruction ends") if ends else b""
        target = _target(about, references)
        if (kind == InstructionKind.END) != (target is None) or (target is None) != bool(ended):
            raise InvalidProof(f"{what} contradicts itself")
        if statement.subject != "instruction" or statement.digest != (
            ended if target is None else target_digest(target)
        ):
            raise InvalidProof(f"{what} was altered: it does not name what its signer named")
        return cls(name, InstructionKind(kind), target, federation, read_time(issued), ended, envelope)


def sign_instruction(
    instruction_id: str,
    kind: InstructionKind,
    about: Records | Subject | bytes,
    key: SigningKey,
    federation: str,
    issued: datetime,
) -> Instruction:
    """Return a signed instruction about records or a subject, anywhere, or (bytes) the digest of what it ends.

    Raises `InvalidProof` if it names too many, or has no printable id.
    """
    target = None if isinstance(about, bytes) else about
    ends = about if isinstance(about, bytes) else b""
    if isinstance(target, Records) and (target.site or len(target.references) > MOST_NAMED):
        raise InvalidProof(f"an instruction is about at most {MOST_NAMED} records, at whichever site they are")
    predicate = {
        "id": instruction_id,
        "instruction": kind.value,
        "about": "" if target is None else "subject" if isinstance(target, Subject) else "records",
        "ends": ends.hex(),
        "federation": federation,
        "issued": write_time(issued),
    }
    digest = ends if target is None else target_digest(target)
    envelope = Statement("instruction", digest, PREDICATE_TYPE, predicate).sign(key)
    made = Instruction(instruction_id, kind, target, federation, read_time(write_time(issued)), ends, envelope)
    return Instruction.parse(made.to_bytes())


def _target(about: str, references: list[bytes]) -> Records | Subject | None:
    if about == "records" and references:
        return Records(frozenset(references))
    if about == "subject" and len(references) == 1:
        return Subject(references[0])
    if about or references:
        raise InvalidProof("an instruction does not say what it is about")
    return None
