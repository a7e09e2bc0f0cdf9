"""`munkey-server keys`: the file of keys by which certificates are checked, from what the coordinator has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities.member_names import MemberRole
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import JsonOption
from fedmunkey.common.proofs.signing.signing_key import PublicKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.server.commands.members import DEFAULT_FOLDER, DatabaseOption, FolderOption, opened_register
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder


def keys(
    output: Annotated[Path, typer.Option(help="Where to write the keys; a new file.")] = Path("keys.json"),
    coordinator_dir: FolderOption = DEFAULT_FOLDER,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write keys.json, by which certificates are checked: the keys of officers, of the sites, and of the log.

    Sites' keys are those with which they joined, officers' those that munkey-server trust add was given. Whoever is to
    believe the file compares each fingerprint with the key's holder, by telephone: the coordinator could have put in
    keys of its own. A member whose key is missing is named; its receipts cannot be checked.

    Example: munkey-server keys --output keys.json --coordinator-dir coordinator
    """
    folder = CoordinatorFolder(coordinator_dir)
    if output.exists():
        raise InvalidSetting(f"{output} is there already; name another file with --output")
    if not folder.trust.exists():
        raise InvalidSetting(
            f"{folder.trust} is missing, which notes sites' keys when they join; munkey-server trust add makes it"
        )
    with opened_register(folder, database) as register:
        members = {member.name: member for member in register.list()}
        good = {name for role in MemberRole for name in register.good_names(role)}
    log = TrustedKey("log", Role.LOG, PublicKey.read(folder.log_key.with_suffix(".pub")))
    held = TrustedKeys.read(folder.trust)
    known = (*held.keys, *(() if held.of(Role.LOG) else (log,)))
    for key in known:
        TrustedKeys.change(output, lambda trusted, key=key: trusted.add(key))  # type: ignore[misc]
    rows = [[key.name, key.role.value, key.key.key_id, _state(key, good, set(members))] for key in known]
    sites = {name for name, member in members.items() if member.role is MemberRole.SITE}
    lacking = sorted(sites - {key.name for key in known if key.role is Role.SITE})
    document = {
        "file": str(output),
        "keys": [dict(zip(("name", "role", "fingerprint", "member"), row, strict=True)) for row in rows],
        "without_key": lacking,
    }
    table = command_line.filled_table(["name", "role", "fingerprint", "member"], [], rows)
    missing = [f"without a key, as they joined before trust.json was made: {', '.join(lacking)}"] if lacking else []
    said = f"{output}: compare each fingerprint with its holder, as munkey-client signing-keys show has it"
    command_line.show(document, as_json, table, *missing, said)


def _state(key: TrustedKey, good: set[str], members: set[str]) -> str:
    """Say whether a key's holder is a member; an officer's key has a name of its own."""
    if key.role is not Role.SITE:
        return ""
    return "yes" if key.name in good else "no longer" if key.name in members else "never joined"
