"""`munkey-server init`, `renew`, `invite`, `members` and `revoke`: who belongs to the federation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidSetting, count_of
from fedmunkey.common.identities.invitation import fingerprint
from fedmunkey.common.identities.member_names import MemberRole
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import JsonOption, takes_options
from fedmunkey.common.proofs.duties import Duty, duties_of, duty_words
from fedmunkey.common.settings.addresses import split_address
from fedmunkey.server.commands import display
from fedmunkey.server.commands.card_options import CardOptions
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members import inviting, renewal
from fedmunkey.server.members.authority import AUTHORITY_YEARS, hosts_of
from fedmunkey.server.members.card_making import enter_version
from fedmunkey.server.members.coordinator_folder import DATABASE_VARIABLE, CoordinatorFolder, ledger_that_is_there
from fedmunkey.server.members.recovery import open_register
from fedmunkey.server.members.register import INVITATION_DAYS, MemberRegister

DEFAULT_FOLDER = Path("coordinator")

FolderOption = Annotated[
    Path, typer.Option("--coordinator-dir", help="The coordinator's folder, which munkey-server init makes.")
]
_MAY = "What the member may do: file, approve, view. Repeatable; whoever may do anything may view."
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        "--ledger",
        envvar=DATABASE_VARIABLE,
        help="The ledger, if it is not where the coordinator's folder has it: a file or a postgresql:// URL.",
    ),
]


@takes_options(CardOptions)
def init(
    card: CardOptions,
    host: Annotated[
        list[str], typer.Option(help="Name or IP address at which sites reach the coordinator. Repeatable.")
    ],
    coordinator_dir: FolderOption = DEFAULT_FOLDER,
    federation: Annotated[str, typer.Option(help="What the federation is called in invitations.")] = "fedmunkey",
    years: Annotated[int, typer.Option(min=1, max=50, help="How long its authority is good.")] = AUTHORITY_YEARS,
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            "--ledger",
            envvar=DATABASE_VARIABLE,
            help="Where the ledger is to be kept, if not in the folder: a file or a postgresql:// URL. Noted, and used "
            "by every command from then on.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the federation's certificate authority, the coordinator's identity, the key of its log, and its ledger.

    The authority decides who is a member. Its private key, ca/private-key.pem, is needed to invite, rotate and renew.
    What is there already is never overwritten. With the names of the classes and the shape of the images the first
    federation card is made as well (munkey-server card make), without which no run begins.

    Example: munkey-server init --host coordinator.example.org --host 127.0.0.1 --coordinator-dir coordinator
    --class benign --class malignant --image-shape 1x28x28
    """
    folder = CoordinatorFolder(coordinator_dir)
    folder.check_new()
    draft = card.draft(None) if card.any_given() else None
    if database is not None and "://" in database:
        # What cannot be reached is said before anything is made.
        Ledger(database).close()
    authority = folder.create(federation, host, years)
    if database is not None:
        folder.note_ledger(database)
    Ledger(database or folder.ledger).close()
    signed = None if draft is None else enter_version(folder, draft, "", database or folder.ledger, utc_now())
    identity = folder.read_identity()
    ca_end = authority.certificate.not_valid_after_utc.isoformat()
    about = {
        "federation": authority.federation,
        "ca_fingerprint": fingerprint(authority.certificate),
        "ca_not_after": ca_end,
        "hosts": host,
        "not_after": identity.not_after.isoformat(),
        "folder": str(coordinator_dir),
        "card": None if signed is None else signed.digest,
    }
    where = f"--coordinator-dir {coordinator_dir}"
    command_line.show(
        about,
        as_json,
        f"federation {authority.federation}: authority {folder.authority}, good until {ca_end[:10]}",
        f"its fingerprint is {about['ca_fingerprint']}",
        f"coordinator's certificate for {', '.join(host)}: good until {identity.not_after:%Y-%m-%d}",
        f"next: munkey-server card make {where} --class NAME ..., what all members must agree on"
        if signed is None
        else f"federation card {signed.words}: munkey-server card show {where}",
        f"next: munkey-server invite NAME {where} ...",
    )


