"""The ledger: every request, order and answer, and the states between them."""
