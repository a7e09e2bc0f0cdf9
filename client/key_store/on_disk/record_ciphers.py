"""The file in which a record's key lies, and nowhere else: what makes a deletion reach copies of the key store.

Every record has a key of its own, 32 random bytes, wrapped by the site's master key (AES-256-GCM). The wrapped keys are
slots of one length in a file beside the store, by entry number. A deletion overwrites the slots of its entries with
zeros where they lie; from then on no copy of their contents, in a backup or in a spare page, can be read by anybody.
Keys of backups lie in slots as well, with numbers that no record has.
"""

from __future__ import annotations

import errno
import fcntl
import hmac
import itertools
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from fedmunkey.client.key_store.on_disk.journal import Journal
from fedmunkey.client.key_store.on_disk.raw_reading import opened_raw
from fedmunkey.common.errors import BankChanged, KeyStoreError
from fedmunkey.common.private_files import write_private

KEY_BYTES = 32
SLOT_BYTES = 64

_MAGIC = b"fedmunkey keys 1"
_NONCE_BYTES = 12
_WRAPPED_BYTES = _NONCE_BYTES + KEY_BYTES + 16
_BLOCK = 8192
_EPOCH_BYTES = 16
_OF_BACKUP = b"\1"
"""The last byte of a slot with a backup's key; a record's has zeros after the wrapped key."""


def cipher_file_of(store: Path) -> Path:
    """Return where the wrapped keys of a store lie."""
    return store.with_suffix(".keys")


def master_key_of(store: Path) -> Path:
    """Return where the master key of a store lies, unless it is kept elsewhere."""
    return store.with_suffix(".master")


def clear_unused_keys(store: Path) -> None:
    """Remove the keys that an interrupted creation has left where there is no store.

    Raises `KeyStoreError` if there are keys of records: their store is lost, and may have a backup.
    """
    keys = cipher_file_of(store)
    if keys.exists() and keys.stat().st_size > SLOT_BYTES:
        raise KeyStoreError(
            f"{keys} has the keys of a key store that is not there; restore it (munkey-client restore), "
            "or choose another folder"
        )
    if not store.exists():
        keys.unlink(missing_ok=True)
        # What a journal says has to outlive its store, and is sealed with the master key.
        if not Journal(store).path.exists():
            master_key_of(store).unlink(missing_ok=True)


class Epoch(NamedTuple):
    """How often keys were destroyed in a key file, and 8 random bytes that tell it from another one's course."""

    number: int = 0
    mark: bytes = bytes(8)

    @classmethod
    def unpack(cls, packed: bytes) -> Epoch:
        """Return the epoch that `packed` gave."""
        return cls(int.from_bytes(packed[:8], "little"), packed[8:])

    def packed(self) -> bytes:
        """Return the bytes that stand in the file's header."""
        return self.number.to_bytes(8, "little") + self.mark


