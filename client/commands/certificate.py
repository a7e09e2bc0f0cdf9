"""`munkey-client certificate`: fetch what shows that a request was carried out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.options import DEFAULT_SERVICE, IdentityOption, JsonOption, ServiceOption
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.common.errors import InvalidProof, count_of
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs import command_line
from fedmunkey.common.proofs import certificate_words
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.evidence import fetch_evidence


@faults_explained()
def certificate(
    request_id: Annotated[str, typer.Argument(help="The request's id.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Where to write the certificate.")],
    keys: Annotated[
        Path | None, typer.Option(help="File of trusted keys, such as a site's trust.json: check before writing.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page for people as well; needs --keys.")] = None,
    pdf: Annotated[
        Path | None,
        typer.Option(help="Write a PDF as well, the certificate in it; needs --keys and the extra pdf."),
    ] = None,
    service: ServiceOption = DEFAULT_SERVICE,
    identity: IdentityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the certificate of a request that every site has answered, or left the federation without an answer.

    It holds the signed request, the sites' receipts, their proofs in the log and the log's signed head,
    and no patient's or record's id. Whoever has the public keys can check it: munkey-client verify.

    Example: munkey-client certificate 6f1c0a52 --output certificate.json --keys trust.json --html certificate.html
    """
    for what, path in (("page", html), ("PDF", pdf)):
        if path is not None and keys is None:
            raise InvalidProof(
                f"a {what} is written only of a certificate that was checked; name the trusted keys with --keys"
            )
    shown = None if identity is None else Identity.read(identity)
    with DeletionChannel(service, identity=shown) as channel:
        evidence = fetch_evidence(channel, request_id, None if keys is None else TrustedKeys.read(keys))
    made, verified, trusted = evidence.certificate, evidence.verified, evidence.keys
    silent = f", none of {', '.join(made.silent)}" if made.silent else ""
    page = None if html is None else evidence.page()
    printed = None if pdf is None else evidence.pdf()
    output.write_bytes(evidence.data)
    if html is not None and page is not None:
        html.write_text(page + "\n", encoding="utf-8")
    if pdf is not None and printed is not None:
        pdf.write_bytes(printed)
    if as_json:
        about = None if verified is None or trusted is None else certificate_words.document(verified, trusted)
        command_line.print_json({"certificate": str(output), "checked": verified is not None, "about": about})
        return
    checked = "checked" if verified is not None else "not checked; check it with munkey-client verify"
    typer.echo(f"certificate of {request_id}: {output}, {count_of(len(made.receipts), 'receipt')}{silent}, {checked}")
    if verified is not None:
        typer.echo(certificate_words.headline(verified))
    if html is not None:
        typer.echo(f"page: {html}")
    if pdf is not None:
        typer.echo(f"PDF: {pdf}")
