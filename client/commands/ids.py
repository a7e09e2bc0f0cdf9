"""`munkey-client ids`: under which ids a site has, or would have, the records of an array file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fedmunkey.client.commands.options import JsonOption, SiteDirOption
from fedmunkey.client.importing.array_records import ArrayRecords
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.records.medmnist_files import read_array_file
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidInput
from fedmunkey.common.programs import command_line


@faults_explained()
def ids(
    data: Annotated[Path, typer.Option(help="The file that was enrolled (.npz).")],
    site_dir: SiteDirOption,
    row: Annotated[
        list[str] | None,
        typer.Option(help="A record's place in the file, such as train-17; all if left out. Repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what to type to delete the records of an array file: the ids of each row's record and subject.

    Ids that the file gives are shown as the site knows them. A record without one is called by the site and 16 digits
    of its picture's SHA-256, a subject with a number by the site and the number. What the site enrolled under other
    names before keeps them. The last column says whether the site holds the record.

    Example: munkey-client ids --data scans.npz --site-dir hospital-1 --row train-17
    """
    found = read_array_file(data)
    folder = SiteFolder(site_dir)
    places = found.rows.tolist()
    if unknown := set(row or ()).difference(places):
        raise InvalidInput(f"--row {min(unknown)} is no row of {data}; rows are {places[0]} to {places[-1]}")
    with folder.open() as store:
        secret = folder.read_secret()
        named = ArrayRecords.of(data, found, store, secret).named(store.description.site)
        held = [store.records.holds(secret.reference(name)) for name in named.record_ids.tolist()]
    chosen = np.flatnonzero(np.isin(found.rows, row)) if row else np.arange(len(places))
    shown = [
        {
            "row": places[place],
            "record": str(named.record_ids[place]),
            "subject": str(named.subject_ids[place]),
            "held": held[place],
        }
        for place in chosen.tolist()
    ]
    if as_json:
        command_line.print_json({"rows": shown})
        return
    table = command_line.plain_table("row", "record", "subject", "held")
    for each in shown:
        table.add_row(str(each["row"]), str(each["record"]), str(each["subject"]), "yes" if each["held"] else "no")
    command_line.print_table(table)