def invite(
    name: Annotated[str, typer.Argument(help="Who is invited: a site's name, or an officer's.", show_default=False)],
    joining_address: Annotated[str, typer.Option(help="Where members join, host:port, as serve has it.")],
    output: Annotated[Path, typer.Option(help="Where to write the invitation.")],
    role: Annotated[MemberRole, typer.Option(help="As what: site or officer.")] = MemberRole.SITE,
    days: Annotated[float, typer.Option(min=0.001, max=90, help="Days for which it is good.")] = INVITATION_DAYS,
    may: Annotated[list[Duty] | None, typer.Option(help=f"{_MAY} As it was, or everything, by default.")] = None,
    coordinator_dir: FolderOption = DEFAULT_FOLDER,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an invitation with which one member can join, once.

    Whoever has the file can join under this name: hand it over as you would a password, and delete it here.
    A later invitation under a name takes the place of an earlier one that was not used.

    Example: munkey-server invite hospital-1 --joining-address coordinator.example.org:9441 --output hospital-1.json
    """
    split_address(joining_address)
    folder = CoordinatorFolder(coordinator_dir)
    folder.read_authority()
    if output.exists():
        raise InvalidSetting(f"{output} is there already; name another file with --output")
    with opened_register(folder, database) as register:
        invitation = inviting.invite(folder, register, name, role, joining_address, days)
        if may:
            register.allow(name, frozenset(may))
        invitation.write(output)
    until = utc_now() + timedelta(days=days)
    where = f"--site-dir {name}" if role is MemberRole.SITE else "--identity FOLDER"
    command_line.show(
        {
            "name": name,
            "role": role.value,
            "address": joining_address,
            "ca_fingerprint": invitation.fingerprint,
            "expires_at": until.isoformat(),
            "file": str(output),
        },
        as_json,
        f"invitation of {role} {name}: {output}, good once until {until:%Y-%m-%d %H:%M} UTC",
        f"hand it over in secret; there: munkey-client join {output.name} {where}",
    )


def allow(
    name: Annotated[str, typer.Argument(help="The member's name.", show_default=False)],
    may: Annotated[list[Duty], typer.Option(help=_MAY)],
    coordinator_dir: FolderOption = DEFAULT_FOLDER,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a member may do from its next call on: file, approve, or only view; the service may be running.

    Whoever may only view is refused where it asks for something, whatever it has signed. What its signing key may do is
    said where that key is trusted, here and at each site: munkey-server trust allow, munkey-client trust allow.

    Example: munkey-server allow officer-2 --may approve --coordinator-dir coordinator
    """
    duties = duties_of(may)
    with opened_register(CoordinatorFolder(coordinator_dir), database) as register:
        register.allow(name, duties)
    command_line.show(
        {"name": name, "may": [duty for duty in Duty if duty in duties]}, as_json, f"{name} may {duty_words(duties)}"
    )


def members(
    coordinator_dir: FolderOption = DEFAULT_FOLDER, database: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """List the members' certificates: whose they are, until when they are good, and which were revoked and why.

    Example: munkey-server members --coordinator-dir coordinator
    """
    folder = CoordinatorFolder(coordinator_dir)
    with opened_register(folder, database) as register:
        known = register.list()
    now = utc_now()
    documents = [display.member_document(member, now) for member in known]
    command_line.show(documents, as_json, display.member_table(known, now))


def revoke(
    name: Annotated[str, typer.Argument(help="The member's name.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why; the member is told. No patient's name.")],
    coordinator_dir: FolderOption = DEFAULT_FOLDER,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shut a member out: its certificates are refused from its next call on, and no order is sent to it any more.

    The service may be running meanwhile. Orders that a site has not answered stay open: munkey-server sites --remove
    ends them. The name can be invited again.

    Example: munkey-server revoke hospital-3 --reason "its server was stolen" --coordinator-dir coordinator
    """
    folder = CoordinatorFolder(coordinator_dir)
    with opened_register(folder, database) as register:
        count = register.revoke(name, reason)
    shown = {"name": name, "reason": reason, "certificates": count}
    command_line.show(shown, as_json, f"{name} is shut out: {count_of(count, 'certificate')} revoked")


def renew(
    host: Annotated[
        list[str] | None, typer.Option(help="Name or IP address, instead of the present ones. Repeatable.")
    ] = None,
    coordinator_dir: FolderOption = DEFAULT_FOLDER,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace the coordinator's own key and certificate, before it expires or for other hosts.

    Services that run show the new certificate from the next connection on. Members notice nothing.

    Example: munkey-server renew --coordinator-dir coordinator
    """
    folder = CoordinatorFolder(coordinator_dir)
    with opened_register(folder, database) as register:
        identity = renewal.renew(folder, register, host or ())
    hosts = hosts_of(identity.certificate)
    command_line.show(
        {"hosts": hosts, "not_after": identity.not_after.isoformat()},
        as_json,
        f"the coordinator has a fresh certificate for {', '.join(hosts)}, good until {identity.not_after:%Y-%m-%d}",
    )


@contextmanager
def opened_register(folder: CoordinatorFolder, database: str | None) -> Iterator[MemberRegister]:
    """Give the register of a coordinator's folder; what it had lost and has back is said on stderr."""
    if database is None:
        folder.check_is_one()
    with Ledger(ledger_that_is_there(database, folder)) as ledger:
        register, lost = open_register(folder, ledger)
        for line in lost:
            typer.echo(line, err=True)
        yield register
