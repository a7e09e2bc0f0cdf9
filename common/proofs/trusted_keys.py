"""A file of the public keys that its owner trusts: who each belongs to, as what, and from when to when.

A site has one in its folder, the coordinator has one, and whoever checks certificates needs one of the same format.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from fedmunkey.common.deletions.limits import is_line
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.private_files import locked_folder, replace_file
from fedmunkey.common.proofs.duties import EVERY_DUTY, Duty, duties_of
from fedmunkey.common.proofs.signing.canonical import parse_json, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import PublicKey
from fedmunkey.common.proofs.signing.statements import read_time, write_time

_FILE_BYTES = 16 * 2**20
_VERSION = 3
_FORMER_VERSION = 2
"""Files that say how many officers must sign for a whole site, and nothing of duties."""


class Role(StrEnum):
    """What a key may sign."""

    OFFICER = "officer"
    """Requests of the data-protection officer; several people may each have a key."""
    SITE = "site"
    """A site's requests and receipts."""
    LOG = "log"
    """The heads of the coordinator's log."""


class Approved(StrEnum):
    """What needs the signatures of several officers, where more than one is required."""

    SITES = "sites"
    """Everything that a site holds, or nearly."""
    ALL = "all"
    """Whatever the office asks for."""


@dataclass(frozen=True)
class TrustedKey:
    """One key.

    `name` is that of the site for `SITE`, otherwise for people only. What the key signs must be dated from `start` to
    before `end`; None is no bound. Nothing that a revoked key signed is believed, whatever its date: whoever stole the
    key chooses the date. A key that was merely replaced has an `end`: what it signed before stays good. `duties` are
    what an officer, or a site that asks, may sign with it.
    """

    name: str
    role: Role
    key: PublicKey
    start: datetime | None = None
    end: datetime | None = None
    revoked: datetime | None = None
    duties: frozenset[Duty] = EVERY_DUTY

    def document(self) -> dict[str, Any]:
        """Return the key as the file has it, JSON-ready."""
        times = {"from": self.start, "until": self.end, "revoked": self.revoked}
        return {
            "name": self.name,
            "role": self.role.value,
            "key": self.key.raw.hex(),
            **{name: None if time is None else write_time(time) for name, time in times.items()},
            **({} if self.duties == EVERY_DUTY else {"may": sorted(self.duties)}),
        }

    def check(self, at: datetime) -> None:
        """Check that the key may have signed something dated `at`; raises `InvalidProof` with the reason."""
        who = f"the {self.role} key {self.key.key_id[:16]} of {self.name}"
        if self.revoked is not None:
            raise InvalidProof(f"{who} was revoked on {write_time(self.revoked)}")
        if self.start is not None and at < self.start:
            raise InvalidProof(f"{who} is valid only from {write_time(self.start)} on")
        if self.end is not None and at >= self.end:
            raise InvalidProof(f"{who} expired on {write_time(self.end)}")


