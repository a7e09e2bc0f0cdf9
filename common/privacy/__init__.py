"""Guarantees, and what noisy training spends of a record's privacy."""
