"""Models that a site has given away: a register of the files, and which of them hold what was erased since.

The register has a line for each file that was written, and one for each whose recipients were told. Lines are only
added, so that what was given away stays known.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidProof, KeyStoreError
from fedmunkey.common.proofs.signing.canonical import read_hex

FILE = "exported.jsonl"
MAY_STAY, MUST_BE_REPLACED, WITHDRAWN = "may stay", "must be replaced", "withdrawn"
"""What is to be done about a model."""

_EXPORTED, _WITHDRAWN = "exported", "withdrawn"


@dataclass(frozen=True)
class ExportedModel:
    """One file that was given away.

    Attributes
    ----------
    digest : str
        SHA-256 of the file, hexadecimal.
    name : str
        What the file was called when it was written.
    release : str
        Digest of the shared weights in it.
    case_mix : str
        `federation`, or `own`: then the site's memory, which is solved from its own records, is in it as well.
    last_order : int
        The last order that the site had applied. Nothing of what was erased up to it is in the file.
    request : str
        Digest of that order's request, since a ledger that was restored may have another under its number.
    lowest : int
        The lowest number of an order then: those that are set aside later have lower ones.
    time : str
        When it was written (RFC 3339).
    withdrawn : str
        When the site noted that its recipients had been told; empty while it is in use.
    """

    digest: str
    name: str
    release: str
    case_mix: str
    last_order: int
    request: str
    lowest: int
    time: str
    withdrawn: str = ""


@dataclass(frozen=True)
class ModelState:
    """A model, and the requests, by their ids, of which it still holds what they erased."""

    model: ExportedModel
    requests: tuple[str, ...]

    @property
    def word(self) -> str:
        """What is to be done."""
        if self.model.withdrawn:
            return WITHDRAWN
        return MUST_BE_REPLACED if self.requests else MAY_STAY

    def document(self) -> dict[str, Any]:
        """Return it, JSON-ready."""
        return {**asdict(self.model), "state": self.word, "requests": list(self.requests)}


class ExportRegister:
    """The register in a site's folder."""

    def __init__(self, folder: SiteFolder) -> None:
        self._path = folder.path / FILE

    def add(self, model: ExportedModel) -> None:
        """Note a file; on the disk before this returns, so before anybody has the file."""
        self._append({"event": _EXPORTED, **asdict(model)})

    def withdraw(self, digest: str, at: str) -> None:
        """Note that a file is in use no more, or was never written."""
        self._append({"event": _WITHDRAWN, "digest": digest, "at": at})

    def read(self) -> list[ExportedModel]:
        """Return all files, oldest first; raises `KeyStoreError` if the register cannot be read."""
        models: dict[str, ExportedModel] = {}
        for number, line in enumerate(self._lines(), 1):
            try:
                said = json.loads(line)
                event, digest = said.pop("event"), said["digest"]
                # Receipts name it, and what cannot be read in one must not get into it.
                read_hex(digest, "the digest of an exported model")
                if event == _EXPORTED:
                    models[digest] = ExportedModel(**said)
                elif digest in models:
                    models[digest] = replace(models[digest], withdrawn=str(said["at"]))
            except (ValueError, KeyError, TypeError, AttributeError, InvalidProof):
                raise KeyStoreError(
                    f"line {number} of {self._path} is damaged, so it is not known which models were given away; put "
                    "its copy back from a backup"
                ) from None
        return list(models.values())

    def _lines(self) -> list[str]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise KeyStoreError(f"{self._path} cannot be read ({error}); put its copy back from a backup") from None
        whole, _, _ = text.rpartition("\n")
        # A line that was cut off is of a file that was not written.
        return whole.splitlines()

    def _append(self, said: dict[str, Any]) -> None:
        """Add a line. Several programs may: each line is one write to the end of the file."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "r+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                if cut:
                    _remove_cut_line(file, size)
                file.write(f"{json.dumps(said)}\n".encode())
                os.fsync(descriptor)
        except OSError as error:
            raise KeyStoreError(f"{self._path} cannot be written ({error.strerror}); nothing was exported") from None


def _remove_cut_line(file: Any, size: int) -> None:
    """Take away what a crash left of a line."""
    content = os.pread(file.fileno(), size, 0)
    file.truncate(content.rfind(b"\n") + 1)


def describe(store: KeyStore, *, digest: str, name: str, release: str, case_mix: str, time: datetime) -> ExportedModel:
    """Return the entry of a file that is written from a site's present state."""
    last = store.orders.last
    request = (store.orders.request_of(last) or b"").hex() if last else ""
    lowest = min((answer.number for answer in store.orders.read_answers()), default=0)
    written = time.isoformat(timespec="seconds")
    return ExportedModel(digest, name, release, case_mix, last, request, min(lowest, 0), written)


def states(folder: SiteFolder, store: KeyStore) -> list[ModelState]:
    """Return all models that a site has given away, with what is to be done; raises as `ExportRegister.read`."""
    return [ModelState(model, requests_erased_since(store, model)) for model in ExportRegister(folder).read()]


def count_states(folder: SiteFolder, store: KeyStore) -> dict[str, int] | None:
    """Return how many models are to be replaced, may stay and were withdrawn; None if the register is damaged."""
    counts = dict.fromkeys((MAY_STAY, MUST_BE_REPLACED, WITHDRAWN), 0)
    try:
        for state in states(folder, store):
            counts[state.word] += 1
    except KeyStoreError:
        return None
    return counts


def requests_erased_since(store: KeyStore, model: ExportedModel) -> tuple[str, ...]:
    """Return the requests that have erased entries of this site since a model was written.

    Where orders have other numbers since, the worst is believed.
    """
    after, below = (model.last_order, model.lowest) if _is_numbered_alike(store, model) else (0, 0)
    return tuple(store.orders.erasing(after, below))


def holding(store: KeyStore, number: int) -> tuple[str, ...]:
    """Return the digests of the files in use that may hold what an order has erased, oldest first.

    Raises `KeyStoreError` as `ExportRegister.read`.
    """
    used = [model for model in ExportRegister(SiteFolder(store.path.parent)).read() if not model.withdrawn]
    return tuple(model.digest for model in used if model.last_order < number or not _is_numbered_alike(store, model))


def _is_numbered_alike(store: KeyStore, model: ExportedModel) -> bool:
    """Return whether orders still have the numbers that they had when a model was written."""
    return ((store.orders.request_of(model.last_order) or b"").hex() if model.last_order else "") == model.request
