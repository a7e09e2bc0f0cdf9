"""Each number that leaves a site with a reply: what it may tell, and what bounds it.

`SECURITY.md` has the same table; a test compares the two. `check_listed` stands where replies are made, so that no
other number can leave.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from fedmunkey.client.learning.evaluation import Evaluation
from fedmunkey.client.learning.own_memory import SolvedEvaluation
from fedmunkey.client.rounds.evaluation_leave import A_DAY, FEWEST, STEP

REASON_CHARACTERS = 500
"""What an error reply's text has at most."""


@dataclass(frozen=True)
class Leaving:
    """Some numbers, by the names under which replies hold them; `shown` is how the table calls them."""

    names: frozenset[str]
    shown: str
    tells: str
    bound: str


def _of_fields(*kinds: type) -> frozenset[str]:
    named = {one.name.replace("_", "-") for kind in kinds for one in fields(kind)}
    return frozenset(f"{split}-{name}" for split in ("val", "test") for name in named)


LEAVING = (
    Leaving(
        frozenset({"num-examples"}),
        "`num-examples`",
        "after training: how many records the site trained on; after an evaluation: how many it has held out",
        f"nothing after training, as averages are weighted by it; rounded down to {STEP} after an evaluation",
    ),
    Leaving(
        frozenset({"test-accuracy"}),
        "`test-accuracy`",
        "how many held-out records the shared weights alone answer rightly; nothing of a training record, as the "
        "site's memory is not asked",
        f"not told where the site has promised `certified`, unless its `site.toml` says `counts`; else a count rounded "
        f"at random to {STEP}, so that one record changes it with a probability of at most 1/{STEP}; over {FEWEST} "
        f"held-out records at least (`fewest-evaluated`), {A_DAY} times in 24 hours, under `exact` once a round and "
        "only where the site contributed",
    ),
    Leaving(
        frozenset({"train-loss"}),
        "`train-loss`",
        "the mean loss of the training records under weights of the coordinator's choice",
        "never told by a deployed site (not a number); nor by a simulated one under `certified`",
    ),
    Leaving(
        frozenset({"epsilon", "delta"}),
        "`epsilon`, `delta`",
        "what `certified` training has spent, from the number of steps and of records",
        "the site's promised budget; told under `certified` only",
    ),
    Leaving(
        _of_fields(Evaluation, SolvedEvaluation) | {"entries", "selection-accuracy"},
        "every other loss, accuracy and count of an evaluation",
        "how held-out and training records are answered, to the last digit",
        "told by a simulated site only, a node without `site-dir`, whose data is the simulation's own, or one that was "
        'started by hand with `evaluation = "full"`; `site.toml` cannot say that',
    ),
    Leaving(
        frozenset({"generation", "last-entry", "last-order"}),
        "`generation`, `last-entry`, `last-order`",
        "how often the bank has changed, how many entries there ever were, which deletion order came last",
        "nothing; no content of a record",
    ),
    Leaving(
        frozenset({"statement", "certificate"}),
        "`statement`, `certificate`",
        "the site's signature over a digest of its masked sums, the round and the last order; who the site is",
        "the digest is of masked numbers",
    ),
    Leaving(
        frozenset({"card"}),
        "`card`",
        "which version of the federation card the site has taken over, by its digest",
        "the coordinator has signed it; no content of a record",
    ),
    Leaving(
        frozenset({"numbers"}),
        "`numbers`",
        "sums over records and counts of right answers, under `exact`",
        "masks, so that the coordinator sees totals over all sites only (decision 26)",
    ),
    Leaving(
        frozenset({"arrays"}),
        "shared weights",
        "under `certified` and `empirical`: what training has learnt",
        "(epsilon, delta) under `certified`; nothing under `empirical`",
    ),
    Leaving(
        frozenset({"reason"}),
        "an error's text",
        "why the site takes no part: a setting, a class beyond `num-classes`, what it has promised or spent; no id, "
        "and no number about how records are answered",
        f"one printable line of {REASON_CHARACTERS} characters",
    ),
)
"""Everything, in the order of the table."""

_NAMES = frozenset().union(*(leaving.names for leaving in LEAVING))


def check_listed(names: Iterable[str]) -> None:
    """Check that the table has each name; raises `LookupError` otherwise."""
    if missing := sorted(set(names) - _NAMES):
        raise LookupError(f"{', '.join(missing)} would leave the site, and no line of what leaves it says so")


def table() -> str:
    """Return the table in Markdown."""
    lines = ["| number | what it may tell | what bounds it |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {each.shown} | {each.tells} | {each.bound} |" for each in LEAVING)])
