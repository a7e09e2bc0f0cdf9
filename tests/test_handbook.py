"""What the README, the guide and the handbook show can be typed: known commands and options, in the order of things.

`make handbook` types README and handbook; here they are only read.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from tests.handbook.blocks import NOT_TYPED, Command, HandedOver, Interrupted, PageFault, Written, steps_of
from tests.test_command_lines import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/guide.md", "docs/operations.md"]
TYPED = ["README.md", "docs/operations.md"]
BROUGHT = {"scans.csv", "new.png", "inbox"}
"""A hospital's own."""

PLACEHOLDER = re.compile(r"\b[A-Z]+-[A-Z]+\b")
MAKES = {"--output", "--save", "--html", "--report", "--contact-sheet"}


def typed_in(page: str) -> list[list[str]]:
    """Return the words of every command of ours that a page shows in a block of its own."""
    text = (ROOT / page).read_text()
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    blocks = "\n".join(block for language, block in fenced if language in ("", "sh", NOT_TYPED)).replace("\\\n", " ")
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


@pytest.mark.parametrize("page", TYPED)
def test_what_a_command_needs_was_made_or_handed_over_before(page: str) -> None:
    there: dict[str, set[str]] = defaultdict(lambda: set(BROUGHT))
    faults = []
    for step in steps_of(ROOT / page):
        for name in step.machines:
            own = _own(step.machines[0], name)
            match step.action:
                case Written(file):
                    there[name].add(file)
                case HandedOver(to, files):
                    faults += [f"{step.line}: {file} of {name}" for file in map(own, files) if file not in there[name]]
                    for receiver in to:
                        there[receiver] |= {_own(to[0], receiver)(file) for file in files}
                case Command():
                    line = shlex.split(own(step.action.typed).replace("\\\n", " "), comments=True)
                    there[name] |= made_by(line)
                    needed = {
                        word for word in line if re.fullmatch(r"[\w-]+\.(pub|pem|secret|json|csv|png|toml)", word)
                    }
                    faults += [f"{step.line}: {word} at {name}" for word in sorted(needed - there[name])]

    assert faults == []


def made_by(line: list[str]) -> set[str]:
    """Return the files that a command leaves in the folder where it is typed, what is printed into one among them."""
    made = {word for option, word in itertools.pairwise(line) if option in MAKES or option in (">", ">>")}
    if line[1:3] == ["signing-keys", "new"]:
        made |= {line[3], line[3].replace(".pem", ".pub")}
    if line[1:3] == ["card", "propose"]:
        made.add(line[3])
    if line[1:2] == ["secret"]:
        made.add(line[2])
    return made


@pytest.mark.parametrize("ledger", ["SQLite", "PostgreSQL"])
@pytest.mark.parametrize("page", TYPED)
def test_programs_are_started_where_they_are_stopped_and_every_placeholder_was_printed(page: str, ledger: str) -> None:
    running: Counter[tuple[str, str]] = Counter()
    printed: set[str] = set()
    for step in steps_of(ROOT / page):
        if step.ledger not in ("", ledger):
            continue
        for name in step.machines:
            match step.action:
                case Command(typed, own_terminal, printed=lines):
                    assert set(PLACEHOLDER.findall(typed)) <= printed, f"{page}, line {step.line}"
                    printed |= {word for line in lines for word in PLACEHOLDER.findall(line)}
                    running[name, " ".join(typed.split()[:2])] += own_terminal
                case Interrupted(program):
                    running[name, program] -= 1
                    assert running[name, program] == 0, f"{page}, line {step.line}"


@pytest.mark.parametrize(
    "block",
    [
        "munkey-client status",
        "# at hospital-a\n# at last",
        "# at hospital-a\n#> printed by nothing",
        "# at hospital-a\n# Ctrl-C",
    ],
)
def test_a_block_that_follows_no_rule_is_refused(block: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"text\n\n```sh\n{block}\n```\n")

    with pytest.raises(PageFault, match=r"line \d"):
        steps_of(page)


def test_a_block_is_read_as_the_page_says(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\n# at hospital-a and hospital-b, with SQLite\nmunkey-client forget \\\n    --subject -\n#< patient-1\n"
        "#> erased\n#> exit code 4\n# in a terminal of its own:\nmunkey-client up site.toml\n```\n\n"
        "```text\nsudo true\n```\n"
    )

    first, second = steps_of(page)

    assert (first.machines, first.ledger, first.line) == (("hospital-a", "hospital-b"), "SQLite", 3)
    assert first.action == Command(
        "munkey-client forget \\\n    --subject -", False, False, ["patient-1"], ["erased"], 4
    )
    assert second.action == Command("munkey-client up site.toml", own_terminal=True)


def _own(first: str, name: str) -> Callable[[str], str]:
    return lambda text: text.replace(first, name)
