"""The tables of the ledger, the log and the register, on SQLite or PostgreSQL."""
