"""Requests and answers are kept as they were signed, and what was signed is in a transparency log.

Revision 0004, after 0003. Older requests and answers bear no signature, and the log begins empty.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the log's tables."""
    op.add_column("requests", sa.Column("signature", sa.LargeBinary()))
    op.add_column("acknowledgements", sa.Column("receipt", sa.LargeBinary()))
    sizes = op.create_table(
        "log_size",
        sa.Column("only", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "log_leaves",
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("name", sa.String(300), nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False, index=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("kind", "name"),
    )
    op.create_table(
        "log_nodes",
        sa.Column("level", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
    )
    op.create_table(
        "log_heads",
        sa.Column("size", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
    )
    op.bulk_insert(sizes, [{"only": 1, "size": 0}])


def downgrade() -> None:
    """There is no way back: what was written since would be lost."""
    raise NotImplementedError
