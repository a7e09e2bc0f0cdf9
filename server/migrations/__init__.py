"""How the ledger's tables came to be, one file for each step; run by `server.ledger_schema` when a ledger is opened."""

VERSION_TABLE = "ledger_revision"
"""Holds the revision of the tables; not Alembic's usual name, which another program in the database may use."""
