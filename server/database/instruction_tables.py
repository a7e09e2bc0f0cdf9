"""The table of standing instructions, in the ledger's database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from fedmunkey.server.database.tables import Base


class InstructionRow(Base):
    """A signed instruction with what it names; rows are added and never changed or taken away."""

    __tablename__ = "instructions"
    __table_args__ = ({"sqlite_autoincrement": True},)
    number: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    # `Instruction.to_bytes`.
    document: Mapped[bytes] = mapped_column(LargeBinary)
    entered_at: Mapped[datetime]
