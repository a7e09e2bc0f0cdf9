"""What a page says is to be typed: its fenced blocks as steps, by the rules in docs/operations.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedmunkey.common.errors import FedmunkeyError

_FENCE = re.compile(r"^```([\w-]*)\n(.*?)^```$", re.M | re.S)
_AT = re.compile(r"# at (?P<whom>[\w ,-]+?)(?:, with (?P<ledger>\w+))?")
_FILE = re.compile(r"# (?P<name>[\w./-]+) at (?P<whom>[\w ,-]+?)(?:, with (?P<ledger>\w+))?")
_HAND_OVER = re.compile(r"# hand over to (?P<whom>[\w ,-]+): (?P<files>[\w./ -]+)")
_INTERRUPT = re.compile(r"# Ctrl-C in the terminal of (?P<program>.+)")
_TERMINAL = "# in a terminal of its own:"
_AGAIN = "# again until it is so:"
_CODE = re.compile(r"exit code (\d+)")
NOT_TYPED = "text"


class PageFault(FedmunkeyError, ValueError):  # noqa: N818
    """A block of a page that follows none of the rules."""


@dataclass
class Command:
    """A command line; what it is asked and answered, what it prints in this order, and how it ends.

    One in a terminal of its own goes on, once it has printed all of that; one that is typed again, until it is so.
    """

    typed: str
    own_terminal: bool = False
    again: bool = False
    answers: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    code: int = 0


@dataclass(frozen=True)
class Written:
    """A file that somebody writes, with its content."""

    name: str
    content: str


@dataclass(frozen=True)
class HandedOver:
    """Files that are brought to others' machines."""

    to: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Interrupted:
    """Ctrl-C where a program goes on."""

    program: str


Action = Command | Written | HandedOver | Interrupted


@dataclass(frozen=True)
class Step:
    """What is done at some machines, all of them at once, and in which line of the page it stands.

    `ledger` is the one with which alone it is done, if any; the first machine's name stands for each other's own.
    """

    line: int
    machines: tuple[str, ...]
    ledger: str
    action: Action


def steps_of(page: Path) -> list[Step]:
    """Return the steps of a page in their order; raises `PageFault` for a block that cannot be read as one."""
    text = page.read_text(encoding="utf-8")
    steps: list[Step] = []
    for fence in _FENCE.finditer(text):
        language, block = fence.groups()
        first = text[: fence.start()].count("\n") + 2
        if language == NOT_TYPED:
            continue
        lines = block.splitlines()
        if language == "sh" and (found := _AT.fullmatch(lines[0])):
            whom, ledger = _names(found["whom"]), found["ledger"] or ""
            steps += [Step(line, whom, ledger, action) for line, action in _typed(lines[1:], first + 1)]
        elif language != "sh" and (found := _FILE.fullmatch(lines[0])):
            written = Written(found["name"], block)
            steps.append(Step(first, _names(found["whom"]), found["ledger"] or "", written))
        else:
            raise PageFault(f"{page.name}, line {first}: a block begins with where it is typed, or is {NOT_TYPED}")
    return steps


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.removeprefix("the ") for name in re.split(r", | and ", text))


def _typed(lines: list[str], first: int) -> Iterator[tuple[int, Action]]:
    """Yield the actions of a block, each with its line, once all that is said of it has been read."""
    command: Command | None = None
    begun, before = first, ""
    for number, line in enumerate(lines, first):
        if command is not None and command.typed.endswith("\\"):
            command.typed += "\n" + line
            continue
        if line.startswith(("#> ", "#< ")):
            if command is None:
                raise PageFault(f"line {number}: {line} follows no command")
            _say_of(command, line)
            continue
        if command is not None:
            yield begun, command
            command = None
        if line in (_TERMINAL, _AGAIN):
            before = line
        elif line.startswith("#"):
            yield number, _done_by_hand(line, number)
        elif line:
            command, begun, before = Command(line, before == _TERMINAL, before == _AGAIN), number, ""
    if command is not None:
        yield begun, command


def _say_of(command: Command, line: str) -> None:
    said = line[3:]
    if line.startswith("#< "):
        command.answers.append(said)
    elif code := _CODE.fullmatch(said):
        command.code = int(code[1])
    else:
        command.printed.append(said)


def _done_by_hand(line: str, number: int) -> Action:
    if found := _HAND_OVER.fullmatch(line):
        return HandedOver(_names(found["whom"]), tuple(found["files"].split()))
    if found := _INTERRUPT.fullmatch(line):
        return Interrupted(found["program"])
    raise PageFault(f"line {number}: {line} is not one of the things that a line of its own can say")
