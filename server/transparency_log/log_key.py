"""The key that signs the heads of the coordinator's log."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.server.database.connection import SQLITE, ledger_url


def open_log_key(path: Path | None, ledger: str, signer: str | None = None) -> tuple[Path, SigningKey]:
    """Return the log's key, which is made, with its public part beside it, if it is not there.

    Without a path it lies beside the ledger's file. `signer` is the id of the key that has signed the log's heads, if
    there are any: sites have that key, and would take a log that another signs for another's. Raises `InvalidSetting`
    if no path is given and the ledger is no file, or the key is not there or another one though the log has heads;
    `InvalidProof` if the key's file cannot be used, or others than its owner can read it.
    """
    if path is None:
        url = ledger_url(ledger)
        if url.get_backend_name() != SQLITE:
            raise InvalidSetting("the ledger is no file, so its log's key has no place; name one with --log-key")
        path = Path(f"{url.database}.log-key.pem")
    if not path.exists():
        if signer is not None:
            raise InvalidSetting(
                f"the log's heads are signed with key {signer[:16]}, and {path} is missing; put it back"
            )
        _make(path)
    key = SigningKey.read(path)
    if signer not in (None, key.public.key_id):
        raise InvalidSetting(
            f"the log is signed with key {str(signer)[:16]}, and {path} is another ({key.public.key_id[:16]}); "
            "put the log's key back, or name it with --log-key"
        )
    return path, key


def _make(path: Path) -> None:
    """Make a key that appears complete or not at all; of several services that are started at once one makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        SigningKey.generate().write_pair(path)