class RecordCiphers:
    """The wrapped record keys of one store, by its master key and the key of its hashes.

    Raises `KeyStoreError` if the file is missing, or was not written with this master key and for this store.
    """

    def __init__(self, path: Path, master: bytes, store: bytes) -> None:
        self.path = path
        self.master = master
        self._store = store
        self._master = AESGCM(master)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise KeyStoreError(
                f"the key file {path} is missing, so nothing in the key store can be read; put it back, or move "
                "the key store away, leave its journal and master key, and enrol the records again"
            ) from None
        except OSError as error:
            raise KeyStoreError(
                f"the key file {path} cannot be opened ({error.strerror}); check its permissions and its disk"
            ) from None
        header = self._read_header()
        if not hmac.compare_digest(header, _header(master, store, header[-_EPOCH_BYTES:])):
            # Not os.close: a number that is closed twice may be another file's by the second time.
            self.close()
            raise KeyStoreError(
                f"{path} belongs to another key store or another master key; put the files of one store together"
            )

    @classmethod
    def create(cls, path: Path, master: bytes, store: bytes, epoch: Epoch | None = None) -> RecordCiphers:
        """Make an empty file that only its owner can read; raises `KeyStoreError` if there is one or it cannot be."""
        try:
            _make(path, _header(master, store, (epoch or Epoch()).packed()))
        except FileExistsError:
            raise KeyStoreError(f"{path} is there already; choose another folder") from None
        return cls(path, master, store)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            self.close()

    @property
    def slots(self) -> int:
        """The largest entry number that has a slot; 0 without any."""
        return max(os.fstat(self._file).st_size // SLOT_BYTES - 1, 0)

    @property
    def destroyed(self) -> int:
        """How many slots have no key any more, or never had one."""
        return self.slots - len(self._find()[0])

    def add(self, keys: Mapping[int, bytes]) -> None:
        """Wrap the keys of some entries and bring them to the disk.

        Raises `KeyStoreError` if the disk is full; the file is then as long as it was.
        """
        self._write({entry: self._wrapped(key, _place(entry)) for entry, key in keys.items()})

    def add_backup(self, slot: int) -> bytes:
        """Make the key of a backup, bring it to the disk and return it; raises `KeyStoreError` as `add`."""
        key = secrets.token_bytes(KEY_BYTES)
        self._write({slot: self._wrapped(key, _place_of_backup(slot))[:-1] + _OF_BACKUP})
        return key

    def _wrapped(self, key: bytes, place: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return (nonce + self._master.encrypt(nonce, key, place)).ljust(SLOT_BYTES, b"\0")

    def _write(self, slots: Mapping[int, bytes]) -> None:
        before = os.fstat(self._file).st_size
        try:
            for entry, slot in slots.items():
                _write_all(self._file, slot, entry * SLOT_BYTES)
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, before)
            raise KeyStoreError(
                f"the key file {self.path} cannot be written ({error.strerror}); check the free space on its disk"
            ) from None

    def read(self, entries: NDArray[np.int64]) -> list[bytes]:
        """Return the keys of some entries.

        Raises `BankChanged` if one of them has been destroyed, and `KeyStoreError` if a slot is damaged.
        """
        unwrap = self._master.decrypt
        keys = []
        for entry, slot in zip(entries.tolist(), self.read_slots(entries), strict=True):
            try:
                keys.append(unwrap(slot[:_NONCE_BYTES], slot[_NONCE_BYTES:_WRAPPED_BYTES], _place(entry)))
            except InvalidTag:
                if not any(slot):
                    raise BankChanged("an entry was deleted while the bank was being read; read it again") from None
                raise KeyStoreError(f"the key file {self.path} is damaged; restore it from its disk's mirror") from None
        return keys

    def read_slots(self, entries: NDArray[np.int64]) -> list[bytes]:
        """Return the slots of some entries as they lie on the disk: 64 bytes each, zeros if destroyed."""
        slots: list[bytes] = []
        for start in range(0, len(entries), _BLOCK):
            part = entries[start : start + _BLOCK]
            first, last = int(part.min()), int(part.max())
            if last - first > 4 * _BLOCK:
                slots += [
                    os.pread(self._file, SLOT_BYTES, entry * SLOT_BYTES).ljust(SLOT_BYTES, b"\0")
                    for entry in part.tolist()
                ]
                continue
            size = (last - first + 1) * SLOT_BYTES
            block = os.pread(self._file, size, first * SLOT_BYTES).ljust(size, b"\0")
            offsets = ((part - first) * SLOT_BYTES).tolist()
            slots += [block[offset : offset + SLOT_BYTES] for offset in offsets]
        return slots

    def is_copy(self, path: Path) -> bool:
        """Return whether a file is a key file of the same store and master key; raises `OSError` if it is not read."""
        with opened_raw(path) as file:
            header = file.read(SLOT_BYTES)
        return hmac.compare_digest(header, _header(self.master, self._store, header[-_EPOCH_BYTES:]))

    @property
    def epoch(self) -> Epoch:
        """How often keys were destroyed in this file, and the mark of the last time."""
        return Epoch.unpack(self._read_header()[-_EPOCH_BYTES:])

    def _read_header(self) -> bytes:
        """Return what the file begins with, not while another process is writing it."""
        fcntl.flock(self._file, fcntl.LOCK_SH)
        try:
            return os.pread(self._file, SLOT_BYTES, 0)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def check_epoch(self, known: Epoch) -> None:
        """Raise `KeyStoreError` if keys were destroyed, up to an epoch that is known, in another file than this."""
        here = self.epoch
        if here.number < known.number or (here.number == known.number and here != known):
            raise KeyStoreError(
                f"the key file {self.path} is an older copy (epoch {here.number}; keys were destroyed up to epoch "
                f"{known.number}), and has keys of deleted records; put the site's own key file back and destroy this "
                "copy, or, where that is lost, enrol the records into a new store"
            )

    def held(self) -> NDArray[np.int64]:
        """Return the entries that have a key, ascending."""
        entries, of_backups = self._find()
        return entries[~of_backups]

    def _find(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the numbers of the slots that have a key, ascending, and whether it is a backup's."""
        found, of_backups = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.bool_)]
        for first in range(1, self.slots + 1, _BLOCK):
            block = os.pread(self._file, _BLOCK * SLOT_BYTES, first * SLOT_BYTES)
            rows = np.frombuffer(block[: len(block) // SLOT_BYTES * SLOT_BYTES], np.uint8).reshape(-1, SLOT_BYTES)
            present = np.flatnonzero(rows.any(axis=1))
            found.append(present + first)
            of_backups.append(rows[present, -1] == _OF_BACKUP[0])
        return np.concatenate(found), np.concatenate(of_backups)

    def destroy(self, entries: Iterable[int]) -> Epoch:
        """Overwrite the keys of some entries where they lie, on the disk before this returns; a second time is fine.

        Returns the epoch that the file has from then on, to be remembered elsewhere: by it an older copy is known.
        Raises `KeyStoreError` if the file cannot be written; some of the keys may be destroyed then.
        """
        try:
            # Two processes must not give one number to two epochs.
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                end = os.fstat(self._file).st_size
                for entry in entries:
                    if entry * SLOT_BYTES < end:
                        _write_all(self._file, bytes(SLOT_BYTES), entry * SLOT_BYTES)
                before = Epoch.unpack(os.pread(self._file, SLOT_BYTES, 0)[-_EPOCH_BYTES:])
                epoch = Epoch(before.number + 1, secrets.token_bytes(8))
                _write_all(self._file, _header(self.master, self._store, epoch.packed()), 0)
                os.fsync(self._file)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
            return epoch
        except OSError as error:
            raise KeyStoreError(
                f"the key file {self.path} cannot be written ({error.strerror}), so a deletion is not finished and not "
                "answered; check the file's permissions and its disk, then it is tried again"
            ) from None


def holds_keys_of(path: Path, master: bytes) -> bool:
    """Return whether a file is a key file with a key that a master key unwraps; raises `OSError` if it is not read."""
    cipher = AESGCM(master)
    with opened_raw(path) as file:
        if file.read(SLOT_BYTES)[: len(_MAGIC)] != _MAGIC:
            return False
        for entry in itertools.count(1):
            if not any(slot := file.read(SLOT_BYTES)):
                if slot:
                    continue
                return False
            with suppress(InvalidTag):
                cipher.decrypt(slot[:_NONCE_BYTES], slot[_NONCE_BYTES:_WRAPPED_BYTES], _place(entry))
                return True
    return False


def is_of_backup(slot: bytes) -> bool:
    """Return whether the key in a slot is that of a backup and not a record's."""
    return slot.endswith(_OF_BACKUP)


def read_backup_key(path: Path, master: bytes, slot: int) -> bytes | None:
    """Return the key of a backup from a key file; None if that does not have it. Raises `OSError` if it is not read."""
    with path.open("rb") as file:
        file.seek(slot * SLOT_BYTES)
        wrapped = file.read(SLOT_BYTES)
    try:
        cipher = AESGCM(master)
        return cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:_WRAPPED_BYTES], _place_of_backup(slot))
    except (InvalidTag, ValueError):
        return None


