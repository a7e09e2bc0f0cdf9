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

ENDS_RUN = "ends-run"
"""In `CONFIG` of an evaluation: the run ends well with these weights, and the site answers from them from now on."""

AGAIN = "again"
"""In `CONFIG` of an evaluation, or of released weights: they are those of an earlier run."""

SITE = "site"
"""The replying site's name."""

CARD = "card"
"""The digest of the replying site's federation card, beside its name, if it has one."""

GENERATION = "generation"
"""Of the site's bank when it contributed, in its reply's `CONFIG`; given back in what is asked of it next."""

LAST_ENTRY = "last-entry"
"""The last entry of a contribution, likewise: what arrives later is in the next one."""

LAST_ORDER = "last-order"
"""Up to which deletion order a contribution was made, in its reply's `CONFIG`."""

STATEMENT = "statement"
"""What the site signs about its contribution, likewise: an envelope in canonical JSON; empty without a key."""

ROUND_ID = "round-id"
"""In `CONFIG` of a solved round: what its masks are made for, used once."""

PARTICIPANTS = "participants"
"""In `CONFIG` of a solved round: JSON, each participant's certificate in PEM by its name; empty without masks."""

CERTIFICATE = "certificate"
"""In the `CONFIG` of a site's announcement: its certificate in PEM; empty if it has none."""

RELEASE = "release"
"""In `CONFIG` of released weights: JSON, what `Choice` holds; `DIGEST` beside it is that of the release."""

DIGEST = "digest"

FAILED, CHANGED = 1000, 1001
"""Codes of error replies: the site cannot take part; its bank has changed in a round, which has to begin again.

Flower leaves codes from 1000 on to apps.
"""

NUMBERS = "numbers"
"""The one array of a masked reply."""

ANNOUNCE = "query.announce"
"""Message type: who are you, and do you take part?"""

CONTRIBUTE = "train.contribute"
"""Message type: your sums, masked."""

TALLY = "query.tally"
"""Message type: how many of your records do these weights answer rightly, masked."""

TAKE_RELEASE = "evaluate.take_release"
"""Message type: take these weights over, and report what you may."""
