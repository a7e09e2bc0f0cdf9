"""The register's rows as its journal has them, and rows that the ledger lost made again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities.identity import certificate_pem, parse_certificate
from fedmunkey.common.identities.member_keys import public_bytes
from fedmunkey.common.identities.member_names import member_of
from fedmunkey.server.database.member_tables import InvitationRow, MemberDutiesRow, MemberRow
from fedmunkey.server.members.member_journal import (
    CERTIFICATE,
    DUTIES,
    INVITATION,
    WITHDRAWN,
    Entry,
    States,
    changes_between,
)

_TIMES = ("used_at", "replaced_at", "revoked_at")
_AT_ONCE = 500


def row_values(serial: str, certificate: x509.Certificate, joined: datetime) -> dict[str, Any]:
    """Return the row of a certificate that an authority has signed."""
    role, name = member_of(certificate)
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise AssertionError("an authority signs certificates of ECDSA keys only")
    return {
        "serial": serial,
        "name": name,
        "role": role.value,
        "fingerprint": certificate.fingerprint(hashes.SHA256()),
        "public_key": public_bytes(key),
        "certificate": certificate_pem(certificate),
        "joined_at": joined,
        "not_after": certificate.not_valid_after_utc,
    }


def read_marks(connection: Connection) -> dict[Entry, tuple[Any, ...]]:
    """Return what shows whether a row has changed, as the driver has it: of ten thousand rows, within milliseconds."""
    marks: dict[Entry, tuple[Any, ...]] = {}
    for row in connection.exec_driver_sql("SELECT serial, used_at, replaced_at, revoked_at FROM members"):
        marks[Entry(CERTIFICATE, row[0])] = tuple(row[1:])
    for row in connection.exec_driver_sql("SELECT token_hash, used_for FROM invitations"):
        marks[Entry(INVITATION, bytes(row[0]).hex())] = tuple(row[1:])
    for row in connection.exec_driver_sql("SELECT name, may, changed_at FROM member_duties"):
        marks[Entry(DUTIES, row[0])] = tuple(row[1:])
    return marks


def read_changes(connection: Connection, marks: Mapping[Entry, tuple[Any, ...]], now: str) -> States:
    """Return what has to be written of the rows that have changed since they had these marks."""
    present = read_marks(connection)
    touched = {entry for entry in marks.keys() | present.keys() if marks.get(entry) != present.get(entry)}
    earlier: States = {entry: {} for entry in touched & marks.keys()}
    after = read_states(connection, touched) if touched else {}
    return with_whole_rows(connection, changes_between(earlier, after, now), earlier)


def read_states(connection: Connection, only: Collection[Entry] | None = None) -> States:
    """Return the fields that can change of all rows, or of some."""
    states: States = {}
    changing: list[Any] = [MemberRow.serial, *(getattr(MemberRow, name) for name in (*_TIMES, "reason"))]
    for row in _rows(connection, select(*changing), MemberRow.serial, _keys(only, CERTIFICATE)):
        fields = {name: getattr(row, name).isoformat() for name in _TIMES if getattr(row, name) is not None}
        states[Entry(CERTIFICATE, row.serial)] = fields | ({"reason": row.reason} if row.reason else {})
    changing = [InvitationRow.token_hash, InvitationRow.used_for]
    for row in _rows(connection, select(*changing), InvitationRow.token_hash, _hashes(_keys(only, INVITATION))):
        states[Entry(INVITATION, row.token_hash.hex())] = {} if row.used_for is None else {"used_for": row.used_for}
    of_members: Select[Any] = select(MemberDutiesRow.__table__)
    for row in _rows(connection, of_members, MemberDutiesRow.name, _keys(only, DUTIES)):
        states[Entry(DUTIES, row.name)] = {"may": row.may, "changed_at": row.changed_at.isoformat()}
    return states


def with_whole_rows(connection: Connection, changed: States, before: States) -> States:
    """Return changes with what makes a row again, for rows that were not there before."""
    new = changed.keys() - before.keys()
    whole: States = {}
    members = select(MemberRow.__table__)
    for row in _rows(connection, members, MemberRow.serial, _keys(new, CERTIFICATE)):
        pem = row.certificate.decode("ascii")
        whole[Entry(CERTIFICATE, row.serial)] = {"name": row.name, "joined_at": row.enrolled_at.isoformat(), "pem": pem}
    invitations = select(InvitationRow.__table__)
    for row in _rows(connection, invitations, InvitationRow.token_hash, _hashes(_keys(new, INVITATION))):
        times = {"invited_at": row.invited_at.isoformat(), "expires_at": row.expires_at.isoformat()}
        whole[Entry(INVITATION, row.token_hash.hex())] = {"name": row.name, "role": row.role, **times}
    return {entry: whole.get(entry, {}) | fields for entry, fields in changed.items()}


def _rows(connection: Connection, rows: Select[Any], column: Any, keys: list[Any] | None) -> Iterator[Row[Any]]:
    """Yield all rows, or those whose column has one of the keys."""
    if keys is None:
        yield from connection.execute(rows)
        return
    for first in range(0, len(keys), _AT_ONCE):
        yield from connection.execute(rows.where(column.in_(keys[first : first + _AT_ONCE])))


def _keys(entries: Collection[Entry] | None, kind: str) -> list[Any] | None:
    return None if entries is None else sorted(entry.key for entry in entries if entry.kind == kind)


def _hashes(keys: list[Any] | None) -> list[Any] | None:
    return None if keys is None else [bytes.fromhex(key) for key in keys]


def give_back(connection: Connection, kept: States) -> dict[str, list[str]]:
    """Have the rows say at least what the journal says; return, by member, in words what they had lost.

    What has ended stays so, on whichever side it is said. Raises `InvalidIdentity` if a certificate cannot be read.
    """
    present = read_states(connection)
    lost: dict[str, list[str]] = defaultdict(list)
    for entry, fields in kept.items():
        rows = present.get(entry)
        name, words = _GIVE_BACK[entry.kind](connection, entry.key, rows, fields)
        lost[name] += words
    for name, words in lost.items():
        if words:
            _leave_one(connection, name)
    return {name: words for name, words in sorted(lost.items()) if words}


def _give_back_certificate(
    connection: Connection, serial: str, present: Mapping[str, str] | None, kept: Mapping[str, str]
) -> tuple[str, list[str]]:
    name = kept["name"]
    merged = {field: _earlier((present or {}).get(field), kept.get(field)) for field in _TIMES}
    if WITHDRAWN in kept and merged["used_at"] is None:
        # Another took its place before anybody used it.
        connection.execute(delete(MemberRow).where(MemberRow.serial == serial))
        return name, []
    reason = (present or {}).get("reason") or kept.get("reason", "")
    values: dict[str, Any] = {field: None if time is None else _time(time) for field, time in merged.items()}
    values["reason"] = reason
    if present is None:
        certificate = parse_certificate(kept["pem"].encode(), "the journal of members")
        if int(serial, 16) != certificate.serial_number:
            raise InvalidIdentity(f"the journal of members has another certificate under {serial}; put its copy back")
        row = row_values(serial, certificate, _time(kept["joined_at"]))
        connection.execute(insert(MemberRow).values(row | values))
    elif any(merged[field] != present.get(field) for field in _TIMES):
        connection.execute(update(MemberRow).where(MemberRow.serial == serial).values(values))
    return name, _words(serial, present, merged)


def _words(serial: str, present: Mapping[str, str] | None, merged: Mapping[str, str | None]) -> list[str]:
    known = present or {}
    short = serial[:16]
    if merged["revoked_at"] is not None:
        return [] if "revoked_at" in known else [f"certificate {short} is revoked"]
    if merged["replaced_at"] is not None:
        return [] if "replaced_at" in known or present is None else [f"certificate {short} is replaced"]
    return [f"certificate {short} is known"] if present is None else []


def _give_back_invitation(
    connection: Connection, token: str, present: Mapping[str, str] | None, kept: Mapping[str, str]
) -> tuple[str, list[str]]:
    key = bytes.fromhex(token)
    used = kept.get("used_for")
    if present is None:
        if WITHDRAWN in kept:
            return kept["name"], []
        times = {name: _time(kept[name]) for name in ("invited_at", "expires_at")}
        row = {"token_hash": key, "name": kept["name"], "role": kept["role"], "used_for": used} | times
        connection.execute(insert(InvitationRow).values(row))
        return kept["name"], [] if used else ["an invitation is known"]
    if "used_for" in present:
        return kept["name"], []
    if used is not None:
        connection.execute(update(InvitationRow).where(InvitationRow.token_hash == key).values(used_for=used))
    elif WITHDRAWN in kept:
        connection.execute(delete(InvitationRow).where(InvitationRow.token_hash == key))
    ended = used is not None or WITHDRAWN in kept
    return kept["name"], ["an invitation is good no more"] if ended else []


def _give_back_duties(
    connection: Connection, name: str, present: Mapping[str, str] | None, kept: Mapping[str, str]
) -> tuple[str, list[str]]:
    """Of two changes of what a member may do the later one counts."""
    if present is not None and _time(present["changed_at"]) >= _time(kept["changed_at"]):
        return name, []
    connection.execute(delete(MemberDutiesRow).where(MemberDutiesRow.name == name))
    values = {"name": name, "may": kept["may"], "changed_at": _time(kept["changed_at"])}
    connection.execute(insert(MemberDutiesRow).values(values))
    return name, [f"it may {', '.join(kept['may'].split())}"]


_GIVE_BACK = {CERTIFICATE: _give_back_certificate, INVITATION: _give_back_invitation, DUTIES: _give_back_duties}


def _leave_one(connection: Connection, name: str) -> None:
    """Leave one certificate of a name in use, and one that waits: the latest.

    There are several where the journal has what a ledger failed to write, and what was done instead.
    """
    statement = select(MemberRow.__table__).where(
        MemberRow.name == name, MemberRow.replaced_at.is_(None), MemberRow.revoked_at.is_(None)
    )
    rows = connection.execute(statement).all()
    in_use = sorted((row for row in rows if row.used_at is not None), key=lambda row: (row.used_at, row.enrolled_at))
    waiting = sorted((row for row in rows if row.used_at is None), key=lambda row: row.enrolled_at)
    for row in in_use[:-1]:
        replaced = update(MemberRow).where(MemberRow.serial == row.serial)
        connection.execute(replaced.values(replaced_at=in_use[-1].used_at))
    for row in waiting[:-1]:
        connection.execute(delete(MemberRow).where(MemberRow.serial == row.serial))


def _earlier(one: str | None, other: str | None) -> str | None:
    times = [time for time in (one, other) if time is not None]
    return min(times, key=_time, default=None)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidIdentity(f"the journal of members has {text!r} for a time; put its copy back") from None
