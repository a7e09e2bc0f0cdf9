"""Which instructions are in force, and whether one may be added to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from fedmunkey.common.deletions.words import Records, Subject, Target
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.duties import Duty
from fedmunkey.common.proofs.governance.approvals import check_duties
from fedmunkey.common.proofs.governance.instructions import Instruction, InstructionKind
from fedmunkey.common.proofs.signed_requests import CLOCK_SKEW_SECONDS
from fedmunkey.common.proofs.signing.statements import write_time
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys


@dataclass(frozen=True)
class Standing:
    """All instructions that were given, by their digests in their order, and which of these were ended."""

    known: Mapping[bytes, Instruction] = field(default_factory=dict)
    ended: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, instructions: Iterable[Instruction]) -> Standing:
        """Return what comes of instructions in their order."""
        known = {instruction.digest: instruction for instruction in instructions}
        return cls(known, frozenset(instruction.ends for instruction in known.values() if instruction.ends))

    def in_force(self, kind: InstructionKind) -> tuple[Instruction, ...]:
        """Return the holds, or the opt-outs, that were not ended."""
        return tuple(
            instruction
            for digest, instruction in self.known.items()
            if instruction.kind is kind and digest not in self.ended
        )

    def find(self, named: str, kind: InstructionKind) -> Instruction:
        """Return the one in force of an id, or of the first 8 or more digits of its digest; raises `InvalidProof`."""
        found = [
            one
            for one in self.in_force(kind)
            if one.instruction_id == named or (len(named) >= 8 and one.digest.hex().startswith(named))
        ]
        if len(found) != 1:
            raise InvalidProof(f"{named!r} names {len(found)} of the {kind}s in force; list them, and name one")
        return found[0]

    def holds_on(self, target: Target) -> tuple[Instruction, ...]:
        """Return the holds that name what a target names.

        Which records a subject has, and what a whole site holds, only sites can tell; they look for themselves.
        """
        if isinstance(target, Records):
            named = target.references
            found = (hold for hold in self.in_force(InstructionKind.HOLD) if isinstance(hold.target, Records))
            return tuple(hold for hold in found if not named.isdisjoint(hold.references))
        if isinstance(target, Subject):
            return tuple(hold for hold in self.in_force(InstructionKind.HOLD) if hold.target == target)
        return ()


def check_instruction(
    instruction: Instruction, standing: Standing, trust: TrustedKeys, heard: datetime, *, late: bool = False
) -> tuple[TrustedKey, ...]:
    """Check an instruction that is heard for the first time, and return the keys that signed it.

    Officers sign, with keys that are good now. A hold and an opt-out need one who may file. What ends one needs one who
    may approve, and where several officers must agree, by another name than those who gave it. Who hears `late` of one
    that keeps something, as a site that was off, believes a key that has ended since. Raises `InvalidProof`.
    """
    if (instruction.issued - heard).total_seconds() > CLOCK_SKEW_SECONDS:
        raise InvalidProof(
            f"dated in the future: the instruction was issued on {write_time(instruction.issued)}; check clocks"
        )
    signers = trust.verify(instruction.envelope, Role.OFFICER, instruction.issued)
    if not late or instruction.kind is InstructionKind.END:
        for signer in signers:
            signer.check(max(heard, instruction.issued))
    if instruction.kind is not InstructionKind.END:
        check_duties(signers, "an instruction")
        return signers
    ended = standing.known.get(instruction.ends)
    if ended is None or ended.kind is InstructionKind.END:
        raise InvalidProof("the instruction ends one that is not known here; list those in force")
    if instruction.ends in standing.ended:
        raise InvalidProof(f"the {ended.kind} {ended.instruction_id!r} was ended before")
    if instruction.issued < ended.issued:
        raise InvalidProof("the instruction is older than the one that it ends; sign it again")
    approvers = {signer.name for signer in signers if Duty.APPROVE in signer.duties}
    if not approvers:
        names = ", ".join(sorted({signer.name for signer in signers}))
        raise InvalidProof(f"not theirs to sign: a {ended.kind} is ended by who may approve, and {names} may not")
    given = {signature.key_id for signature in ended.envelope.signatures}
    givers = {key.name for key in trust.of(Role.OFFICER) if key.key.key_id in given}
    if trust.officers > 1 and not approvers - givers:
        raise InvalidProof(
            f"signed by too few: another officer than {', '.join(sorted(givers))} must end the {ended.kind} "
            f"{ended.instruction_id!r}"
        )
    return signers
