"""Tables of the transparency log, in the ledger's database.

The log holds every node of its Merkle tree whose leaves are all there, so a proof reads a few dozen rows of any log.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Connection, LargeBinary, String, UniqueConstraint, event, insert
from sqlalchemy.orm import Mapped, mapped_column

from fedmunkey.server.database.tables import Base

NAME_CHARACTERS = 300
_HASH_BYTES = 32


class LogSizeRow(Base):
    """How many leaves there are; in one row."""

    __tablename__ = "log_size"
    only: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int] = mapped_column(BigInteger)


@event.listens_for(LogSizeRow.__table__, "after_create")
def _begin_empty(_table: Any, connection: Connection, **_: Any) -> None:
    connection.execute(insert(LogSizeRow).values(only=1, size=0))


class LogLeafRow(Base):
    """A leaf: a request or a receipt as it was signed. `name` says which, and is there once for each kind."""

    __tablename__ = "log_leaves"
    __table_args__ = (UniqueConstraint("kind", "name"),)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(10))
    name: Mapped[str] = mapped_column(String(NAME_CHARACTERS))
    hash: Mapped[bytes] = mapped_column(LargeBinary(_HASH_BYTES), index=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class LogNodeRow(Base):
    """The root of 2**level leaves from number position * 2**level on."""

    __tablename__ = "log_nodes"
    level: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[bytes] = mapped_column(LargeBinary(_HASH_BYTES))


class LogHeadRow(Base):
    """A head that was signed; a size has one, which never changes."""

    __tablename__ = "log_heads"
    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
