"""`munkey-client countersign`: another officer signs a request for everything, or nearly all, that a site holds."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.options import DEFAULT_SERVICE, IdentityOption, ServiceOption
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.common.deletions.words import DeletionRequest, Records, Subject, WholeSite
from fedmunkey.common.errors import InvalidDeletion, InvalidProof
from fedmunkey.common.identities import Identity
from fedmunkey.common.private_files import write_private
from fedmunkey.common.proofs.restored_log import RestoredLog
from fedmunkey.common.proofs.signed_requests import RequestTerms, read_terms
from fedmunkey.common.proofs.signing.canonical import canonical_json, parse_canonical, read_hex, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import envelope_of, read_envelope
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.wire import MAXIMUM_REFERENCES

_FILE_BYTES = 4 * 2**20


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
    """Add a signature to a saved request for everything, or for records, that a site holds, and ask for it.

    With --save it also signs what munkey-server restored has written, that the log was restored from a copy.

    For sites that want several officers to agree (munkey-client trust require).

    Example: munkey-client countersign request.json --signing-key second.pem --service 127.0.0.1:9440
    """
    if (said := _read_restored(file)) is not None:
        _sign_restored(said, SigningKey.read(key), save, yes=yes)
        return
    request, terms = _read(file)
    everything = isinstance(request.target, WholeSite)
    what = f"{terms.site!r} is to forget {'everything' if everything else f'{terms.count} records'}"
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
    """Write a signed request for all, or some records, at one site to a new file; raises `InvalidDeletion`."""
    target = request.target
    if not request.signature or isinstance(target, Subject) or not target.site:
        raise InvalidDeletion(
            "--save is for --everything or records of one --site, signed with --signing-key and --secret; leave it out"
        )
    written = request.signature
    if isinstance(target, Records):
        if len(target.references) > MAXIMUM_REFERENCES:
            raise InvalidDeletion(f"--save is for at most {MAXIMUM_REFERENCES} records; save several requests")
        references = sorted(reference.hex() for reference in target.references)
        written = canonical_json({"envelope": read_envelope(written).to_document(), "references": references})
    _write(path, written)
    count = len(read_envelope(request.signature).signatures)
    typer.echo(f"{path}: request {request.request_id} with {count} signatures; nothing was asked for yet")


def _read_restored(path: Path) -> Envelope | None:
    """Return a statement that a log was restored; None if the file holds anything else."""
    with suppress(InvalidProof):
        envelope = read_envelope(_read_bytes(path))
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


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # Whatever is longer is no such file, and said to be none.
            return file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidDeletion(f"{path} cannot be read ({error.strerror}); forget --save writes such a file") from None


def _write(path: Path, data: bytes) -> None:
    try:
        write_private(path, data)
    except OSError as error:
        raise InvalidDeletion(f"{path} cannot be written ({error.strerror}); name another file") from None


def _read(path: Path) -> tuple[DeletionRequest, RequestTerms]:
    """Read a saved request; what it says is held against what was signed."""
    data = _read_bytes(path)
    document = parse_canonical(data, str(path), _FILE_BYTES)
    listed: list[str] | None = None
    if isinstance(document, dict) and "references" in document:
        document, listed = take(document, str(path), envelope=dict, references=list)
    envelope = envelope_of(document)
    terms = read_terms(envelope)
    target = (
        WholeSite(terms.site)
        if listed is None
        else Records(frozenset(read_hex(str(reference), "a reference") for reference in listed), terms.site)
    )
    request = DeletionRequest(terms.request_id, terms.requester, target, envelope.to_bytes())
    terms.check_describes(request)
    return request, terms
