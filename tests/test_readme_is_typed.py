"""The first steps of the README, typed from empty folders; `make handbook` types the handbook as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.handbook.machines import Ownership
from tests.handbook.typing_pages import type_page

ROOT = Path(__file__).parents[1]

PAGE = """
```sh
# at the officer
munkey-client secret first.secret
#> wrote {said}: ...
munkey-client secret first.secret
#> exit code {code}
# hand over to hospital-a and hospital-b: first.secret
# in a terminal of its own:
tail --follow first.secret
```

```text
munkey-client nothing
```

```toml
# site.toml at hospital-a and hospital-b
site-dir = "hospital-a"
superlink = "coordinator.example.org:8443"
runtime = "127.0.0.1:9101"
```
"""


@pytest.mark.processes
@pytest.mark.flower
def test_every_step_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    folder = tmp_path / "typed"
    folder.mkdir()

    typed = type_page(ROOT / "README.md", "SQLite", folder, print)

    assert typed.faults == []
    assert typed.commands >= 30


@pytest.mark.processes
def test_what_is_not_as_a_page_says_is_named_by_line_and_machine(tmp_path: Path) -> None:
    page, folder = tmp_path / "page.md", tmp_path / "typed"
    folder.mkdir()
    page.write_text(PAGE.format(said="SECOND-NAME", code=0))

    typed = type_page(page, "SQLite", folder, print)

    (fault,) = typed.faults
    assert fault.startswith("page.md, line 6, at officer: exit code 2 instead of 0:\nerror: first.secret")
    secrets = {path.read_bytes() for path in folder.glob("*/first.secret")}
    assert len(secrets) == 1
    files = [(folder / name / "site.toml").read_text().splitlines() for name in ("hospital-a", "hospital-b")]
    assert [file[1] for file in files] == ['site-dir = "hospital-a"', 'site-dir = "hospital-b"']
    # The coordinator has one port, and each machine its own runtime.
    assert files[0][2] == files[1][2]
    assert files[0][3] != files[1][3]
    assert "localhost:" in files[0][2]


@pytest.mark.processes
def test_words_that_are_not_printed_are_missed(tmp_path: Path) -> None:
    page, folder = tmp_path / "page.md", tmp_path / "typed"
    folder.mkdir()
    page.write_text(PAGE.format(said="second.secret", code=2))

    (fault,) = type_page(page, "SQLite", folder, print).faults

    assert fault.startswith("page.md, line 4, at officer: does not say 'wrote second.secret: ...' here:")


def test_what_stands_for_something_is_read_and_put_in() -> None:
    own = Ownership("postgresql://here/mine")

    assert own.read("request REQUEST-ID: ... erased", "request  6f1c-0a52:  6 records erased")
    assert not own.read("request REQUEST-ID: ... erased", "request 6f1c-0a52: pending")
    assert own.put_in("show REQUEST-ID of postgresql://fedmunkey@localhost/fedmunkey", "officer") == (
        "show 6f1c-0a52 of postgresql://here/mine"
    )
