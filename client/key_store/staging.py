"""Corrected records that wait for the order which erases the present ones: they take their place in one transaction.

They wait in a sealed file of the site's folder, which is in no backup, for each request by its id. Whatever a deletion
takes of the present records meanwhile is taken out of it as well.
"""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store.database import StoreDatabase
from fedmunkey.client.key_store.enrolment import COLUMNS, Arrivals, add_records, is_known
from fedmunkey.client.key_store.on_disk.encryption import seal, unseal
from fedmunkey.client.records.dataset import Dataset
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.private_files import replace_file

_SUFFIX = ".staged"
_SEALED_AS = "staged records"


@dataclass(frozen=True)
class Staging:
    """The files of one site's folder; several processes may use them."""

    database: StoreDatabase
    folder: Path

    def stage(self, request_id: str, arrivals: Arrivals) -> None:
        """Keep corrected records for a request that is about to be made; raises `KeyStoreError` if they cannot be."""
        self._write(self._file(request_id), arrivals)

    def discard(self, request_id: str) -> None:
        """Drop what waits for a request."""
        self._file(request_id).unlink(missing_ok=True)

    def find(self, request_id: str) -> Arrivals | None:
        """Return what waits for a request; None if nothing does, or it cannot be read."""
        return self._read(self._file(request_id))

    def held_of(self, request_id: str, connection: sqlite3.Connection) -> Arrivals | None:
        """Return what waits for a request of records that are here still: what was erased does not come back."""
        waiting = self.find(request_id)
        return None if waiting is None else self._held(waiting, connection)

    def put_in_place(self, waiting: Arrivals) -> int:
        """Enrol corrected records, within the transaction that has erased what they take the place of."""
        names = frozenset(map(str, waiting.records.record_ids))
        return add_records(self.database, waiting, names).added

    def sweep(self, connection: sqlite3.Connection, answered: Collection[str]) -> None:
        """Drop what waits for requests that were answered, and of the others what is not here any more."""
        for request_id in answered:
            self.discard(request_id)
        for file in self._files():
            waiting = self._read(file)
            held = None if waiting is None else self._held(waiting, connection)
            if held is None or not held.references:
                file.unlink(missing_ok=True)
            elif waiting is not None and len(held.references) < len(waiting.references):
                # Whose file it is, its name says and its content does not.
                self._write(file, held)

    def _held(self, waiting: Arrivals, connection: sqlite3.Connection) -> Arrivals:
        hashes = self.database.reference_hashes
        here = np.array([is_known(connection, hashes, reference) for reference in waiting.references], dtype=np.bool_)
        return _select(waiting, here)

    def _files(self) -> Iterator[Path]:
        yield from self.folder.glob(f"rectify-*{_SUFFIX}")

    def _file(self, request_id: str) -> Path:
        return self.folder / f"rectify-{hashlib.sha256(request_id.encode()).hexdigest()[:32]}{_SUFFIX}"

    def _read(self, file: Path) -> Arrivals | None:
        try:
            content = unseal(self.database.secrets.cipher, _SEALED_AS, 0, file.read_bytes())
            with np.load(io.BytesIO(content), allow_pickle=False) as found:
                arrays = {name: found[f"records_{name}"] for name in COLUMNS}
                records = Dataset(**arrays, class_names=tuple(map(str, found["class_names"])))
                references, subjects = _unpacked(found["references"]), _unpacked(found["subjects"])
                return Arrivals(records, references, subjects, found["keys"], found["inputs"])
        except (OSError, KeyStoreError, ValueError, KeyError):
            return None

    def _write(self, file: Path, arrivals: Arrivals) -> None:
        arrays: dict[str, Any] = {name: getattr(arrivals.records, name) for name in COLUMNS}
        content = io.BytesIO()
        np.savez(
            content,
            keys=arrivals.keys,
            inputs=arrivals.inputs,
            references=_packed(arrivals.references),
            subjects=_packed(arrivals.subjects),
            class_names=np.array(arrivals.records.class_names, dtype=np.str_),
            **{f"records_{name}": array for name, array in arrays.items()},
        )
        try:
            sealed = seal(self.database.secrets.cipher, _SEALED_AS, 0, content.getvalue())
            replace_file(file, sealed, 0o600)
        except OSError as error:
            raise KeyStoreError(
                f"the corrected records cannot be kept in {self.folder} ({error.strerror}); make room, and try again"
            ) from None


def _select(arrivals: Arrivals, rows: NDArray[np.bool_]) -> Arrivals:
    """Return some of the records, (n,) boolean."""
    chosen = np.flatnonzero(rows).tolist()
    return Arrivals(
        arrivals.records.select(rows),
        [arrivals.references[row] for row in chosen],
        [arrivals.subjects[row] for row in chosen],
        arrivals.keys[rows],
        arrivals.inputs[rows],
    )


def _packed(references: list[bytes]) -> NDArray[np.uint8]:
    """Return (n, 32) bytes."""
    return np.frombuffer(b"".join(references), dtype=np.uint8).reshape(len(references), -1)


def _unpacked(packed: NDArray[np.uint8]) -> list[bytes]:
    return [row.tobytes() for row in packed]