@dataclass(frozen=True)
class TrustedKeys:
    """Every key of a file, in its order.

    `officers` is how many officers of different names must have signed before a site forgets everything that it holds,
    or, where `approved` says so, before it carries out anything that the office asks for.
    """

    keys: tuple[TrustedKey, ...] = ()
    officers: int = 1
    approved: Approved = Approved.SITES

    def of(self, role: Role, name: str | None = None) -> tuple[TrustedKey, ...]:
        """Return the keys of a role, of one name if it is given; revoked ones are among them."""
        if name is not None:
            return self._by_holder.get((role, name), ())
        return tuple(key for key in self.keys if key.role is role)

    @cached_property
    def _by_holder(self) -> dict[tuple[Role, str], tuple[TrustedKey, ...]]:
        # A thousand sites' receipts are checked against a thousand keys.
        found: dict[tuple[Role, str], tuple[TrustedKey, ...]] = {}
        for key in self.keys:
            found[key.role, key.name] = (*found.get((key.role, key.name), ()), key)
        return found

    def verify(self, envelope: Envelope, role: Role, at: datetime, name: str | None = None) -> tuple[TrustedKey, ...]:
        """Check an envelope against the keys of a role.

        `at` is the date that it bears, `name` whose keys they must be; anyone's in that role by default. The keys that
        signed it are returned. Raises `InvalidProof` if any of its signatures is wrong, by a key that is not trusted
        for this, or by one that was not valid.
        """
        allowed = {key.key.key_id: key for key in self.of(role, name)}
        envelope.verify({key_id: key.key for key_id, key in allowed.items()})
        signers = tuple(allowed[signature.key_id] for signature in envelope.signatures)
        for signer in signers:
            signer.check(at)
        return signers

    def add(self, added: TrustedKey) -> TrustedKeys:
        """Return these and one more key; raises `InvalidProof` if that key is there already."""
        _check_added(added, {key.key for key in self.keys})
        return replace(self, keys=(*self.keys, added))

    def find(self, named: str) -> TrustedKey:
        """Return the key of that id, the first 8 or more digits of it, or its holder's name; raises `InvalidProof`."""
        found = [
            key for key in self.keys if key.name == named or (len(named) >= 8 and key.key.key_id.startswith(named))
        ]
        if len(found) != 1:
            ids = ", ".join(f"{key.key.key_id[:16]} of {key.name}" for key in (found or self.keys)[:5])
            raise InvalidProof(
                f"{named!r} names {len(found)} of the keys here; give the first 8 digits of one, or more: {ids}"
            )
        return found[0]

    def revoke(self, named: str, at: datetime) -> TrustedKeys:
        """Return these with one key revoked; raises `InvalidProof` as `find`."""
        found = self.find(named)
        return self._with(found, replace(found, revoked=found.revoked or at))

    def end(self, named: str, at: datetime) -> TrustedKeys:
        """Return these with one key good for what is dated before a time.

        Raises `InvalidProof` as `find`, and if the key was revoked or was not good before that time.
        """
        found = self.find(named)
        if found.revoked is not None:
            raise InvalidProof(f"key {found.key.key_id[:16]} of {found.name} was revoked, so it has ended already")
        if found.start is not None and at <= found.start:
            raise InvalidProof(f"key {found.key.key_id[:16]} of {found.name} is valid only later; end it later")
        return self._with(found, replace(found, end=at))

    def require(self, officers: int, approved: Approved = Approved.SITES) -> TrustedKeys:
        """Return these with another number of officers; raises `InvalidProof` if so few are trusted that none could."""
        able = [key for key in self.of(Role.OFFICER) if key.revoked is None and key.duties != {Duty.VIEW}]
        names = {key.name for key in able}
        if not 1 <= officers <= max(1, len(names)):
            raise InvalidProof(
                f"{officers} officers cannot sign: {len(names)} officers' names are trusted here to file or approve; "
                "add the others first"
            )
        return replace(self, officers=officers, approved=approved)

    def allow(self, named: str, duties: frozenset[Duty]) -> TrustedKeys:
        """Return these with other duties of one key; raises `InvalidProof` as `find`, and for a key of the log's."""
        found = self.find(named)
        if found.role is Role.LOG:
            raise InvalidProof(f"key {found.key.key_id[:16]} of {found.name} signs heads of the log and has no duties")
        return self._with(found, replace(found, duties=duties_of(duties)))

    def _with(self, found: TrustedKey, changed: TrustedKey) -> TrustedKeys:
        return replace(self, keys=tuple(changed if key is found else key for key in self.keys))

    @classmethod
    def read(cls, path: Path) -> TrustedKeys:
        """Read a file that `write` wrote.

        Raises `InvalidProof` if it cannot be read, can be written by others than its owner, or is not such a file.
        """
        try:
            with path.open("rb") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o022:
                    raise InvalidProof(
                        f"{path} says whom to trust and others than its owner can write it; check it, "
                        f"then run chmod 644 {path}"
                    )
                data = file.read(_FILE_BYTES)
        except OSError as error:
            raise InvalidProof(f"the file of trusted keys {path} cannot be read ({error.strerror})") from None
        return cls.parse(data, str(path))

    @classmethod
    def parse(cls, data: bytes, what: str) -> TrustedKeys:
        """Read the contents of such a file; raises `InvalidProof`."""
        document = parse_json(data, what)
        if isinstance(document, dict) and "version" not in document:
            # Written while every request needed one signature.
            document = {"version": _FORMER_VERSION, "officers": 1, **document}
        if isinstance(document, dict) and document.get("version") == _FORMER_VERSION:
            document = {**document, "version": _VERSION, "approved": Approved.SITES.value}
        listed, version, officers, approved = take(document, what, keys=list, version=int, officers=int, approved=str)
        if version != _VERSION or officers < 1 or approved not in set(Approved):
            raise InvalidProof(f"{what} is a file of trusted keys that this version cannot read; upgrade it")
        keys = [_read_key(item, what) for item in listed]
        seen: set[PublicKey] = set()
        for key in keys:
            _check_added(key, seen)
            seen.add(key.key)
        return cls(tuple(keys), officers, Approved(approved))

    @classmethod
    def change(cls, path: Path, change: Callable[[TrustedKeys], TrustedKeys]) -> TrustedKeys:
        """Change a file, or begin one, while nobody else does; return what it holds from then on.

        Raises `InvalidProof` if it cannot be read or written, and whatever `change` raises; the file then stays.
        """
        with cls.held(path):
            before = cls.read(path) if path.exists() else cls()
            after = change(before)
            if after != before:
                after.write(path)
            return after

    @staticmethod
    @contextmanager
    def held(path: Path) -> Iterator[None]:
        """Keep everybody else who would change a file waiting until the context ends.

        The folder of a site that has not joined yet, or of a coordinator that is not set up, is made. Whoever reads a
        file and writes what it makes of it does both in here: a key that was revoked meanwhile would otherwise be back.
        """
        with ExitStack() as stack:
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                stack.enter_context(locked_folder(path.parent))
            except OSError as error:
                raise _unwritable(path, error) from None
            yield

    def write(self, path: Path) -> None:
        """Write the keys, in place of a file that is there, all or nothing; raises `InvalidProof` if it cannot be.

        For a file that nobody else changes: others are changed with `change`.
        """
        # A program that does not know the number, or duties, must not take the file for one without them.
        plain = self.approved is Approved.SITES and all(key.duties == EVERY_DUTY for key in self.keys)
        head: dict[str, Any] = {"officers": self.officers, "version": _FORMER_VERSION}
        if not plain:
            head |= {"version": _VERSION, "approved": self.approved.value}
        elif self.officers == 1:
            head = {}
        lines = json.dumps({**head, "keys": [key.document() for key in self.keys]}, indent=2, ensure_ascii=False)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, f"{lines}\n".encode())
        except OSError as error:
            raise _unwritable(path, error) from None


