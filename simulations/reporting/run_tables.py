"""A run's report in rows of text, for a terminal, a page and Markdown, and what its deletions come to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fedmunkey.common.deletions.status_words import loss_words
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.simulations.reporting.many_hospitals import MOST_LISTED, QUANTILES, at_the_ends, spread, spread_rows
from fedmunkey.simulations.reporting.numerals import UNKNOWN, decimals, figure

Row = tuple[str, ...]
ACCURACY = ("model", "TA %", "own mix %", "macro-F1 %", "training s")
DELETIONS = ("deletion", "guarantee", "entries", "took", "vs retraining", "", "TA %", "RA %", "FA %", "MIA %")
CHANGES = ("change", "what it was", "when", "its records", "hospitals in that round")
HOSPITALS = ("hospital", "training", "validation", "test", "subjects", "training records of each class")
_CHANGES = {
    "join": "{} joined",
    "leave": "{} left",
    "sleep": "{} did not answer",
    "arrive": "records arrived",
}
_FOUR = ("test_accuracy", "retain_accuracy", "forget_accuracy", "membership")
_SPLITS = ("train", "val", "test")
_MODELS = {
    "oracle": "MUNKEY retrained without the forgotten (oracle)",
    "plain-vit": "plain ViT, federated",
    "neighbours": "nearest neighbours, each hospital's own",
    "alone": "MUNKEY, each hospital alone",
}


def accuracy_rows(run: Mapping[str, Any]) -> list[Row]:
    """Return test accuracies below the headings `ACCURACY`: the federation's and its baselines'."""
    own = run["final"]["measurement"]["own_accuracy"]
    found = {"MUNKEY, federated": {**run["final"], "own_accuracy": own, "seconds": run["seconds"]["training"]}}
    found |= {_MODELS[name]: baseline for name, baseline in run["baselines"].items()}
    names = ("test_accuracy", "own_accuracy", "test_macro_f1", "seconds")
    return [(model, *(decimals(figures[name]) for name in names)) for model, figures in found.items()]


def deletion_rows(run: Mapping[str, Any]) -> list[tuple[Row, ...]]:
    """Return, below the headings `DELETIONS`, two rows for each deletion, and those of all of them at the end."""
    rows: list[tuple[Row, ...]] = []
    for done in run["deletions"]:
        first = done["plan"], done["guarantee"] or UNKNOWN, str(done["entries"]), *_speed(done, "site", "at a site")
        second = "", _bounds(done), "", *_speed(done, "request", "in all")
        rows.append(((*first, "before", *_four(done["before"])), (*second, "after", *_four(done["after"]))))
    nothing = ("",) * 4
    last = [("all, at the end", *nothing, "after", *_four(run["final"]["measurement"]))]
    if "oracle" in run["baselines"]:
        last.append(("", *nothing, "oracle", *_four(run["baselines"]["oracle"]["measurement"])))
    return [*rows, tuple(last)]


def change_rows(run: Mapping[str, Any]) -> list[Row]:
    """Return which hospitals and records came and went, below the headings `CHANGES`; none where none did."""
    return [
        (
            one["plan"],
            _CHANGES[one["kind"]].format(one["hospital"]),
            f"rounds {one['round']} to {one['until']}" if one["until"] else f"before round {one['round']}",
            figure(one["records"]),
            UNKNOWN if one["took_part"] is None else figure(one["took_part"]),
        )
        for one in run.get("changes", [])
    ]


def same_weights_line(run: Mapping[str, Any]) -> str:
    """Return whether the last weights are those of a federation that never had what left; empty if not known."""
    match run.get("same_weights"):
        case True:
            return (
                "The last weights have the same bytes as those of a federation that never had what was deleted or left."
            )
        case False:
            return "The last weights differ from those of a federation that never had what was deleted or left."
    return ""


def mix_headings(run: Mapping[str, Any]) -> Row:
    """Return the headings of `mix_rows`: those of two accuracies for each model that single hospitals were asked of."""
    return "hospital", *(f"{model}{mix}" for model, _ in _asked_each(run) for mix in (", TA %", ", own mix %"))


def mix_rows(run: Mapping[str, Any]) -> list[Row]:
    """Return each hospital's test accuracies, for the federation's case mix and for its own.

    Of many hospitals these are quantiles, and the hospitals with the least and the most for their own case mix.
    """
    mixes = [mix for _, found in _asked_each(run) for mix in (found["per_hospital"], found["own_per_hospital"])]
    names = _names(run)

    def row(name: str) -> Row:
        return name, *(decimals(mix.get(name)) for mix in mixes)

    if len(names) <= MOST_LISTED:
        return [row(name) for name in names]
    columns = [[mix.get(name) for name in names] for mix in mixes]
    return [*spread_rows(columns, decimals), *map(row, at_the_ends(names, columns[1]))]


def _asked_each(run: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    found = [("federated", run["final"])]
    found += [(name, baseline) for name, baseline in run["baselines"].items() if baseline["per_hospital"]]
    return found


def round_headings(run: Mapping[str, Any]) -> Row:
    """Return the headings of `round_rows`."""
    names = _names(run)
    return "round", *(names if len(names) <= MOST_LISTED else [name for name, _ in QUANTILES]), "mean"


def round_rows(run: Mapping[str, Any]) -> list[Row]:
    """Return test accuracy in percent after each round: its number, every hospital's or quantiles, and the mean."""
    names, rows = _names(run), []
    for event in run["rounds"]:
        shares = [event["evaluation"].get(name, {}).get("test-accuracy") for name in names]
        shares = shares if len(names) <= MOST_LISTED else spread(shares)
        shown = [*shares, event["mean"].get("test-accuracy")]
        rows.append((str(event["number"]), *(UNKNOWN if one is None else decimals(100 * one) for one in shown)))
    return rows


