"""What `munkey-client import` shows: counts, and which rows were refused for which reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import typer

from fedmunkey.client.commands.display import counts_table
from fedmunkey.client.importing.conventions import Conventions
from fedmunkey.client.importing.importer import Imported
from fedmunkey.client.importing.notices import WORDS, Notice, rows_of_notices
from fedmunkey.client.importing.planning import ImportPlan
from fedmunkey.client.importing.refusals import RefusedRow, count_reasons
from fedmunkey.common.programs import command_line

_ROWS_SHOWN = 6


@dataclass(frozen=True)
class Result:
    """How an import has ended: what became of the manifest's rows, and the records that the site holds, by split."""

    site: str
    dry_run: bool
    rows: int
    plan: ImportPlan
    imported: Imported
    conventions: Conventions
    totals: dict[str, int]
    contact_sheet: Path | None = None

    @cached_property
    def refusals(self) -> list[RefusedRow]:
        """Every refused row, in their order."""
        return sorted([*self.plan.refusals, *self.imported.refusals])

    @property
    def known(self) -> int:
        """Rows whose record the site held before."""
        return self.imported.enrolled.known

    @cached_property
    def notices(self) -> dict[Notice, list[int]]:
        """What deserves a look although nothing was refused for it, and the rows."""
        refused = {refusal.row for refusal in self.refusals}
        found = rows_of_notices([*self.plan.noted, *self.imported.noted])
        kept = {notice: [row for row in rows if row not in refused] for notice, rows in found.items()}
        return {notice: rows for notice, rows in kept.items() if rows}

    @property
    def acceptable(self) -> int:
        """Rows that were imported, or would be, or had been."""
        return self.rows - len(self.refusals)


def show(result: Result, *, as_json: bool) -> None:
    """Print a result on stdout."""
    if as_json:
        command_line.print_json(_document(result))
        return
    added = result.acceptable - result.known if result.dry_run else result.imported.enrolled.added
    verb = "would add" if result.dry_run else "added"
    counts = {"rows": result.rows, verb: added, "known": result.known, "refused": len(result.refusals)}
    command_line.print_table(counts_table(result.site, {**counts, **result.totals}))
    classes = enumerate(result.conventions.classes)
    names = ", ".join(name if name == str(number) else f"{number} {name}" for number, name in classes)
    typer.echo(f"classes: {names}; every site of the federation needs them in this order")
    if result.refusals:
        command_line.print_table(_refusals(result))
    if result.notices:
        command_line.print_table(_notices(result))
    if result.contact_sheet is not None:
        typer.echo(f"contact sheet: {result.contact_sheet}, with pictures of patients; the next import removes it")
    if not added and not result.known:
        typer.echo("no record could be used, so nothing was written")


def _refusals(result: Result) -> Any:
    table = command_line.plain_table("refused because", "rows of the manifest", numbers=("rows",))
    for (_, detail), rows in count_reasons(result.refusals).items():
        table.add_row(detail, _first_rows(rows), str(len(rows)))
    return table


def _notices(result: Result) -> Any:
    table = command_line.plain_table("worth a look", "rows of the manifest", numbers=("rows",))
    for notice, rows in result.notices.items():
        table.add_row(WORDS[notice], _first_rows(rows), str(len(rows)))
    return table


def _first_rows(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:_ROWS_SHOWN])) + (", ..." if len(rows) > _ROWS_SHOWN else "")


def _document(result: Result) -> dict[str, Any]:
    return {
        "site": result.site,
        "dry_run": result.dry_run,
        "rows": result.rows,
        "acceptable": result.acceptable,
        "added": result.imported.enrolled.added,
        "known": result.known,
        "refused": len(result.refusals),
        "reasons": Counter(refusal.reason.value for refusal in result.refusals),
        "refusals": [
            {"row": refusal.row, "reason": refusal.reason.value, "detail": refusal.detail}
            for refusal in result.refusals
        ],
        "notices": [
            {"notice": notice.value, "detail": WORDS[notice], "rows": rows} for notice, rows in result.notices.items()
        ],
        "contact_sheet": None if result.contact_sheet is None else str(result.contact_sheet),
        "classes": list(result.conventions.classes),
        "image_shape": str(result.conventions.image_shape),
        "records": result.totals,
    }
