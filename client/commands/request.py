"""`munkey-client request`: ask for deletions from any machine, with a key."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated

import typer

from client.commands.faults import faults_explained
from client.commands.forget import Wanted, ask, confirm, read_wanted, target_of
from client.commands.options import DEFAULT_SERVICE, IdentityOption, JsonOption, ServiceOption, ValidDaysOption
from client.commands.requester import DEFAULT_DAYS, Requester
from common.addresses import split_address
from common.deletion import DATA_PROTECTION_OFFICER, DeletionRequest, Subject, Target, WholeSite, utc_now
from common.errors import InvalidDeletion
from common.identities import Identity
from common.references import FederationSecret
from common.signing.keys import SigningKey

_OFFICER = "officer"


@faults_explained()
def request(
    asking: Annotated[str, typer.Option("--as", help=f"Who asks: {_OFFICER}, or a site's name.")],
    key: Annotated[Path, typer.Option(help="The private key that signs; munkey-client keys new makes one.")],
    secret: Annotated[Path, typer.Option(help="The federation secret, which makes references of ids.")],
    record: Annotated[list[str] | None, typer.Option(help="A record's id. Repeatable.")] = None,
    records_file: Annotated[Path | None, typer.Option(help="A file with record ids, one a line.")] = None,
    subject: Annotated[str | None, typer.Option(help="A patient's id: every record about that patient.")] = None,
    everything: Annotated[bool, typer.Option("--everything", "--all", help="Everything that one site holds.")] = False,
    site: Annotated[str | None, typer.Option(help="The only site to ask, for records or everything.")] = None,
    service: ServiceOption = DEFAULT_SERVICE,
    identity: IdentityOption = None,
    valid_days: ValidDaysOption = DEFAULT_DAYS,
    request_id: Annotated[
        str | None,
        typer.Option(help="The request's id, a random one by default; the same id again is the same request."),
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the sites' answers; 0 does not wait.")] = 60.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether --everything is meant.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask with a key, from any machine, for records, a patient or a whole site to be forgotten.

    It needs no site's folder, only the key, the federation secret and a way to the service.
    Each site checks the signature by itself, against its own file of trusted keys.

    Example: munkey-client request --as officer --key officer.pem --secret federation.secret --subject patient-17
    """
    split_address(service)
    shown = None if identity is None else Identity.read(identity)
    wanted = read_wanted(record, records_file, subject, everything)
    name = DATA_PROTECTION_OFFICER if asking == _OFFICER else asking
    asker = Requester(name, SigningKey.read(key), FederationSecret.read(secret))
    target = _target(wanted, asker, site)
    if isinstance(target, WholeSite) and not yes:
        confirm(target.site)
    made = DeletionRequest(str(uuid.uuid4()) if request_id is None else request_id, name, target)
    ask(asker.sign(made, utc_now(), valid_days), service, wait, as_json, shown)


def _target(wanted: Wanted, asker: Requester, site: str | None) -> Target:
    """Return what is asked for; a site asks for what it holds itself."""
    officer = asker.name == DATA_PROTECTION_OFFICER
    if not officer and site not in (None, asker.name):
        raise InvalidDeletion(f"--as {asker.name} asks for what {asker.name} holds; leave --site out")
    where = (site or "") if officer else asker.name
    if wanted == Wanted():
        if not where:
            raise InvalidDeletion("--everything is about one site; name it with --site")
        return WholeSite(where)
    if site == "":
        raise InvalidDeletion("--site is empty; name a site, or leave it out to ask every site")
    if asker.secret is None:
        raise AssertionError("a secret was read")
    target = target_of(wanted, asker.secret, where)
    if isinstance(target, Subject) and site is not None:
        raise InvalidDeletion("a subject is forgotten wherever the requester may ask; leave --site out")
    return target