def hospital_headings(run: Mapping[str, Any]) -> Row:
    """Return `HOSPITALS`, and what else is known of where records come from."""
    return *HOSPITALS, *_origins(run)


def _origins(run: Mapping[str, Any]) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """Return, by heading, what is said of each hospital's sources and scanner where the run knows of them."""
    first = run["hospitals"][0]
    origins: dict[str, Callable[[Mapping[str, Any]], str]] = {}
    if "sources" in first:
        origins["sources"] = lambda one: ", ".join(one["sources"])
    if "scanner" in first:
        origins["scanner (gain, offset, blur)"] = lambda one: _scanner_words(**one["scanner"])
    return origins


def _scanner_words(gain: int, offset: int, blur: int) -> str:
    return f"x{gain / 256:.2f}, {offset:+d}, {blur / 256:.0%}"


def hospital_rows(run: Mapping[str, Any]) -> list[Row]:
    """Return what each hospital began with, below the headings `hospital_headings`.

    Of many hospitals these are quantiles, and the hospitals with the fewest and the most training records.
    """
    hospitals, origins = {one["name"]: one for one in run["hospitals"]}, _origins(run)
    rows = {
        name: (
            name,
            *(figure(one["records"][split]) for split in _SPLITS),
            figure(one["subjects"]),
            ", ".join(f"{label}: {count}" for label, count in one["classes"].items()),
            *(say(one) for say in origins.values()),
        )
        for name, one in hospitals.items()
    }
    if len(rows) <= MOST_LISTED:
        return list(rows.values())
    columns = [[float(one["records"][split]) for one in hospitals.values()] for split in _SPLITS]
    columns.append([float(one["subjects"]) for one in hospitals.values()])
    quantiles = spread_rows(columns, lambda value: UNKNOWN if value is None else figure(round(value)))
    return [
        *((*row, *("" for _ in range(1 + len(origins)))) for row in quantiles),
        *(rows[name] for name in at_the_ends(list(rows), columns[0])),
    ]


def _names(run: Mapping[str, Any]) -> list[str]:
    return [hospital["name"] for hospital in run["hospitals"]]


def deletion_title(run: Mapping[str, Any]) -> str:
    """Return the guarantees of the deletions with their bounds; those with a weaker one than the first are named."""
    claims: list[str] = []
    for guarantee, done in _by_guarantee(run):
        whose = f"{_plans(done)} " if claims else ""
        claims.append(f"{whose}{guarantee}{_bound(guarantee, done)}")
    return f"Deletions ({'; '.join(claims)})"


def closing_line(run: Mapping[str, Any]) -> str:
    """Return what the guarantee of these deletions means, in one line; where some have a weaker one, they are named."""
    claims: list[str] = []
    for guarantee, done in _by_guarantee(run):
        whose = f"But {_plans(done)}" if claims else "A deletion here"
        claims.append(f"{whose} is {guarantee}: {guarantee.remains}{_bound(guarantee, done)}.")
    return " ".join(claims)


def renewal_line(run: Mapping[str, Any]) -> str:
    """Return how fast weights were renewed after the deletions, the slowest of all; empty if none were."""
    found = [seconds for done in run["deletions"] if (seconds := done["seconds"]["renewed"]) is not None]
    return f"Renewed weights were at every site within {max(found):.1f} s of the last answer" if found else ""


def _by_guarantee(run: Mapping[str, Any]) -> Iterator[tuple[Guarantee, list[dict[str, Any]]]]:
    """Yield the guarantees that deletions have, strongest first; the federation's where nothing was deleted."""
    given = {done["guarantee"] for done in run["deletions"]} - {None} or {run["guarantee"]["name"]}
    for guarantee in Guarantee:
        if guarantee.value in given:
            yield guarantee, [done for done in run["deletions"] if done["guarantee"] == guarantee.value]


def _plans(deletions: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(done["plan"] for done in deletions)


def _bound(guarantee: Guarantee, deletions: Sequence[Mapping[str, Any]]) -> str:
    """Return the largest privacy loss of a record in deletions that are `CERTIFIED`."""
    losses = [loss for done in deletions if (loss := _loss(done["record_loss"])) is not None]
    if guarantee is not Guarantee.CERTIFIED or not losses:
        return ""
    worst = max(losses, key=lambda loss: loss.epsilon)
    return f", epsilon = {loss_words(worst)}, delta = {worst.delta:.3g}"


def _bounds(done: Mapping[str, Any]) -> str:
    """Return epsilon of a record, and of a subject where that is more."""
    record, subject = _loss(done["record_loss"]), _loss(done["subject_loss"])
    more = [subject] if subject is not None and subject.records > 1 else []
    words = [loss_words(loss) for loss in (record, *more) if loss is not None]
    return f"epsilon {', '.join(words)}" if words else ""


def _loss(found: Mapping[str, Any] | None) -> PrivacyLoss | None:
    """Read what `loss_document` wrote."""
    if found is None:
        return None
    return PrivacyLoss(math.inf if found["epsilon"] is None else found["epsilon"], found["delta"], found["records"])


def _speed(done: Mapping[str, Any], what: str, where: str) -> tuple[str, str]:
    """Return how long a deletion took at the slowest site or altogether, and how many times faster than retraining."""
    faster = f"{done['times_faster'][what]:,.0f}x" if done["times_faster"] else UNKNOWN
    return f"{1000 * done['seconds'][what]:.0f} ms {where}", faster


def _four(figures: Mapping[str, Any]) -> Row:
    return tuple(decimals(figures[name]) for name in _FOUR)
