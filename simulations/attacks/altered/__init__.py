"""Attacks that ask about forgotten records in another shape, or at another place."""
