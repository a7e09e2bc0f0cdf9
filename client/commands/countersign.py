"""`munkey-client countersign`: another officer signs a saved request."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.blocked import blocks_shown
from fedmunkey.client.commands.options import DEFAULT_SERVICE, IdentityOption, ServiceOption
from fedmunkey.client.deletions.saved_requests import SavedRequest, read_saved, saved_bytes
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.common.deletions.words import DeletionRequest
from fedmunkey.common.errors import InvalidDeletion, InvalidProof, count_of
from fedmunkey.common.identities import Identity
from fedmunkey.common.private_files import write_private
from fedmunkey.common.proofs.restored_log import RestoredLog
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.service.channel import DeletionChannel


@faults_explained()
def countersign(
    file: Annotated[Path, typer.Argument(help="What munkey-client forget --save has written.", show_default=False)],
    key: Annotated[Path, typer.Option("--signing-key", help="The other officer's key.")],
    service: ServiceOption = DEFAULT_SERVICE,
    identity: IdentityOption = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the request to this file, for one more officer, and do not ask yet.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")] = False,
) -> None:
    """Add a signature to a saved request, and ask for it.

    With --save it also signs what munkey-server restored has written, that the log was restored from a copy.

    For sites and federations that want several officers to agree (trust require).

    Example: munkey-client countersign request.json --signing-key second.pem --service 127.0.0.1:9440
    """
    if (said := _read_restored(file)) is not None:
        _sign_restored(said, SigningKey.read(key), save, yes=yes)
        return
    saved = SavedRequest.parse(read_saved(file), str(file))
    name, what = saved.request.request_id, saved.words
    if not yes and not typer.confirm(f"Sign request {name!r}: {what}? This cannot be undone", err=True):
        raise InvalidDeletion("not confirmed, so nothing was signed; --yes leaves the question out")
    signed = saved.countersign(SigningKey.read(key))
    if save is not None:
        save_request(save, signed)
        return
    shown = None if identity is None else Identity.read(identity)
    with blocks_shown(), DeletionChannel(service, identity=shown) as channel:
        status = channel.submit(signed)
    typer.echo(f"request {name!r} is {status.state}: {what}; munkey-client certificate has the answer")


def save_request(path: Path, request: DeletionRequest) -> None:
    """Write a signed request for all, or some records, at one site to a new file; raises `InvalidDeletion`."""
    _write(path, saved_bytes(request))
    count = len(read_envelope(request.signature).signatures)
    typer.echo(f"{path}: request {request.request_id} with {count_of(count, 'signature')}; nothing was asked for yet")


def _read_restored(path: Path) -> Envelope | None:
    """Return a statement that a log was restored; None if the file holds anything else."""
    with suppress(InvalidProof):
        envelope = read_envelope(read_saved(path))
        RestoredLog.of(envelope)
        return envelope
    return None


def _sign_restored(envelope: Envelope, key: SigningKey, save: Path | None, *, yes: bool) -> None:
    said = RestoredLog.of(envelope)
    if save is None:
        raise InvalidDeletion("name a file with --save; the coordinator enters it with munkey-server restored --signed")
    what = f"the log was {said.words}; sites will follow it without what they had seen after leaf {said.kept.size}"
    if not yes and not typer.confirm(f"Sign that {what}?", err=True):
        raise InvalidDeletion("not confirmed, so nothing was signed; --yes leaves the question out")
    signed = envelope.countersign(key)
    _write(save, signed.to_bytes())
    typer.echo(f"{save}: signed that {what}; enter it with munkey-server restored --signed {save}")


def _write(path: Path, data: bytes) -> None:
    try:
        write_private(path, data)
    except OSError as error:
        raise InvalidDeletion(f"{path} cannot be written ({error.strerror}); name another file") from None