class TrustFile:
    """A file of trusted keys that is read again once it has changed, for a program that uses it for months.

    A thousand keys take as long to read as a hundred signatures to check.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[tuple[int, ...], TrustedKeys] | None = None

    @property
    def was_read(self) -> bool:
        """Whether there was such a file."""
        return self._read is not None

    def read(self) -> TrustedKeys:
        """Return what the file holds now; raises `InvalidProof` if it is gone or cannot be used."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise InvalidProof(
                f"the trusted keys {self._path} are gone ({error.strerror}), so nothing that needs them is done; "
                "put them back"
            ) from None
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        last = self._read
        if last is None or last[0] != stamp:
            last = self._read = (stamp, TrustedKeys.read(self._path))
        return last[1]


def _check_added(added: TrustedKey, known: Collection[PublicKey]) -> None:
    if added.key in known:
        raise InvalidProof(f"key {added.key.key_id[:16]} is trusted already; a key has one holder and one role")
    if not added.name or not is_line(added.name):
        raise InvalidProof(f"{added.name!r} cannot be the name of a key's holder: use printable characters")


def _unwritable(path: Path, error: OSError) -> InvalidProof:
    return InvalidProof(f"the file of trusted keys {path} cannot be written ({error.strerror}); name another place")


def _read_key(item: Any, what: str) -> TrustedKey:
    optional = (str, type(None))
    may: list[Any] = sorted(EVERY_DUTY)
    if isinstance(item, dict) and "may" in item:
        may = item["may"] if type(item["may"]) is list else []
        item = {name: value for name, value in item.items() if name != "may"}
    kinds: dict[str, Any] = {"from": optional, "until": optional, "revoked": optional}
    name, role, key, *times = take(item, f"a key of {what}", name=str, role=str, key=str, **kinds)
    if role not in set(Role):
        raise InvalidProof(f"{role!r} in {what} is no role; write one of {', '.join(Role)}")
    if not may or any(duty not in set(Duty) for duty in may):
        raise InvalidProof(f"a key of {what} has what are no duties; write some of {', '.join(Duty)}")
    start, end, revoked = (None if time is None else read_time(time) for time in times)
    duties = duties_of(Duty(duty) for duty in may)
    return TrustedKey(name, Role(role), PublicKey.parse(key), start, end, revoked, duties)
