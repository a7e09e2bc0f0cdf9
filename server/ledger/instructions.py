"""Instructions in the ledger: entering them, and what they keep out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, bindparam, insert, select

from fedmunkey.common.deletions.words import DeletionRequest
from fedmunkey.common.errors import DeletionExists, DeletionHeld, FedmunkeyError, InvalidProof, NotAllowed
from fedmunkey.common.proofs.governance.instructions import Instruction
from fedmunkey.common.proofs.governance.standing import Standing
from fedmunkey.server.database.connection import have_to_itself
from fedmunkey.server.database.instruction_tables import InstructionRow
from fedmunkey.server.ledger.instruction_journal import InstructionJournal
from fedmunkey.server.ledger.writer import Transaction
from fedmunkey.server.transparency_log.leaves import append_leaves, leaf_of_instruction

MOST_BYTES = 8 * 2**20
"""Bytes of instructions in one answer, unless one alone has more."""

_ROWS = 400

_LAST = select(InstructionRow.number, InstructionRow.digest).order_by(InstructionRow.number.desc()).limit(1)
_ALL = select(InstructionRow.document).order_by(InstructionRow.number)
_AFTER = (
    select(InstructionRow.number, InstructionRow.document)
    .where(InstructionRow.number > bindparam("after"))
    .order_by(InstructionRow.number)
    .limit(_ROWS)
)


@dataclass(frozen=True)
class Given:
    """An instruction to be entered; `check` raises `InvalidProof` if it may not be added to those that stand."""

    instruction: Instruction
    check: Callable[[Instruction, Standing], object]


class StandingReader:
    """Reads the instructions that stand; they are parsed again only where there are others."""

    def __init__(self, journal: InstructionJournal | None = None) -> None:
        self._journal = journal
        self._read: tuple[tuple[int, bytes] | None, Standing] = (None, Standing())

    def read(self, connection: Connection) -> Standing:
        """Return those in a ledger."""
        last = connection.execute(_LAST).first()
        mark = None if last is None else (last.number, last.digest)
        known, standing = self._read
        if mark != known:
            standing = Standing.of(Instruction.parse(document) for document in connection.scalars(_ALL))
            self._read = (mark, standing)
        return standing

    def enter(self, transaction: Transaction, given: Sequence[Given]) -> list[Standing | FedmunkeyError]:
        """Write instructions down, in the journal first; one that is known changes nothing.

        The same id for another one is refused with `DeletionExists`, and what may not be added with `NotAllowed`.
        """
        answers: list[Standing | FedmunkeyError] = []
        entered: list[Instruction] = []
        standing = self.read(transaction.connection)
        for one in given:
            instruction = one.instruction
            if instruction.digest not in standing.known:
                try:
                    if any(known.instruction_id == instruction.instruction_id for known in standing.known.values()):
                        raise DeletionExists(
                            f"instruction id {instruction.instruction_id!r} stands for another one already; choose "
                            "another id"
                        )
                    one.check(instruction, standing)
                except InvalidProof as error:
                    answers.append(NotAllowed(f"the instruction is refused: {error}"))
                    continue
                except DeletionExists as error:
                    answers.append(error)
                    continue
                entered.append(instruction)
                standing = Standing.of([*standing.known.values(), instruction])
            answers.append(standing)
        if self._journal is not None:
            self._journal.append(entered)
        _insert(transaction, entered)
        append_leaves(transaction.connection, [leaf_of_instruction(one.digest, one.envelope) for one in entered])
        return answers

    def check_held(self, connection: Connection, request: DeletionRequest) -> None:
        """Raise `DeletionHeld` if a hold in force names what a request names."""
        if holds := self.read(connection).holds_on(request.target):
            raise DeletionHeld(tuple(hold.digest for hold in holds), [hold.instruction_id for hold in holds])

    def recover(self, engine: Engine) -> int:
        """Give the ledger what the journal has, and the journal what the ledger has; return how many it had lost."""
        if self._journal is None:
            return 0
        with engine.execution_options(write=True).connect() as connection, connection.begin():
            have_to_itself(connection)
            kept = self._journal.read()
            standing = self.read(connection)
            lost = [instruction for instruction in kept if instruction.digest not in standing.known]
            _write(connection, lost)
            known = {instruction.digest for instruction in kept}
            self._journal.append(one for digest, one in standing.known.items() if digest not in known)
        return len(lost)


def read_after(connection: Connection, after: int, digest: bytes) -> list[tuple[int, bytes]]:
    """Return instructions with their numbers behind one, or all if that has another digest here; some at a time."""
    if after:
        found = connection.scalar(select(InstructionRow.digest).where(InstructionRow.number == after))
        after = after if found == digest else 0
    taken: list[tuple[int, bytes]] = []
    size = 0
    for row in connection.execute(_AFTER, {"after": after}):
        size += len(row.document)
        if taken and size > MOST_BYTES:
            break
        taken.append((row.number, row.document))
    return taken


def _insert(transaction: Transaction, instructions: Sequence[Instruction]) -> None:
    rows = [{"digest": one.digest, "document": one.to_bytes(), "entered_at": transaction.at} for one in instructions]
    if rows:
        transaction.connection.execute(insert(InstructionRow), rows)


def _write(connection: Connection, instructions: Sequence[Instruction]) -> None:
    """Write what a ledger had lost; it was entered when it was issued, as far as anybody can still tell."""
    rows = [{"digest": one.digest, "document": one.to_bytes(), "entered_at": one.issued} for one in instructions]
    if rows:
        connection.execute(insert(InstructionRow), rows)
