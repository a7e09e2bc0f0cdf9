"""Ids of patients and records as people name them: in a file, on standard input, or, for all to read, as an option.

What stands on a command line can be read by every user of the machine while the command runs, and by whoever reads the
shell's history later.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.errors import InvalidInput

STDIN = "-"

_MOST_CHARACTERS = 64 * 2**20

RecordOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A record's id, for every user of this machine to read; - reads ids from standard input. Repeatable."
    ),
]
RecordsFileOption = Annotated[Path | None, typer.Option(help="A file with record ids, one a line.")]
SubjectOption = Annotated[
    str | None,
    typer.Option(
        help="A patient's id, for every user of this machine to read; - asks for it, or reads it from standard input."
    ),
]
SubjectFileOption = Annotated[Path | None, typer.Option(help="A file with the patient's id, and nothing else.")]


def read_subject(named: str | None, file: Path | None) -> str | None:
    """Return the id of the patient that is named in one of both ways, None if in neither.

    Raises `InvalidInput` if it is named in both, or what is read is not one id.
    """
    if named is not None and file is not None:
        raise InvalidInput("name the patient by one of --subject and --subject-file")
    if named != STDIN and file is None:
        return named
    if file is None and sys.stdin.isatty():
        return str(typer.prompt("the patient's id", err=True)).strip()
    where = "standard input" if file is None else str(file)
    ids = _ids(_from_stdin() if file is None else _from_file(file), where)
    if len(ids) != 1:
        raise InvalidInput(f"{where} holds {len(ids)} ids; write the one of the patient who is meant")
    return ids[0]


def read_records(named: list[str] | None, file: Path | None) -> list[str] | None:
    """Return the ids of records that are named in one of both ways, None if in neither; raises as `read_subject`."""
    if named and file is not None:
        raise InvalidInput("name records by one of --record and --records-file")
    if file is not None:
        return read_ids(file)
    if named and STDIN in named:
        if len(named) > 1:
            raise InvalidInput("--record - reads every id from standard input; leave the others out")
        return _ids(_from_stdin(), "standard input")
    return named or None


def read_ids(path: Path) -> list[str]:
    """Read ids from a text file, one a line; raises `InvalidInput` if it cannot be read as such, or holds none."""
    return _ids(_from_file(path), str(path))


def _from_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(_MOST_CHARACTERS + 1)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}); name a text file with one id a line") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not a UTF-8 text file; write one id a line") from None


def _from_stdin() -> str:
    try:
        return sys.stdin.read(_MOST_CHARACTERS + 1)
    except UnicodeDecodeError:
        raise InvalidInput("standard input is no text; write one id a line") from None


def _ids(text: str, where: str) -> list[str]:
    """Return the ids of a text, one a line; empty lines and spaces around an id do not count."""
    if len(text) > _MOST_CHARACTERS:
        raise InvalidInput(f"{where} has more than {_MOST_CHARACTERS} characters; write fewer ids at a time")
    ids = [line.strip() for line in text.splitlines() if line.strip()]
    if not ids:
        raise InvalidInput(f"{where} holds no id; write one a line")
    return ids
