"""`python -m tests.handbook`: types the commands of a page from an empty folder, and holds what it says of them.

Every machine of the page is a folder here, programs are the real ones, and each statement of the page about what a
command prints and how it ends is checked. Exit code 1 means that something was not as the page says.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.handbook.typing_pages import PageTyped, type_page

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Type the pages that are named, each with each ledger that is named."""
    parser = argparse.ArgumentParser(prog="python -m tests.handbook", description=__doc__)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--ledger", action="append", choices=["SQLite", "PostgreSQL"], default=[])
    parser.add_argument("--keep", type=Path, help="a new folder that stays, for looking into")
    parser.add_argument("--verbose", action="store_true", help="show what commands print")
    asked = parser.parse_args()
    failed = False
    for page in asked.pages:
        for ledger in asked.ledger or ["SQLite"]:
            with tempfile.TemporaryDirectory(prefix="munkey-handbook-") as temporary:
                folder = asked.keep / f"{page.stem}-{ledger}" if asked.keep else Path(temporary) / page.stem
                folder.mkdir(parents=True)
                typed = type_page(page, ledger, folder, _show, verbose=asked.verbose)
            _show(_summary(page, ledger, typed))
            failed |= bool(typed.faults)
    sys.exit(failed)


def _summary(page: Path, ledger: str, typed: PageTyped) -> str:
    found = "".join(f"\n{fault}" for fault in typed.faults)
    return (
        f"{page} with {ledger}: {typed.commands} commands typed, {typed.statements} statements held, "
        f"{len(typed.faults)} not as the page says, {typed.seconds:.0f} s{found}"
    )


def _show(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
