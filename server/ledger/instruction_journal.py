"""Instructions in a file of the coordinator's beside its ledger: one that goes back to a copy has lost no hold.

A line for each, on the disk before it counts in the ledger; nothing in it is ever changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fedmunkey.common.errors import InvalidProof, InvalidSetting, ServiceUnavailable
from fedmunkey.common.private_files import append_line, read_private
from fedmunkey.common.proofs.governance.instructions import Instruction

FILE_NAME = "instructions.journal"


class InstructionJournal:
    """The file; safe for threads and processes that append at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Instruction]:
        """Return all, oldest first; a line that was not written to its end never counted.

        Raises `InvalidSetting` if one cannot be read, or others than its owner can use the file.
        """
        if not self.path.exists():
            return []
        content = read_private(self.path, "the journal of instructions", error=InvalidSetting, most=None)
        try:
            return [Instruction.parse(line) for line in content.split(b"\n")[:-1]]
        except InvalidProof as error:
            raise InvalidSetting(
                f"{self.path} cannot be read ({error}), so it is not known what is held; put the file's copy back"
            ) from None

    def append(self, instructions: Iterable[Instruction]) -> None:
        """Write some, all or nothing, and bring them to the disk; raises `ServiceUnavailable` if that fails."""
        content = b"".join(instruction.to_bytes() + b"\n" for instruction in instructions)
        if not content:
            return
        try:
            append_line(self.path, content)
        except OSError as fault:
            raise ServiceUnavailable(
                f"{self.path} cannot be written ({fault.strerror}), so no instruction was entered; make room or put "
                "its permissions right, and try again"
            ) from None
