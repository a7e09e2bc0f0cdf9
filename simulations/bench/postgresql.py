"""A PostgreSQL for measurements, in a schema of their own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from fedmunkey.common.errors import InvalidSetting

POSTGRESQL = "MUNKEY_POSTGRES"
"""The variable with the URL of a database in which schemas may be made."""


@contextmanager
def postgresql_schema() -> Iterator[str]:
    """Give the URL of an empty schema, which is gone afterwards; raises `InvalidSetting` where there can be none."""
    url = os.environ.get(POSTGRESQL, "")
    if not url:
        raise InvalidSetting(f"set {POSTGRESQL} to the URL of a database for this")
    try:
        import psycopg
    except ImportError:
        raise InvalidSetting("what reads PostgreSQL is not installed: pip install 'fedmunkey[postgresql]'") from None
    try:
        connection = psycopg.connect(url, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        raise InvalidSetting(f"{POSTGRESQL} cannot be reached: {' '.join(str(error).split())}") from None
    schema = f"bench_{uuid.uuid4().hex}"
    with connection:
        connection.execute(f'CREATE SCHEMA "{schema}"'.encode())
        try:
            yield f"{url}{'&' if '?' in url else '?'}options={quote(f'-csearch_path={schema}')}"
        finally:
            connection.execute(f'DROP SCHEMA "{schema}" CASCADE'.encode())
    connection.close()
