"""Sites, requests, orders, answers and rounds.

Revision 0002, the first: before it, a table held the version's number.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "sites",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("registered_at", sa.DateTime(), nullable=False),
    )
    op.create_table(
        "requests",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("request_id", sa.String(200), nullable=False, unique=True),
        sa.Column("requester", sa.String(100), nullable=False),
        sa.Column("target_kind", sa.String(10), nullable=False),
        sa.Column("target_site", sa.String(100), nullable=False),
        sa.Column("subject_reference", sa.LargeBinary(32)),
        sa.Column("reference_count", sa.Integer(), nullable=False),
        sa.Column("submitted_at", sa.DateTime(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "request_references",
        sa.Column("request", sa.Integer(), sa.ForeignKey("requests.number"), primary_key=True),
        sa.Column("first", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("block", sa.LargeBinary(32000), nullable=False),
    )
    op.create_table(
        "orders",
        sa.Column("site", sa.String(100), sa.ForeignKey("sites.name"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("request", sa.Integer(), sa.ForeignKey("requests.number"), nullable=False),
        sa.UniqueConstraint("request", "site"),
    )
    op.create_table(
        "acknowledgements",
        sa.Column("site", sa.String(100), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("guarantee", sa.String(20), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("record_epsilon", sa.Double()),
        sa.Column("record_delta", sa.Double()),
        sa.Column("subject_epsilon", sa.Double()),
        sa.Column("subject_delta", sa.Double()),
        sa.Column("subject_records", sa.BigInteger()),
        sa.Column("acknowledged_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["site", "number"], ["orders.site", "orders.number"]),
    )
    op.create_table(
        "rounds",
        sa.Column("opening", sa.Integer(), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.DateTime(), nullable=False),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """There is no way back: what was written would be lost."""
    raise NotImplementedError
