"""`munkey-client countersign`: another officer signs a request for everything that a site holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.options import DEFAULT_SERVICE, IdentityOption, ServiceOption
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.common.deletions.words import DeletionRequest, WholeSite
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.identities import Identity
from fedmunkey.common.private_files import write_private
from fedmunkey.common.proofs.signed_requests import RequestTerms, read_terms
from fedmunkey.common.proofs.signing.canonical import ENVELOPE_BYTES
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
    """Add a signature to a saved request for everything that a site holds, and ask for it.

    For sites that want several officers to agree (munkey-client trust require).

    Example: munkey-client countersign request.json --signing-key second.pem --service 127.0.0.1:9440
    """
    request, terms = _read(file)
    what = f"{terms.site!r} is to forget everything"
    if not yes and not typer.confirm(f"Sign request {terms.request_id!r}: {what}? This cannot be undone", err=True):
        raise InvalidDeletion("not confirmed, so nothing was signed; --yes leaves the question out")
    envelope = read_envelope(request.signature).countersign(SigningKey.read(key))
    signed = replace(request, signature=envelope.to_bytes())
    if save is not None:
        save_request(save, signed)
        return
    with DeletionChannel(service, identity=None if identity is None else Identity.read(identity)) as channel:
        status = channel.submit(signed)
    typer.echo(f"request {terms.request_id!r} is {status.state}: {what}; munkey-client certificate has the answer")


def save_request(path: Path, request: DeletionRequest) -> None:
    """Write a signed request for everything at a site to a new file; raises `InvalidDeletion` for any other."""
    if not request.signature or not isinstance(request.target, WholeSite):
        raise InvalidDeletion("--save is for --everything, signed with --signing-key and --secret; leave it out")
    try:
        write_private(path, request.signature)
    except OSError as error:
        raise InvalidDeletion(f"{path} cannot be written ({error.strerror}); name another file") from None
    count = len(read_envelope(request.signature).signatures)
    typer.echo(f"{path}: request {request.request_id} with {count} signatures; nothing was asked for yet")


def _read(path: Path) -> tuple[DeletionRequest, RequestTerms]:
    """Read a saved request: all that it says is in what was signed."""
    try:
        with path.open("rb") as file:
            # Whatever is longer is no envelope, and said to be none.
            data = file.read(ENVELOPE_BYTES + 1)
    except OSError as error:
        raise InvalidDeletion(f"{path} cannot be read ({error.strerror}); forget --save writes such a file") from None
    terms = read_terms(read_envelope(data))
    request = DeletionRequest(terms.request_id, terms.requester, WholeSite(terms.site), data)
    terms.check_describes(request)
    return request, terms
