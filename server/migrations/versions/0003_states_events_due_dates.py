"""Requests and orders have states, events record every move, requests are due.

Revision 0003, after 0002. What follows from the rows that are there is filled in: states from the answers, due dates 30
days after submission, a site's last number from its orders, and one event that says where each request stands.
"""

import hashlib
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_DUE = timedelta(days=30)
_OPEN = sa.text("state IN ('pending', 'delivered')")


def upgrade() -> None:
    """Change the tables and fill the columns."""
    op.add_column("sites", sa.Column("last_number", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("sites", sa.Column("left_at", sa.DateTime()))
    op.add_column("sites", sa.Column("left_after", sa.Integer()))
    op.add_column("sites", sa.Column("seen_at", sa.DateTime()))
    op.add_column("sites", sa.Column("connected_until", sa.DateTime()))
    op.add_column("requests", sa.Column("content_digest", sa.LargeBinary(32)))
    op.add_column("requests", sa.Column("everyone", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("requests", sa.Column("state", sa.String(20), nullable=False, server_default="received"))
    op.add_column("requests", sa.Column("due_at", sa.DateTime()))
    op.add_column("requests", sa.Column("extension", sa.Text(), nullable=False, server_default=""))
    op.add_column("orders", sa.Column("state", sa.String(20), nullable=False, server_default="pending"))
    op.add_column("orders", sa.Column("reason", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "events",
        sa.Column("event", sa.Integer(), primary_key=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("request", sa.Integer(), sa.ForeignKey("requests.number"), index=True),
        sa.Column("site", sa.String(100), nullable=False),
        sa.Column("before", sa.String(40), nullable=False),
        sa.Column("after", sa.String(40), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sqlite_autoincrement=True,
    )
    _fill_orders_and_sites()
    _fill_requests()
    op.create_index("requests_by_state", "requests", ["state", "due_at"])
    op.create_index("orders_open", "orders", ["request", "site"], sqlite_where=_OPEN, postgresql_where=_OPEN)
    _protect_events()
    op.execute("DROP TABLE IF EXISTS ledger_schema")


def downgrade() -> None:
    """There is no way back: what was written since would be lost."""
    raise NotImplementedError


def _fill_orders_and_sites() -> None:
    op.execute(
        "UPDATE orders SET state = COALESCE((SELECT a.state FROM acknowledgements a "
        "WHERE a.site = orders.site AND a.number = orders.number), 'pending')"
    )
    op.execute(
        "UPDATE sites SET last_number = COALESCE((SELECT max(o.number) FROM orders o WHERE o.site = sites.name), 0)"
    )


def _fill_requests() -> None:
    connection = op.get_bind()
    requests = sa.table(
        "requests",
        sa.column("number"),
        sa.column("submitted_at", sa.DateTime()),
        sa.column("requester"),
        sa.column("target_kind"),
        sa.column("target_site"),
        sa.column("subject_reference", sa.LargeBinary()),
        sa.column("content_digest", sa.LargeBinary()),
        sa.column("everyone", sa.Boolean()),
        sa.column("state"),
        sa.column("due_at", sa.DateTime()),
    )
    events = sa.table(
        "events",
        sa.column("at", sa.DateTime()),
        *(sa.column(name) for name in ("request", "site", "before", "after", "reason")),
    )
    for row in connection.execute(sa.select(requests).order_by(requests.c.number)).all():
        found = connection.execute(
            sa.text("SELECT state FROM orders WHERE request = :request"), {"request": row.number}
        )
        state = _state({order.state for order in found})
        connection.execute(
            requests.update().where(requests.c.number == row.number),
            {
                "content_digest": _digest(connection, row),
                "everyone": row.requester == "data-protection-officer"
                and row.target_kind in ("records", "subject")
                and not row.target_site,
                "state": state,
                "due_at": row.submitted_at + _DUE,
            },
        )
        connection.execute(
            events.insert(),
            {
                "at": row.submitted_at,
                "request": row.number,
                "site": "",
                "before": "",
                "after": state,
                "reason": "entered before the ledger kept events",
            },
        )


def _state(orders: set[str]) -> str:
    """Return a request's state; the rule of the time when this was written, whatever becomes of it."""
    if not orders or "pending" in orders:
        return "dispatched"
    if "refused" not in orders:
        return "completed"
    return "refused" if orders == {"refused"} else "partial"


def _digest(connection: sa.Connection, row: sa.Row[Any]) -> bytes:
    digest = hashlib.sha256()
    for part in (row.requester, row.target_kind, row.target_site):
        digest.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    digest.update(row.subject_reference or b"")
    blocks = sa.text("SELECT block FROM request_references WHERE request = :request ORDER BY first")
    for block in connection.execute(blocks, {"request": row.number}):
        digest.update(block.block)
    return digest.digest()


def _protect_events() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER events_no_{change.lower()} BEFORE {change} ON events "
                "BEGIN SELECT RAISE(ABORT, 'events are added and never changed'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION refuse_change_of_events() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'events are added and never changed'; END $$"
    )
    op.execute(
        "CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events()"
    )