def make_master_key(path: Path) -> bytes:
    """Make a master key in a file that only its owner can read; one that is there is taken, as `read_master_key`."""
    with suppress(FileExistsError):
        _make(path, (secrets.token_bytes(KEY_BYTES).hex() + "\n").encode())
    return read_master_key(path)


def read_master_key(path: Path) -> bytes:
    """Read a master key; raises `KeyStoreError` if it is missing, none, or can be read by others than its owner."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise KeyStoreError(
                f"the master key {path} has mode {mode:04o}, so others can read it; run chmod 600 {path}"
            )
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        reason = "is missing" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
        raise KeyStoreError(
            f"the master key {path} {reason}, and without it nothing in the key store can be read; put it back"
        ) from None
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise KeyStoreError(f"{path} does not hold a master key ({2 * KEY_BYTES} hexadecimal digits)")
    return key


def _make(path: Path, content: bytes) -> None:
    try:
        write_private(path, content)
    except FileExistsError:
        raise
    except OSError as error:
        raise KeyStoreError(
            f"{path} cannot be made ({error.strerror}); check its folder's permissions and the free space on its disk"
        ) from None


def _header(master: bytes, store: bytes, epoch: bytes = bytes(_EPOCH_BYTES)) -> bytes:
    """Return what the file begins with; it fits one master key, one store and one epoch only."""
    return _MAGIC + hmac.digest(master, _MAGIC + store + epoch.rstrip(b"\0"), "sha256") + epoch


def _place(entry: int) -> bytes:
    return b"key" + entry.to_bytes(8, "little")


def _place_of_backup(slot: int) -> bytes:
    return b"backup" + slot.to_bytes(8, "little")


def _write_all(file: int, content: bytes, offset: int) -> None:
    written = os.pwrite(file, content, offset)
    if written != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
