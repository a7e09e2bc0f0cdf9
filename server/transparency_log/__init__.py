"""The append-only log of requests and receipts, and its signed heads."""
