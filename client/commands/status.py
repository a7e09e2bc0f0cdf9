"""`munkey-client status`: what a site holds and which orders it has carried out."""

from __future__ import annotations

from typing import Any

import typer

from fedmunkey.client.commands.display import order_document, orders_table
from fedmunkey.client.commands.options import JsonOption, SiteDirOption
from fedmunkey.client.deletions.holdings import Holdings
from fedmunkey.client.importing.array_records import picture_pattern, subject_name
from fedmunkey.client.importing.conventions import read_conventions
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.membership.site_card import MemberCards
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.programs import command_line


@faults_explained()
def status(site_dir: SiteDirOption, as_json: JsonOption = False) -> None:
    """Show what a site holds and which orders it has carried out.

    Example: munkey-client status --site-dir hospital-1
    """
    folder = SiteFolder(site_dir)
    with folder.open() as store:
        holdings = Holdings.of(store, MemberCards.of(folder).words())
        site = store.description.site
        names = _class_names(folder)
    if as_json:
        orders = [order_document(answer) for answer in holdings.orders]
        command_line.print_json({**holdings.facts, "orders": orders})
        return
    table = command_line.plain_table("", "")
    table.show_header = False
    for name, value in holdings.facts.items():
        if name == "alarms":
            continue
        table.add_row(name.replace("_", " "), _classes(value, names) if name == "classes" else _words(value))
    command_line.print_table(table)
    typer.echo(
        f"to delete, type ids as they were enrolled; where an array file gave none, munkey-client ids --data FILE "
        f"--site-dir {site_dir} shows them: {picture_pattern(site)}, and for subject number 7 "
        f"{subject_name(site, 'subject-7')}"
    )
    for fault in holdings.facts["alarms"]:
        typer.echo(f"ALARM: {fault}")
    if holdings.orders:
        command_line.print_table(orders_table(holdings.orders))


def _class_names(folder: SiteFolder) -> tuple[str, ...]:
    """Return what the classes are called, in their order: by the federation card, or by the site's imports."""
    signed, conventions = MemberCards.of(folder).read().current, read_conventions(folder)
    return signed.card.classes if signed is not None else conventions.classes if conventions is not None else ()


def _classes(counts: dict[str, int], names: tuple[str, ...]) -> str:
    """Return how many records there are of each class, by number and name."""
    named = {str(number): f"{number} {name}" for number, name in enumerate(names)}
    return ", ".join(f"{named.get(label, label)}: {count}" for label, count in counts.items()) or "none"


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_number(number)}" for name, number in value.items()) or "none"
    return "none" if value is None else str(value)


def _number(number: float | None) -> str:
    return "unbounded" if number is None else f"{number:g}" if isinstance(number, float) else str(number)
