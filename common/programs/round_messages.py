"""Names that the coordinator and the sites use in the records of their messages."""

ARRAYS = "arrays"
"""The shared weights: Flower's default name."""

CONFIG = "config"
"""What the strategy tells a site: Flower's default name."""

METRICS = "metrics"
"""Numbers about a whole site."""

ROUND = "server-round"
"""The round, in `CONFIG`; Flower sets it."""

TAKE_OVER = "take-over"
"""In `CONFIG` of an evaluation: take over the weights, and report no accuracy."""

SITE = "site"
"""The replying site's name."""
