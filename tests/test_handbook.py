"""What the README, the guide and the handbook show can be typed: known commands and options, in the order of things."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import click
import pytest

from tests.test_command_lines import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/guide.md", "docs/operations.md"]
MADE_ELSEWHERE = {
    "scans.csv": "the hospital's own",
    "new.dcm": "the hospital's own",
    "records.txt": "typed by whoever asks",
    "second.pem": "another officer's, made as the first one's",
}
MAKES = {"--output", "--save", "--html", "--report", "--contact-sheet"}


def typed_in(page: str) -> list[list[str]]:
    """Return the words of every command of ours that a page shows in a block of its own."""
    text = (ROOT / page).read_text()
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    blocks = "\n".join(block for language, block in fenced if language in ("", "sh")).replace("\\\n", " ")
    typed = (line for line in blocks.splitlines() if line.removeprefix("sudo ").startswith("munkey-"))
    words = (shlex.split(line, comments=True) for line in typed)
    lines = ([word for word in line if word not in ("sudo", "...")] for line in words)
    return list(lines)


def command_of(line: list[str]) -> tuple[str, click.Command]:
    names = (" ".join(line[:count]) for count in (3, 2))
    name = next(name for name in names if name in COMMANDS)
    return name, COMMANDS[name]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_parsed(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coordinator.toml").write_text('coordinator-dir = "coordinator"')
    (tmp_path / "site.toml").write_text('site-dir = "site"\nsuperlink = "c:8443"\ndeletion-service = "c:9440"')
    lines = typed_in(page)
    faults = []
    for line in lines:
        name, command = command_of(line)
        try:
            command.make_context(name, line[len(name.split()) :])
        except click.UsageError as error:
            faults.append(f"{shlex.join(line)}: {error.format_message()}")

    assert faults == []
    assert len(lines) > 10


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_what_a_command_needs_was_made_by_one_before(page: str) -> None:
    made, faults = set(MADE_ELSEWHERE), []
    for line in typed_in(page):
        if line[0] == "munkey-sim":
            continue
        if line[1:3] == ["signing-keys", "new"]:
            made |= {line[3], line[3].replace(".pem", ".pub")}
        if line[1:3] == ["card", "propose"]:
            made.add(line[3])
        if line[1] == "secret":
            made.add(line[2])
        made |= {word for option, word in itertools.pairwise(line) if option in MAKES}
        if line[1] == "trust":
            made |= {word for option, word in itertools.pairwise(line) if option == "--in"}
        needed = {word for word in line if re.fullmatch(r"[\w-]+\.(pub|pem|secret|json|csv|dcm|txt)", word)}
        faults += [f"{word}: {shlex.join(line)}" for word in sorted(needed - made)]

    assert faults == []
