"""Alembic runs this to apply migrations: on the connection, and within the transaction, that it is given."""

from alembic import context

from fedmunkey.server.ledger_tables import Base
from fedmunkey.server.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
