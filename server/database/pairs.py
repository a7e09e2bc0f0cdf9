"""Queries for rows by values or pairs of them, built once: building one takes longer than SQLite needs to answer it."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Connection, Row, Select, String, and_, bindparam, func, select

from fedmunkey.server.database.connection import SQLITE


class PairQuery:
    """Finds the rows of a statement of which two columns are one of some pairs; each pair finds its rows once.

    For a list of pairs (`(site, number) IN ((...), ...)`) SQLite would read the whole table. Joined with a table that
    is made of the list, both databases look each pair up through the index, and the statement is the same however
    many there are.
    """

    def __init__(self, statement: Select[*tuple[Any, ...]], first: Any, second: Any) -> None:
        self._statement = statement
        self._columns = (first, second)
        self._of: dict[str, Select[*tuple[Any, ...]]] = {}

    def rows(self, connection: Connection, pairs: Collection[tuple[str | int, int]]) -> list[Row[*tuple[Any, ...]]]:
        """Return the rows that some pairs find; of no pairs, none, without asking."""
        if not pairs:
            return []
        dialect, distinct = connection.dialect.name, list(dict.fromkeys(pairs))
        if dialect not in self._of:
            self._of[dialect] = self._statement.where(self._condition(dialect))
        if dialect == SQLITE:
            values: dict[str, Any] = {"pairs": json.dumps(distinct)}
        else:
            values = {"firsts": [pair[0] for pair in distinct], "seconds": [pair[1] for pair in distinct]}
        return list(connection.execute(self._of[dialect], values).all())

    def _condition(self, dialect: str) -> ColumnElement[bool]:
        first, second = self._columns
        if dialect == SQLITE:
            rows = func.json_each(bindparam("pairs", type_=String)).table_valued("value", name="pairs")
            parts: list[ColumnElement[Any]] = [func.json_extract(rows.c.value, path) for path in ("$[0]", "$[1]")]
        else:
            kind = String if isinstance(first.type, String) else BigInteger
            table = func.unnest(bindparam("firsts", type_=ARRAY(kind)), bindparam("seconds", type_=ARRAY(BigInteger)))
            columns = table.table_valued("first", "second").render_derived(name="pairs").c
            parts = [columns.first, columns.second]
        return and_(first == parts[0], second == parts[1])


class AmongQuery:
    """Finds the rows of a statement of which a column of texts has one of some values, however many there are."""

    def __init__(self, statement: Select[*tuple[Any, ...]], column: Any) -> None:
        self._statement = statement
        self._column = column
        self._of: dict[str, Select[*tuple[Any, ...]]] = {}

    def rows(self, connection: Connection, values: Collection[str], **others: str) -> list[Row[*tuple[Any, ...]]]:
        """Return the rows that some values find; `others` are what else the statement asks for."""
        if not values:
            return []
        dialect = connection.dialect.name
        if dialect not in self._of:
            self._of[dialect] = self._statement.where(self._column.in_(_listed(dialect)))
        given: Any = json.dumps(list(values)) if dialect == SQLITE else list(values)
        return list(connection.execute(self._of[dialect], {**others, "among": given}).all())


def _listed(dialect: str) -> Select[*tuple[Any, ...]]:
    """Return the values of the parameter `among` as rows."""
    if dialect == SQLITE:
        return select(func.json_each(bindparam("among", type_=String)).table_valued("value").c.value)
    rows = func.unnest(bindparam("among", type_=ARRAY(String))).table_valued("value").render_derived(name="among")
    return select(rows.c.value)
