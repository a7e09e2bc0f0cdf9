"""The coordinator: its Flower ServerApp, deletion service and ledger."""
