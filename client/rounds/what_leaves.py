"""Each number that leaves a site: what it may tell, and what bounds it.

`SECURITY.md` has the same tables; a test compares them. `check_listed` stands where rounds' replies are made, so that
no other number can leave with one. What a site says of deletions has its fields in `common.proofs` and `protos`; a test
holds these against the second table.
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
        f"told by default where the site has promised `empirical`, else where its `site.toml` says `counts`: rounded "
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

ANSWERING = (
    Leaving(
        frozenset({"records"}),
        "`records`",
        "how many of the named records, or of the named patient's, were erased; so whether the patient was there",
        "nothing: it is what the requester asks; the coordinator and who may read the certificate hear it as well",
    ),
    Leaving(
        frozenset({"entries"}),
        "`entries`",
        "how many of these were training records",
        "nothing; as above",
    ),
    Leaving(
        frozenset({"state", "reason"}),
        "`state`, `reason`",
        "whether anything was held or the order refused, and why; no id",
        "one printable line of the reason",
    ),
    Leaving(
        frozenset({"guarantee"}),
        "`guarantee`",
        "what the deletion means for weights: `exact`, `certified` or `empirical`; of an `exact` site that says "
        "`empirical`: that the records had been in weights",
        "three words",
    ),
    Leaving(
        frozenset({"recordLoss.epsilon", "recordLoss.delta", "recordLoss.records"}),
        "`recordLoss`: `epsilon`, `delta`, `records`",
        "what noisy training has spent on one record: by the number of steps and, if records are sampled, of records",
        "the site's promised budget; `records` is 1; `certified` only",
    ),
    Leaving(
        frozenset({"subjectLoss.epsilon", "subjectLoss.delta", "subjectLoss.records"}),
        "`subjectLoss`: `epsilon`, `delta`, `records`",
        "the same for the group of training records that one patient among the erased had; `records` is their number",
        "nothing beyond `entries`; `certified` only",
    ),
    Leaving(
        frozenset({"seconds"}),
        "`seconds`",
        "how long the deletion took, to the last digit: roughly how large the site's store is; not in the receipt",
        "nothing",
    ),
    Leaving(
        frozenset({"time", "asked.issued", "asked.expires"}),
        "`time`, `asked`",
        "when the site signed, to the second, and the dates of the request, which the requester chose",
        "nothing",
    ),
    Leaving(
        frozenset({"tombstones"}),
        "`tombstones`",
        "a commitment to what was erased, by which an inspection at the site can hold it to its word",
        "a hash under a key that never leaves the site",
    ),
    Leaving(
        frozenset({"exported"}),
        "`exported`",
        "how many models the site has given away that hold what was erased, and the SHA-256 of each file: whoever has "
        "such a file knows it again",
        "only in receipts of orders that erased training records, and only where models were given away",
    ),
    Leaving(
        frozenset({"witnessed.size", "witnessed.root", "seen_size", "leaves"}),
        "`witnessed`, `seen_size`, `leaves`",
        "up to where the site has seen the coordinator's log, and which of its own receipts it looks for there",
        "nothing; all of it is the coordinator's own",
    ),
    Leaving(
        frozenset({"order", "site", "requestId", "request_id", "after", "chain", "follow"}),
        "`order`, `site`, `requestId`, `after`, `chain`",
        "which orders the site has heard: numbers and digests of what it was sent",
        "nothing; all of it is the coordinator's own",
    ),
    Leaving(
        frozenset({"digest"}),
        "`after`, `digest`",
        "which legal holds and opt-outs the site has heard: the number and the digest of the last",
        "nothing; all of it is the coordinator's own",
    ),
    Leaving(
        frozenset({"rectified"}),
        "`rectified`",
        "of a correction: how many records took the place of those that were erased",
        "only in receipts of a site's own `rectify`",
    ),
    Leaving(
        frozenset({"document", "receipt", "receipts"}),
        "`document`, `receipt`",
        "the above in one piece, and again with the site's signature; given back where a ledger has lost it",
        "no identity and no reference",
    ),
    Leaving(
        frozenset({"reader", "states", "kinds", "beginning", "page", "page_size", "brief"}),
        "`reader`, `states`, `kinds`, `beginning`, `page`, `page_size`, `brief`",
        "what is looked at in a site's console, and when: which of its own requests, by state, kind and the beginning "
        "of their id; that a record or patient was looked for, by its reference",
        "only what the site may read; references as below",
    ),
    Leaving(
        frozenset({"requester", "references", "subject_reference", "signature"}),
        "`references`, `requester`, `signature`",
        "of a request that the site itself makes: how many records it names, and who signs; references are the same in "
        "each request about one record or patient",
        "references under the federation's secret, which the coordinator does not have; 10,000 at most",
    ),
)
"""What a site says about deletions: in calls of the deletion service, in answers and in receipts."""

_NAMES = frozenset().union(*(leaving.names for leaving in LEAVING))


def check_listed(names: Iterable[str]) -> None:
    """Check that the table has each name; raises `LookupError` otherwise."""
    if missing := sorted(set(names) - _NAMES):
        raise LookupError(f"{', '.join(missing)} would leave the site, and no line of what leaves it says so")


def table(rows: tuple[Leaving, ...]) -> str:
    """Return a table in Markdown."""
    lines = ["| number | what it may tell | what bounds it |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {each.shown} | {each.tells} | {each.bound} |" for each in rows)])
