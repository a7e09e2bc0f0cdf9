"""`trust`, a command of sites, of the coordinator and of whoever checks certificates: whose keys are believed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.configured import Configuration
from fedmunkey.common.programs.options import JsonOption
from fedmunkey.common.proofs.duties import EVERY_DUTY, Duty, duties_of, duty_words
from fedmunkey.common.proofs.signing.signing_key import PublicKey
from fedmunkey.common.proofs.signing.statements import write_time
from fedmunkey.common.proofs.trusted_keys import Approved, Role, TrustedKey, TrustedKeys

FILE_NAME = "trust.json"

_InOption = Annotated[
    Path, typer.Option("--in", help=f"The file of trusted keys, or a folder that has it as {FILE_NAME}.")
]
_NamedArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="The key's id, its first 8 digits or more, or its holder's name.")
]
_MAY_HELP = "What the key's holder may do. Repeatable; whoever may do anything may view."
_DATE = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]


def trust_application(program: str, configuration: Configuration) -> typer.Typer:
    """Return the commands; `program` is what the examples in their help begin with.

    Without `--in` they act on the folder that the program's file of settings names.
    """
    app = typer.Typer(
        no_args_is_help=True,
        help=f"""Say whose keys are believed: requesters', sites' and the log's.

        Example: {program} trust add hospital-1 hospital-1.pub --role site --in trust.json
        """,
    )
    for command in (add, allow, show, end, revoke, require):
        command_help = (command.__doc__ or "").replace("PROGRAM", program)
        app.command(cls=configuration.command(), help=command_help)(command)
    return app


def add(
    name: Annotated[str, typer.Argument(help="Whose key it is; a site's own name for --role site.")],
    public_key: Annotated[str, typer.Argument(help="A file with the public key, or its 64 hexadecimal digits.")],
    role: Annotated[Role, typer.Option(help="What the key may sign.")],
    where: _InOption = Path(FILE_NAME),
    start: Annotated[
        datetime | None, typer.Option("--from", formats=_DATE, help="Trust what is dated from then on, UTC.")
    ] = None,
    end: Annotated[
        datetime | None, typer.Option("--until", formats=_DATE, help="Trust what is dated before then, UTC.")
    ] = None,
    may: Annotated[list[Duty] | None, typer.Option(help=f"{_MAY_HELP} Everything by default.")] = None,
) -> None:
    """Trust a key. A file that is not there is made; at a site it ends the carrying out of unsigned requests.

    Example: PROGRAM trust add officer officer.pub --role officer --in trust.json
    """
    path = _path(where)
    is_digits = len(public_key) == 64 and not Path(public_key).exists()
    key = PublicKey.parse(public_key) if is_digits else PublicKey.read(Path(public_key))
    if start is not None and end is not None and end <= start:
        raise InvalidProof("--until is not after --from; a key must be valid for some time")
    if may and role is Role.LOG:
        raise InvalidProof("--may is for keys that ask; the log's key signs its heads, leave --may out")
    duties = duties_of(may) if may else EVERY_DUTY
    added = TrustedKey(name, role, key, _utc(start), _utc(end), duties=duties)
    TrustedKeys.change(path, lambda keys: keys.add(added))
    only = "" if duties == EVERY_DUTY else f", which may {duty_words(duties)}"
    typer.echo(f"{path}: trusts key {key.key_id[:16]} of {name} as {role}{only}")


def allow(
    named: _NamedArgument,
    may: Annotated[list[Duty], typer.Option(help=_MAY_HELP)],
    where: _InOption = Path(FILE_NAME),
) -> None:
    """Say what the holder of an officer's or a site's key may do from now on: file, approve, or only view.

    Requests that were heard before stay as they are. Where several officers must sign (trust require), one of them has
    to be able to file, and the others, by other names, to approve.

    Example: PROGRAM trust allow officer-2 --may approve --in trust.json
    """
    path = _path(where)
    duties = duties_of(may)
    _change(path, lambda keys: keys.allow(named, duties))
    typer.echo(f"{path}: key {named} may {duty_words(duties)}")


def show(where: _InOption = Path(FILE_NAME), as_json: JsonOption = False) -> None:
    """List the keys that are trusted, and those that were revoked.

    Example: PROGRAM trust show --in trust.json
    """
    trusted = TrustedKeys.read(_path(where))
    documents = [
        {**key.document(), "key_id": key.key.key_id, "may": [duty for duty in Duty if duty in key.duties]}
        for key in trusted.keys
    ]
    table = command_line.plain_table("name", "role", "key id", "from", "until", "revoked", "may")
    for shown in documents:
        times = (shown[time] or "" for time in ("from", "until", "revoked"))
        may = "" if shown["role"] == Role.LOG else ", ".join(shown["may"])
        table.add_row(shown["name"], shown["role"], shown["key_id"][:16], *times, may)
    command_line.show(documents, as_json, table)
    if trusted.officers > 1 and not as_json:
        typer.echo(_required(trusted))


def end(
    named: _NamedArgument,
    at: Annotated[
        datetime | None, typer.Option("--at", formats=_DATE, help="When the key ends, UTC; at once by default.")
    ] = None,
    where: _InOption = Path(FILE_NAME),
) -> None:
    """End a key that is replaced or not needed any more: what it has signed before stays good.

    Requests that are heard for the first time after the end are refused, whatever their date: have those who ask sign
    with the other key first. A key that somebody may have stolen is revoked instead.

    Example: PROGRAM trust end officer --at 2026-12-31 --in trust.json
    """
    path = _path(where)
    time = _utc(at) or utc_now().replace(microsecond=0)
    _change(path, lambda keys: keys.end(named, time))
    typer.echo(
        f"{path}: key {named} ends on {write_time(time)}; certificates, receipts and requests that were heard before "
        "stay good"
    )


def revoke(
    named: _NamedArgument,
    where: _InOption = Path(FILE_NAME),
) -> None:
    """Withdraw trust from a stolen key, for good: nothing that it has signed is believed, whatever its date.

    That changes the past: certificates and receipts with its signature do not hold any more. For a key that is
    replaced or not needed any more, use trust end instead.

    Example: PROGRAM trust revoke 21fe31dfa154a261 --in trust.json
    """
    path = _path(where)
    _change(path, lambda keys: keys.revoke(named, utc_now()))
    typer.echo(
        f"{path}: key {named} is revoked; certificates and receipts that it has signed do not hold any more, from "
        "before either"
    )


def require(
    officers: Annotated[int, typer.Argument(min=1, max=16, help="How many officers, of different names.")],
    where: _InOption = Path(FILE_NAME),
    approved: Annotated[
        Approved,
        typer.Option(
            "--for", help="What needs them: everything that a site holds, or nearly, or all that the office asks for."
        ),
    ] = Approved.SITES,
) -> None:
    """Say how many officers must have signed before everything that a site holds is forgotten; 1 by default.

    With more than one, the site's own signature is not enough either; with --for all, nothing that the office asks for
    is carried out for fewer, whole sites included. One of them may file, the others approve (trust allow). At a site
    it is that site's own decision; at the coordinator, whoever brings fewer is turned away at once.

    Example: PROGRAM trust require 2 --for all --in trust.json
    """
    path = _path(where)
    trusted = _change(path, lambda keys: keys.require(officers, approved))
    typer.echo(f"{path}: {_required(trusted)}")


def _change(path: Path, change: Callable[[TrustedKeys], TrustedKeys]) -> TrustedKeys:
    """Change a file that is there, and return what it holds; raises `InvalidProof` if it is not."""
    TrustedKeys.read(path)
    return TrustedKeys.change(path, change)


def _required(trusted: TrustedKeys) -> str:
    all_of_it = trusted.approved is Approved.ALL
    what = "what the office asks for is carried out" if all_of_it else "everything that the site holds is forgotten"
    return f"{what} once officers of {trusted.officers} names have signed"


def _path(where: Path) -> Path:
    """Return the file that is meant; what is not there yet is a folder, unless it is called *.json."""
    is_file = where.is_file() or (not where.is_dir() and where.suffix == ".json")
    return where if is_file else where / FILE_NAME


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)
