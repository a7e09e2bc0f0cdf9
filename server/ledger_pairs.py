"""Rows by many two-part keys at once, through their index.

For a list of pairs (`(site, number) IN ((...), ...)`) SQLite would read the whole table. Joined with a table that is
made of the list, both databases look each pair up, and the statement is the same however many there are.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Connection, String, and_, bindparam, func

from fedmunkey.server.ledger_database import SQLITE


def among(
    connection: Connection, first: Any, second: Any, pairs: Collection[tuple[str | int, int]]
) -> tuple[ColumnElement[bool], dict[str, Any]]:
    """Return the condition that two columns are one of some pairs, and the parameters of a statement that has it.

    Parameters
    ----------
    connection : Connection
        Tells the database.
    first, second : column
        Of text or integers, and of integers.
    pairs : collection of tuple
        Values of both; each of them finds its rows once.
    """
    distinct = list(dict.fromkeys(pairs))
    if connection.dialect.name == SQLITE:
        rows = func.json_each(bindparam("pairs", type_=String)).table_valued("value", name="pairs")
        parts: list[ColumnElement[Any]] = [func.json_extract(rows.c.value, path) for path in ("$[0]", "$[1]")]
        values: dict[str, Any] = {"pairs": json.dumps(distinct)}
    else:
        kind = String if isinstance(first.type, String) else BigInteger
        table = func.unnest(bindparam("firsts", type_=ARRAY(kind)), bindparam("seconds", type_=ARRAY(BigInteger)))
        columns = table.table_valued("first", "second").render_derived(name="pairs").c
        parts = [columns.first, columns.second]
        values = {"firsts": [pair[0] for pair in distinct], "seconds": [pair[1] for pair in distinct]}
    return and_(first == parts[0], second == parts[1]), values
