"""`munkey-client verify`: check a certificate, offline."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.named_ids import (
    RecordOption,
    RecordsFileOption,
    SubjectFileOption,
    SubjectOption,
    read_records,
    read_subject,
)
from fedmunkey.client.commands.options import JsonOption
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import Records, Subject
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.programs import command_line
from fedmunkey.common.proofs import certificate_words
from fedmunkey.common.proofs.governance.blocks import Block, verify_block
from fedmunkey.common.proofs.signed_requests import target_digest
from fedmunkey.common.proofs.signing.statements import read_envelope, write_time
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.proofs.verification import Verified
from fedmunkey.common.proofs.verify_certificate import lines, read_and_verify


@faults_explained()
def verify(
    file: Annotated[Path, typer.Argument(help="The certificate.", show_default=False)],
    keys: Annotated[Path, typer.Option(help="File of the public keys to trust; munkey-client trust add makes one.")],
    secret: Annotated[
        Path | None, typer.Option(help="The federation secret, to check whom the certificate is about.")
    ] = None,
    subject: SubjectOption = None,
    subject_file: SubjectFileOption = None,
    record: RecordOption = None,
    records_file: RecordsFileOption = None,
    require_erased: Annotated[
        bool,
        typer.Option("--require-erased", help="Exit with 0 only if something was erased and nothing was refused."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a certificate with the public keys only, and say what it proves and what it does not.

    The receipt of a block, which munkey-client forget has left where a legal hold was on something, is checked as well.

    With --secret and a patient's id, or the ids of all records that were named, it also says whether it is about them.
    Without --require-erased, exit code 0 says that the certificate holds, whatever became of the request; one that is
    incomplete, for the receipt of a site is missing, ends with 4. With it, the exit code is that of munkey-client
    forget (docs/operations.md, "Exit codes").

    It needs no network. python -m fedmunkey.common.proofs.verify_certificate does the same and installs lighter.

    Example: munkey-client verify certificate.json --keys trust.json
    """
    given = [subject is not None, subject_file is not None, bool(record), records_file is not None]
    if sum(given) != (secret is not None):
        raise InvalidProof(
            "whom it is about is checked with --secret and one of --subject, --subject-file, --record, --records-file"
        )
    if (block := _find_block(file)) is not None:
        if secret is not None or require_erased:
            raise InvalidProof(
                f"{file} is the receipt of a block: it names nobody, and nothing was erased; leave --secret "
                "and --require-erased out"
            )
        _show_block(block, TrustedKeys.read(keys), as_json=as_json)
        return
    named_subject, named_records = read_subject(subject, subject_file), read_records(record, records_file)
    verified, trusted = read_and_verify(file, keys)
    named = secret is not None
    if secret is not None:
        _check_named(verified, FederationSecret.read(secret), named_subject, named_records or [])
    if as_json:
        about = certificate_words.document(verified, trusted)
        command_line.print_json({**about, "checked_identity": named})
    else:
        typer.echo("\n".join(lines(verified, trusted)))
        if named:
            typer.echo(f"\nIt is about the {'patient' if named_subject is not None else 'records'} that you named.")
    if require_erased or verified.silent:
        raise typer.Exit(verified.outcome)


def _find_block(path: Path) -> bytes | None:
    """Return what a file holds if that is the receipt of a block, whoever signed it; None for anything else."""
    with suppress(InvalidProof, OSError):
        data = path.read_bytes()
        Block.of(read_envelope(data))
        return data
    return None


def _show_block(data: bytes, trusted: TrustedKeys, *, as_json: bool) -> None:
    block = verify_block(data, trusted)
    holds = [digest.hex() for digest in block.holds]
    time = write_time(block.time)
    command_line.show(
        {"request_id": block.request_id, "request": block.request.hex(), "blocked": time, "holds": holds},
        as_json,
        f"The receipt holds. The coordinator kept request {block.request_id} out on {time}: nothing was erased",
        *(f"legal hold {digest}" for digest in holds),
        "Not proved: that the hold was given by who may (munkey-client hold list shows who signed it)",
    )


def _check_named(verified: Verified, secret: FederationSecret, subject: str | None, records: list[str]) -> None:
    if subject is not None:
        wanted = target_digest(Subject(secret.reference(subject)))
    else:
        wanted = target_digest(Records(frozenset(map(secret.reference, records)), verified.terms.site))
    if wanted != verified.terms.target:
        raise InvalidProof("the certificate holds, but it is about something else than what you named")
