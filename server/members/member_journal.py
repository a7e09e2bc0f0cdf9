"""What became of certificates and invitations, in a file of the coordinator's beside its ledger.

A ledger that is put back from a copy has forgotten who was revoked, who joined and who rotated since; this file has
not. Each line has the changes of one transaction, in JSON, and is on the disk before these count in the ledger.
Nothing in it is ever changed; the last one of a field counts. Of an invitation's token there is a hash only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from fedmunkey.common.errors import InvalidIdentity, ServiceUnavailable
from fedmunkey.common.private_files import append_line, read_private

FILE_NAME = "members.journal"

CERTIFICATE, INVITATION, DUTIES = "certificate", "invitation", "duties"

WITHDRAWN = "withdrawn_at"
"""The field of what the ledger has no more: an invitation that ended, a certificate that nobody ever used."""

NEEDED = {
    CERTIFICATE: ("name", "joined_at", "pem"),
    INVITATION: ("name", "role", "invited_at", "expires_at"),
    DUTIES: ("may", "changed_at"),
}
"""The fields without which a row cannot be made again."""


class Entry(NamedTuple):
    """A certificate by its serial, an invitation by its token's hash in hexadecimal, or duties by a member's name."""

    kind: str
    key: str


States = dict[Entry, dict[str, str]]
"""The fields of each entry that are not empty; times are ISO 8601 in UTC."""


class MemberJournal:
    """The file; safe for threads and processes that append at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> States:
        """Return what became of each entry; a line that was not written to its end never counted.

        Raises `InvalidIdentity` if a line cannot be read, or others than its owner can use the file.
        """
        if not self.path.exists():
            return {}
        content = read_private(self.path, "the journal of members", error=InvalidIdentity, most=None)
        states: States = {}
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            try:
                _follow(states, line)
            except (ValueError, KeyError, TypeError):
                raise InvalidIdentity(
                    f"line {number} of {self.path} cannot be read; put the file's copy back, or move it away: then the "
                    "ledger alone says who is a member, and who was revoked since its copy has to be revoked again"
                ) from None
        return states

    def append(self, changes: States) -> None:
        """Write changes, all or nothing, and bring them to the disk; raises `ServiceUnavailable` if that fails."""
        line = json.dumps([{entry.kind: entry.key, **fields} for entry, fields in changes.items()])
        if changes:
            try:
                append_line(self.path, line.encode() + b"\n")
            except OSError as fault:
                raise ServiceUnavailable(
                    f"{self.path} cannot be written ({fault.strerror}), so nothing about members was changed; make "
                    "room or put its permissions right, and try again"
                ) from None


def changes_between(before: States, after: States, now: str) -> States:
    """Return what has to be written to get from one state of the entries to another."""
    changed: States = {}
    for entry, fields in after.items():
        earlier = before.get(entry)
        differing = {name: value for name, value in fields.items() if earlier is None or earlier.get(name) != value}
        if earlier is None or differing:
            changed[entry] = differing
    for entry in before.keys() - after.keys():
        if WITHDRAWN not in before[entry]:
            changed[entry] = {WITHDRAWN: now}
    return changed


def _follow(states: States, line: bytes) -> None:
    for change in json.loads(line):
        _follow_change(states, dict(change))


def _follow_change(states: States, fields: dict[str, str]) -> None:
    (kind,) = (kind for kind in NEEDED if kind in fields)
    entry = Entry(kind, fields.pop(kind))
    if not all(isinstance(value, str) for value in (entry.key, *fields.values())):
        raise TypeError
    states.setdefault(entry, {}).update(fields)
    if not all(name in states[entry] for name in NEEDED[kind]):
        raise KeyError
