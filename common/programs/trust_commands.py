"""`trust`, a command of sites, of the coordinator and of whoever checks certificates: whose keys are believed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import JsonOption
from fedmunkey.common.proofs.signing.signing_key import PublicKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys

FILE_NAME = "trust.json"

_InOption = Annotated[
    Path, typer.Option("--in", help=f"The file of trusted keys, or a folder that has it as {FILE_NAME}.")
]
_DATE = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]


def trust_application(program: str) -> typer.Typer:
    """Return the commands; `program` is what the examples in their help begin with."""
    app = typer.Typer(
        no_args_is_help=True,
        help=f"""Say whose keys are believed: requesters', sites' and the log's.

        Example: {program} trust add hospital-1 hospital-1.pub --role site --in trust.json
        """,
    )
    for command in (add, show, revoke):
        command_help = (command.__doc__ or "").replace("PROGRAM", program)
        app.command(help=command_help)(command)
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
) -> None:
    """Trust a key. A file that is not there is made; at a site it ends the carrying out of unsigned requests.

    Example: PROGRAM trust add officer officer.pub --role officer --in trust.json
    """
    path = _path(where)
    keys = TrustedKeys.read(path) if path.exists() else TrustedKeys()
    is_digits = len(public_key) == 64 and not Path(public_key).exists()
    key = PublicKey.parse(public_key) if is_digits else PublicKey.read(Path(public_key))
    if start is not None and end is not None and end <= start:
        raise InvalidProof("--until is not after --from; a key must be valid for some time")
    keys.add(TrustedKey(name, role, key, _utc(start), _utc(end))).write(path)
    typer.echo(f"{path}: trusts key {key.key_id[:16]} of {name} as {role}")


def show(where: _InOption = Path(FILE_NAME), as_json: JsonOption = False) -> None:
    """List the keys that are trusted, and those that were revoked.

    Example: PROGRAM trust show --in trust.json
    """
    keys = TrustedKeys.read(_path(where)).keys
    documents = [{**key.document(), "key_id": key.key.key_id} for key in keys]
    table = command_line.plain_table("name", "role", "key id", "from", "until", "revoked")
    for shown in documents:
        times = (shown[time] or "" for time in ("from", "until", "revoked"))
        table.add_row(shown["name"], shown["role"], shown["key_id"][:16], *times)
    command_line.show(documents, as_json, table)


def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, or its first 8 digits or more.")],
    where: _InOption = Path(FILE_NAME),
) -> None:
    """Withdraw trust from a key, for good: nothing that it has signed is believed, whatever its date.

    For a key that is merely replaced, use add --until instead.

    Example: PROGRAM trust revoke 21fe31dfa154a261 --in trust.json
    """
    path = _path(where)
    TrustedKeys.read(path).revoke(key_id, utc_now()).write(path)
    typer.echo(f"{path}: key {key_id} is revoked")


def _path(where: Path) -> Path:
    return where / FILE_NAME if where.is_dir() else where


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)
