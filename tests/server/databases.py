"""Databases that tests may write to, PostgreSQL's each in a schema of its own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import psycopg
import pytest

POSTGRESQL = os.environ.get("MUNKEY_POSTGRES", "postgresql://root@localhost:5432/test")
"""A PostgreSQL in which tests may make schemas."""


@contextmanager
def postgresql_database() -> Iterator[str]:
    """Give the URL of an empty schema, or skip the test where no PostgreSQL is to be had and none is required."""
    schema = f"ledger_{uuid.uuid4().hex}"
    try:
        connection = psycopg.connect(POSTGRESQL, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        if os.environ.get("MUNKEY_REQUIRE_POSTGRES"):
            raise
        pytest.skip(f"no PostgreSQL at {POSTGRESQL} (set MUNKEY_POSTGRES): {' '.join(str(error).split())}")
    with connection:
        connection.execute(f'CREATE SCHEMA "{schema}"'.encode())
        try:
            # Tests are about what is written, not about waiting for the disk.
            options = quote(f"-csearch_path={schema} -csynchronous_commit=off")
            yield f"{POSTGRESQL}{'&' if '?' in POSTGRESQL else '?'}options={options}"
        finally:
            connection.execute(f'DROP SCHEMA "{schema}" CASCADE'.encode())
    connection.close()
