"""`munkey-sim`, with a note of all that deletions erase and copies of what Flower and Ray have, for tests to compare.

Its words are a folder for these, and then what `munkey-sim` is to do.
"""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedmunkey.client.key_store import removal
from fedmunkey.client.key_store.database import StoreDatabase
from fedmunkey.client.key_store.residue import Residue
from fedmunkey.simulations.cli import main
from fedmunkey.simulations.run import flower_runtime
from fedmunkey.simulations.run.deletions import DeletionDriver

ERASED, HOME, OBJECTS = "erased.pickle", "flower-home", "ray-objects"


def read_erased(folder: Path) -> Iterator[tuple[Residue, bytes]]:
    """Yield every content that a deletion has erased, encrypted and in the clear."""
    with (folder / ERASED).open("rb") as file, suppress(EOFError):
        while True:
            kind, content = pickle.load(file)  # noqa: S301 (our own)
            yield Residue(kind), content


def note_erased(folder: Path) -> None:
    """Have every content written down that a deletion is about to erase."""
    contents = removal._contents

    def note(database: StoreDatabase, found: Sequence[Any]) -> Iterator[tuple[Residue, bytes]]:
        with (folder / ERASED).open("ab") as file:
            for kind, content in contents(database, found):
                pickle.dump((kind.value, content), file)
                yield kind, content

    removal._contents = note


def copy_what_flower_has(folder: Path) -> None:
    """Have Ray's object store copied after the deletions before each round, and Flower's home before it is removed."""
    homes: list[Path] = []
    environment, end, open_round = flower_runtime._environment, flower_runtime._end, DeletionDriver.open_round

    def note_home(home: Path, ray_address: str) -> dict[str, str]:
        homes.append(home)
        return environment(home, ray_address)

    def forget_and_copy(self: DeletionDriver, number: int) -> None:
        open_round(self, number)
        _copy_objects(homes[0], folder / OBJECTS / f"round-{number}")

    def copy_and_end(process: subprocess.Popen[bytes]) -> None:
        shutil.rmtree(folder / HOME, ignore_errors=True)
        # What Ray removes meanwhile is not copied.
        with suppress(shutil.Error):
            shutil.copytree(homes[0], folder / HOME, ignore=_no_file, symlinks=True)
        end(process)

    flower_runtime._environment = note_home
    flower_runtime._end = copy_and_end
    DeletionDriver.open_round = forget_and_copy  # type: ignore[method-assign]


def _no_file(parent: str, names: list[str]) -> list[str]:
    return [name for name in names if not (Path(parent) / name).is_file() and not (Path(parent) / name).is_dir()]


def _copy_objects(home: Path, to: Path) -> None:
    """Copy the object store that processes of a home have open; its file has no name any more."""
    to.mkdir(parents=True)
    seen = set()
    for process in _with_files_in(home):
        with suppress(OSError):
            for link in (process / "fd").iterdir():
                with suppress(OSError):
                    status = link.stat()
                    if "plasma" in link.readlink().name and status.st_ino not in seen:
                        seen.add(status.st_ino)
                        _copy_sparse(link, to / str(status.st_ino))


def _with_files_in(home: Path) -> Iterator[Path]:
    """Yield the processes that have files of a home open; what they were started with, Ray's write over."""
    for process in Path("/proc").glob("[0-9]*"):
        # It may end while we look, or be another user's.
        with suppress(OSError):
            if any(str(link.readlink()).startswith(f"{home}/") for link in (process / "fd").iterdir()):
                yield process


def _copy_sparse(source: Path, to: Path) -> None:
    """Copy the parts of a file that anything was ever written to."""
    file, at = os.open(source, os.O_RDONLY), 0
    try:
        with to.open("wb") as copy:
            while True:
                try:
                    at = os.lseek(file, at, os.SEEK_DATA)
                except OSError as error:
                    if error.errno == errno.ENXIO:
                        return
                    raise
                end = os.lseek(file, at, os.SEEK_HOLE)
                copy.write(os.pread(file, end - at, at))
                at = end
    finally:
        os.close(file)


if __name__ == "__main__":
    notes = Path(sys.argv.pop(1))
    note_erased(notes)
    copy_what_flower_has(notes)
    main()
