"""`munkey-client verify-erasure`: whether any file still holds bytes of what an order deleted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from fedmunkey.client.commands.options import JsonOption, SiteDirOption
from fedmunkey.client.importing.contact_sheet import deleted_pictures
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.key_store.erasure_check import ErasureCheck
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidInput, count_of
from fedmunkey.common.programs import command_line


@faults_explained()
def verify_erasure(
    order: Annotated[int, typer.Argument(min=1, help="The order's number, as munkey-client status shows it.")],
    site_dir: SiteDirOption,
    also: Annotated[
        list[Path] | None,
        typer.Option(help="Another folder to search, such as Flower's home or one for temporary files. Repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search every file of a site for bytes of what an order deleted; exit code 1 if there are any.

    Keys, inputs, tokens and ids are looked for as they were and as they were encrypted, and so are their record keys.
    The site keeps keyed hashes for that, not the bytes; of an order for more than 4,096 records it keeps those of as
    many, and says so. Contact sheets of imports are searched for pictures of deleted records.

    Example: munkey-client verify-erasure 3 --site-dir hospital-1
    """
    folders = [site_dir, *(also or [])]
    for folder in folders:
        if not folder.is_dir():
            raise InvalidInput(f"{folder} is not a folder; name one that can be searched")
    with SiteFolder(site_dir).open() as store:
        checked = store.orders.check_erasure(order, folders)
        sheets = [
            f"{path} shows {count_of(count, 'picture')} of deleted records; remove the file"
            for path, count in deleted_pictures(store, folders)
        ]
    checked = replace(checked, faults=(*checked.faults, *sheets))
    if as_json:
        command_line.print_json(_document(checked))
    else:
        _show(checked)
    if not checked.erased:
        raise typer.Exit(1)


def _document(checked: ErasureCheck) -> dict[str, Any]:
    return {
        "order": checked.order,
        "records": checked.records,
        "records_searched": checked.sampled,
        "erased": checked.erased,
        "files": checked.files,
        "bytes": checked.size,
        "windows": checked.windows,
        "windows_searched": checked.remembered,
        "found": [
            {"file": str(found.path), "offset": found.offset, "what": found.what.value} for found in checked.found
        ],
        "unread": [str(path) for path in checked.unread],
        "faults": list(checked.faults),
    }


def _show(checked: ErasureCheck) -> None:
    result = "nothing is left" if checked.erased else "NOT ERASED"
    records = count_of(checked.records, "record")
    typer.echo(
        f"order {checked.order}, {records}: {result} ({checked.files} files, {checked.size:,} bytes, "
        f"{checked.remembered} of {checked.windows} windows searched for)"
    )
    if checked.sampled < checked.records:
        typer.echo(
            f"of {checked.records:,} records, the bytes of {checked.sampled:,}, evenly spread, were looked for; "
            "of the others nothing is kept by which their bytes could be known"
        )
    if checked.found:
        table = command_line.plain_table("file", "what", numbers=("offset",))
        for found in checked.found:
            table.add_row(str(found.path), found.what.value, str(found.offset))
        command_line.print_table(table)
    for fault in checked.faults:
        typer.echo(f"fault: {fault}")
    for path in checked.unread:
        typer.echo(f"not read: {path}")
