"""What holds for every command of the three command lines, and for the reference of them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from fedmunkey.client.cli import app as client_app
from fedmunkey.client.supernode.site_file import SiteFile
from fedmunkey.common.programs.command_reference import command_reference, every_command, example_of
from fedmunkey.common.programs.files_reference import files_reference
from fedmunkey.server.cli import app as server_app
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile, Notices
from fedmunkey.simulations.cli import app as simulation_app
from fedmunkey.simulations.cli import main as simulation_main
from tests.conftest import Typed

ROOT = Path(__file__).parents[1]
PROGRAMS = {"munkey-sim": simulation_app, "munkey-server": server_app, "munkey-client": client_app}
COMMANDS = {words: command for words, command in every_command(PROGRAMS) if words not in PROGRAMS}


@pytest.mark.parametrize("words", COMMANDS)
def test_help_shows_an_example_that_can_be_typed(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, example = COMMANDS[words], example_of(COMMANDS[words])
    with pytest.raises(click.exceptions.Exit) as ended:
        command.make_context(words, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    typed = shlex.split(example)

    assert ended.value.exit_code == 0
    assert example
    assert f"Example: {example}" in shown
    assert " ".join(typed).startswith(words)
    command.make_context(words, typed[len(words.split()) :])


@pytest.mark.parametrize("words", COMMANDS)
def test_no_help_holds_what_is_taken_for_markup(words: str) -> None:
    texts = [
        COMMANDS[words].help or "",
        *(getattr(parameter, "help", "") or "" for parameter in COMMANDS[words].params),
    ]

    # Words in brackets would not be shown.
    assert [found for text in texts for found in re.findall(r"\[/?[a-z#@][^\]]*\]", text)] == []


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_has_help(words: str) -> None:
    options = [parameter for parameter in COMMANDS[words].params if isinstance(parameter, click.Option)]

    assert [option.name for option in options if not option.help] == []


def test_reference_on_disk_is_the_rendering() -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == command_reference(PROGRAMS), "run: make docs"


def test_reference_of_files_on_disk_is_the_rendering_and_says_what_each_line_means() -> None:
    files: dict[str, type[BaseModel]] = {"coordinator.toml": CoordinatorFile, "site.toml": SiteFile}

    assert (ROOT / "docs" / "files.md").read_text() == files_reference(files), "run: make docs"
    kinds: list[type[BaseModel]] = [*files.values(), Notices]
    for kind in kinds:
        assert [name for name, field in kind.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_say_their_version_and_complete_words_in_a_shell(program: str) -> None:
    package = {"munkey-sim": "simulations", "munkey-server": "server", "munkey-client": "client"}[program]
    start = f"import sys; sys.argv[0] = {program!r}; from fedmunkey.{package}.cli import main; main()"
    words = {"COMP_WORDS": f"{program} r", "COMP_CWORD": "1"}
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"

    def run(*more: str, **environment: str) -> str:
        command = [sys.executable, "-c", start, *more]
        return subprocess.run(  # noqa: S603
            command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    said, completed = run("--version"), run(**words, **{variable: "complete_bash"}).split()

    assert said == f"{program} {version('fedmunkey')}\n"
    expected = {"munkey-sim": "run", "munkey-server": "requests", "munkey-client": "rotate"}[program]
    assert expected in completed
    assert all(word.startswith("r") for word in completed)


def test_reference_does_not_depend_on_terminal_or_language(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    before = command_reference(PROGRAMS)
    for name, value in {"COLUMNS": "40", "TERM": "dumb", "LANG": "de_DE.UTF-8", "LC_ALL": "C"}.items():
        monkeypatch.setenv(name, value)

    assert typed(simulation_main, "munkey-sim", "command-reference") == (0, before, "")


@pytest.mark.parametrize(
    "row",
    [
        "### munkey-client enrol\n",
        "#### munkey-client trust add\n",
        "Commands: `run`, `audit`, ",
        "| `--site-dir` | path | required | The site's folder: its key store and its copy of the federation secret. |",
        "| `--set`, `-s` | text |  | A setting as key=value, see docs/settings.md. Repeatable. |",
        "| `--role` | `officer`, `site`, `log` | required | What the key may sign. |",
        "| `ORDER` | whole number >= 1 | required | The order's number, as munkey-client status shows it. |",
        "| `--alpha` | number | `inf` | ",
        "| `--dry-run` |  |  | Read and check everything, and write nothing but the report. |",
    ],
)
def test_reference_says_what_may_be_given(row: str) -> None:
    assert row in command_reference(PROGRAMS)
