"""`munkey-client recall`: which models that were given away hold what was erased since."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fedmunkey.client.commands.options import JsonOption
from fedmunkey.client.deletions.lineage.exported_models import ExportRegister, ModelState, states
from fedmunkey.client.deletions.lineage.recalling import Reason, Told, ask, lineage, reason_for
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidInput
from fedmunkey.common.programs import command_line
from fedmunkey.common.proofs.verify_certificate import read_and_verify
from fedmunkey.common.service.channel import DeletionChannel

MUST_BE_REPLACED = 7
"""Exit code where a model holds what was erased; above those of a request's outcomes."""


@dataclass(frozen=True)
class _Checked:
    """A file, and why it must be replaced; nothing for it may stay."""

    file: Path
    digest: str
    reasons: tuple[Reason, ...]
    withdrawn: str = ""

    def document(self) -> dict[str, Any]:
        return {
            "file": str(self.file),
            "sha256": self.digest,
            "state": "must be replaced" if self.reasons else "may stay",
            "withdrawn": self.withdrawn,
            "reasons": [{"request": reason.request_id, "why": reason.why} for reason in self.reasons],
        }


@faults_explained()
def recall(
    site_dir: Annotated[
        Path | None,
        typer.Option("--site-dir", help="The site's folder; whoever was given a model has none.", show_default=False),
    ] = None,
    check: Annotated[Path | None, typer.Option(help="A model: say whether it must be replaced.")] = None,
    certificate: Annotated[
        list[Path] | None,
        typer.Option(help="With --check: a request's certificate, which also tells of other sites; may be repeated."),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="File of trusted keys for certificates; by default the site's trust.json.")
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(
            help="With --check: a deletion service to ask what other sites erased for requests that this site has "
            "heard of; by default nobody is called."
        ),
    ] = None,
    request: Annotated[
        str | None, typer.Option(help="A request's id: which releases and exported models hold what it erased.")
    ] = None,
    withdrawn: Annotated[
        Path | None,
        typer.Option(help="A model: note that whoever was given it has been told, and uses it no more."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that a site has given away, or say whether one of them must be replaced.

    A model must be replaced once something was erased that it was made with: at this site after it was written, and,
    as certificates or the service tell, at another before the shared weights were renewed. Exit code 0 says that the
    model may stay, 7 that it must be replaced, and for which requests. A file that the site has not written, or that
    was changed, is refused with 2. Whoever was given a model checks it without a site's folder, with --certificate and
    --keys.

    Example: munkey-client recall --site-dir hospital-1 --check chest.onnx
    """
    if sum(given is not None for given in (check, request, withdrawn)) > 1:
        raise InvalidInput("--check, --request and --withdrawn are asked for one at a time")
    if check is None and (certificate or service is not None):
        raise InvalidInput("--certificate and --service tell of one model; name it with --check")
    if service is not None and site_dir is None:
        raise InvalidInput(f"--service {service} is asked as a site; name its folder with --site-dir")
    folder = None if site_dir is None else SiteFolder(site_dir)
    if check is not None:
        checked = _check(check, folder, certificate or [], keys, service)
        _say_checked(checked, as_json=as_json)
        raise typer.Exit(MUST_BE_REPLACED if checked.reasons else 0)
    if folder is None:
        raise InvalidInput("name the site's folder with --site-dir; without it a model is checked with --check")
    if withdrawn is not None:
        digest = _known(withdrawn, folder).model.digest
        ExportRegister(folder).withdraw(digest, utc_now().isoformat(timespec="seconds"))
        typer.echo(f"{withdrawn} is noted as used no more")
    elif request is not None:
        _say_lineage(folder, request, as_json=as_json)
    else:
        _say_all(folder, as_json=as_json)


def _check(
    path: Path, folder: SiteFolder | None, certificates: list[Path], keys: Path | None, service: str | None
) -> _Checked:
    if folder is None and not certificates:
        raise InvalidInput("a model is checked with the site's folder (--site-dir), or with --certificate and --keys")
    trusted = keys if keys is not None or folder is None else folder.trust
    if certificates and trusted is None:
        raise InvalidInput("certificates are checked with --keys, the public keys to trust")
    reasons: list[Reason] = []
    withdrawn = ""
    if folder is not None:
        state = _known(path, folder)
        withdrawn = state.model.withdrawn
        reasons += [Reason(one, "erased at this site after the model was written") for one in state.requests]
        digest, release, site = state.model.digest, state.model.release, folder
    else:
        from fedmunkey.client.predicting.exporting.facts import read_facts

        digest, release, site = _digest_of(path), read_facts(path)["release"], None
    told = [Told.by(read_and_verify(file, trusted)[0]) for file in certificates] if trusted is not None else []
    if service is not None and folder is not None:
        told += _told_by(service, folder)
    for each in told:
        reason = reason_for(each, digest, release, site)
        if reason is not None and reason.request_id not in [known.request_id for known in reasons]:
            reasons.append(reason)
    return _Checked(path, digest, tuple(reasons), withdrawn)


def _told_by(service: str, folder: SiteFolder) -> list[Told]:
    with folder.open() as store:
        requests = dict.fromkeys(answer.request_id for answer in store.orders.read_answers())
        site = store.description.site
    with DeletionChannel(service, identity=folder.find_identity()) as channel:
        return list(ask(channel, requests, site))


def _digest_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}); name a model that was exported") from None


def _known(path: Path, folder: SiteFolder) -> ModelState:
    """Return what the site knows of a file; raises `InvalidInput` if it has not written it."""
    digest = _digest_of(path)
    with folder.open() as store:
        found = next((state for state in states(folder, store) if state.model.digest == digest), None)
    if found is None:
        raise InvalidInput(
            f"{path} is no file that this site has exported, or it was changed since (SHA-256 {digest[:16]}); "
            "munkey-client recall lists those that it has"
        )
    return found


def _say_checked(checked: _Checked, *, as_json: bool) -> None:
    if as_json:
        command_line.print_json(checked.document())
        return
    if not checked.reasons:
        typer.echo(f"{checked.file} may stay: nothing that it was made with is known to have been erased")
        return
    typer.echo(f"{checked.file} MUST BE REPLACED")
    for reason in checked.reasons:
        typer.echo(f"request {reason.request_id}: {reason.why}")


def _say_all(folder: SiteFolder, *, as_json: bool) -> None:
    with folder.open() as store:
        found = states(folder, store)
    if as_json:
        command_line.print_json([state.document() for state in found])
        return
    if not found:
        typer.echo("no model was exported; munkey-client export writes one")
        return
    table = command_line.plain_table("file", "SHA-256", "release", "case mix", "written", "state", "requests")
    for state in found:
        model = state.model
        requests = ", ".join(state.requests)
        table.add_row(
            *(model.name, model.digest[:16], model.release[:16], model.case_mix, model.time, state.word, requests)
        )
    command_line.print_table(table)


def _say_lineage(folder: SiteFolder, request_id: str, *, as_json: bool) -> None:
    with folder.open() as store:
        found = lineage(folder, store, request_id)
    if as_json:
        command_line.print_json(found.document())
        return
    typer.echo(f"request {request_id} erased {found.entries} entries (order {found.order})")
    for digest in found.releases:
        held = "in use, to be renewed" if digest == found.current else "renewed since"
        typer.echo(f"release {digest}: may hold it, {held}")
    for state in found.models:
        typer.echo(f"model {state.model.name} ({state.model.digest}): {state.word}")
    if not found.releases and not found.models:
        typer.echo("no release and no exported model that the site knows of holds it")
