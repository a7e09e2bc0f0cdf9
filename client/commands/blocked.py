"""What a command shows, and leaves behind, when a legal hold has kept its request out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from fedmunkey.common.deletions.outcomes import Outcome
from fedmunkey.common.errors import DeletionHeld, InvalidDeletion
from fedmunkey.common.private_files import write_private
from fedmunkey.common.programs import command_line
from fedmunkey.common.proofs.governance.blocks import Block
from fedmunkey.common.proofs.signing.statements import read_envelope


@contextmanager
def blocks_shown(*, as_json: bool = False) -> Iterator[None]:
    """End the command with the exit code of a hold where one has kept a request out; its receipt is a file by then."""
    try:
        yield
    except DeletionHeld as held:
        file = _write(held)
        holds = [digest.hex() for digest in held.holds]
        about = {"outcome": Outcome.HELD.word, "holds": holds, "receipt": str(file) if file else None}
        lines = [f"BLOCKED, NOTHING ERASED: {held}"]
        if file is not None:
            lines.append(f"the coordinator's receipt of that is {file}: munkey-client verify {file} --keys keys.json")
        command_line.show(about, as_json, *lines)
        raise typer.Exit(Outcome.HELD) from None


def _write(held: DeletionHeld) -> Path | None:
    """Write the receipt to a new file in this folder, which is called by the request's digest; None without one."""
    if not held.receipt:
        return None
    block = Block.of(read_envelope(held.receipt))
    file = Path(f"blocked-{block.request.hex()[:16]}-{block.time:%Y%m%dT%H%M%SZ}.json")
    try:
        write_private(file, held.receipt)
    except FileExistsError:
        return file
    except OSError as error:
        raise InvalidDeletion(f"{held}; its receipt {file} cannot be written ({error.strerror})") from None
    return file
