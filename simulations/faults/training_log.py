"""What a site's training writes, and the driver reads: kept apart so that the driver need not import Flower for it."""

DONE = "trained and evaluated"
"""Ends the line of each round that was held to its end."""
