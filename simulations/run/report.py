"""What a simulation found, as the JSON document that its report is made from, and on a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.client.site import hospital_name
from fedmunkey.common.deletions.status_words import loss_document
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.federation.measurement import Measurement
from fedmunkey.simulations.federation.scanners import Scanner
from fedmunkey.simulations.programs.json_values import finite_only
from fedmunkey.simulations.reporting.numerals import decimals
from fedmunkey.simulations.reporting.preamble import SIMULATED, preamble
from fedmunkey.simulations.reporting.run_tables import (
    ACCURACY,
    CHANGES,
    DELETIONS,
    accuracy_rows,
    change_rows,
    closing_line,
    deletion_rows,
    deletion_title,
    renewal_line,
)
from fedmunkey.simulations.run.baselines import Baseline, BaselineResult
from fedmunkey.simulations.run.changes import Change, Timeline
from fedmunkey.simulations.run.deletions import CarriedOut
from fedmunkey.simulations.run.experiment import Experiment

LIMITS = (
    SIMULATED,
    "This is one run with one seed, and figures of few forgotten records move in large steps. munkey-sim audit repeats "
    "it, attacks it, and says what is chance.",
    "MIA is the simplest of attacks: it knows confidences only. A better one may find more.",
)


def run_document(
    *,
    experiment: Experiment,
    settings: Settings,
    hospitals: Sequence[Hospital],
    rounds: Sequence[dict[str, Any]],
    deletions: Sequence[CarriedOut],
    final: Measurement,
    baselines: Mapping[Baseline, BaselineResult],
    preparation_seconds: float,
    training_seconds: float,
    timeline: Timeline | None = None,
    same: bool | None = None,
) -> dict[str, Any]:
    """Return the document; `simulations/reporting/report.schema.json` says what each part means."""
    oracle = baselines.get(Baseline.ORACLE)
    retrained = oracle.measurement if oracle else None
    last = rounds[-1]
    document = {
        **preamble("run", experiment.command, settings),
        "data": experiment.data,
        "hospitals": [
            {**_describe(hospital), **_scanned_by(number, experiment.feature_shift, settings.seed)}
            for number, hospital in enumerate(hospitals)
        ],
        "alpha": experiment.alpha,
        "division": {"by": experiment.divide_by.value, "feature_shift": experiment.feature_shift},
        "seed": settings.seed,
        "guarantee": {
            "name": settings.guarantee.value,
            "remains": settings.guarantee.remains,
            "permanent": _permanent_share(hospitals),
            "privacy_loss": loss_document(_privacy_loss(settings, rounds)),
        },
        "rounds": list(rounds),
        "deletions": [_describe_deletion(done, oracle, _renewed(done, rounds)) for done in deletions],
        "changes": [_describe_change(one, timeline, rounds) for one in timeline.changes] if timeline else [],
        "same_weights": same,
        "final": {
            "test_accuracy": _percent(last["mean"].get("test-accuracy")),
            "test_macro_f1": _percent(last["mean"].get("test-macro-f1")),
            "per_hospital": _at_each(last, "test-accuracy"),
            "own_per_hospital": _at_each(last, "test-own-accuracy"),
            "measurement": _figures(final),
            "average_gap": final.gap(retrained) if retrained else None,
        },
        "confidence": {
            "before": _unordered(value for done in deletions for value in done.before.forget_confidence),
            "after": _unordered(value for done in deletions for value in done.after.forget_confidence),
            "oracle": _unordered(retrained.forget_confidence if retrained else ()),
            "test": _unordered(final.test_confidence),
        },
        "baselines": {name.value: _describe_baseline(result) for name, result in baselines.items()},
        "bytes": {
            "weights_down": sum(event["bytes_down"] for event in rounds),
            "weights_up": sum(event["bytes_up"] for event in rounds),
        },
        "seconds": {"preparation": preparation_seconds, "training": training_seconds},
        "limits": LIMITS,
    }
    found: dict[str, Any] = finite_only(document)
    return {**found, "headline": {"sentence": closing_line(found)}}


def accuracy_table(run: Mapping[str, Any]) -> Table:
    """Return test accuracies: the federation's and its baselines'."""
    table = _table("Test accuracy, mean over hospitals", ACCURACY, words=1)
    for row in accuracy_rows(run):
        table.add_row(*row)
    return table


def deletion_table(run: Mapping[str, Any]) -> Table:
    """Return what was forgotten, with which guarantee, how fast, and what the model knew before and after."""
    table = _table(deletion_title(run), DELETIONS, words=2)
    for rows in deletion_rows(run):
        for row in rows:
            table.add_row(*row)
        table.add_section()
    captions = [renewal_line(run)]
    if "oracle" in run["baselines"]:
        captions.append(f"Average Gap to the oracle at the end: {decimals(run['final']['average_gap'])} points")
    table.caption = "\n".join(filter(None, captions))
    return table


def change_table(run: Mapping[str, Any]) -> Table:
    """Return which hospitals and records came and went."""
    table = _table("Hospitals and records that came and went", CHANGES, words=3)
    for row in change_rows(run):
        table.add_row(*row)
    return table


def _table(title: str, headings: Sequence[str], words: int) -> Table:
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < words or not heading else "right")
    return table


def _describe(hospital: Hospital) -> dict[str, Any]:
    records = hospital.given.records
    train = records.split(Split.TRAIN)
    labels, counts = np.unique(train.labels, return_counts=True)
    return {
        "name": hospital.name,
        "records": {
            Split.TRAIN.value: len(train),
            Split.VAL.value: len(records.split(Split.VAL)) if hospital.validated is None else hospital.validated,
            Split.TEST.value: len(hospital.test.records),
        },
        "subjects": len(np.unique(train.subject_ids)),
        "classes": {records.class_names[label]: int(count) for label, count in zip(labels, counts, strict=True)},
        **({} if train.sources is None else {"sources": np.unique(train.sources).tolist()}),
    }


def _scanned_by(hospital: int, strength: float, seed: int) -> dict[str, Any]:
    """Return what a hospital's scanner does to its images; nothing where scanners do not differ."""
    return {"scanner": asdict(Scanner.draw(hospital, strength, seed))} if strength else {}


def _renewed(done: CarriedOut, rounds: Sequence[Mapping[str, Any]]) -> float | None:
    """Return in how many seconds the round behind a deletion had brought every site its weights; None if trained."""
    return next((event["release_seconds"] for event in rounds if event["number"] == done.deletion.planned.round), None)


def _describe_deletion(done: CarriedOut, oracle: BaselineResult | None, renewed: float | None) -> dict[str, Any]:
    seconds = {"site": float(np.median(done.site_seconds)), "request": float(np.median(done.seconds))}
    return {
        "plan": str(done.deletion.planned),
        "round": done.deletion.planned.round,
        "requests": len(done.statuses),
        "expected": list(done.deletion.expected),
        "records": done.records,
        "entries": done.entries,
        "guarantee": done.guarantee.value if done.guarantee else None,
        "record_loss": loss_document(done.record_loss),
        "subject_loss": loss_document(done.subject_loss),
        "seconds": {**seconds, "slowest_request": max(done.seconds), "renewed": renewed},
        "times_faster": {what: oracle.seconds / took for what, took in seconds.items()} if oracle else None,
        "before": _figures(done.before),
        "after": _figures(done.after),
    }


def _describe_change(change: Change, timeline: Timeline, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Say what came or went, with how many records, and how many hospitals the round behind it was solved from."""
    event = next((event for event in rounds if event["number"] == change.round), None)
    if change.hospital is None:
        hospital, records = None, sum(int((since == change.round).sum()) for since in timeline.since)
    else:
        hospital = hospital_name(change.hospital)
        records = int((timeline.since[change.hospital - 1] <= change.round).sum())
    return {
        "plan": str(change),
        "kind": change.kind.value,
        "round": change.round,
        "until": change.until,
        "hospital": hospital,
        "records": records,
        "took_part": None if event is None else len(event["sites"]),
    }


def _describe_baseline(result: BaselineResult) -> dict[str, Any]:
    described = {name: value for name, value in asdict(result).items() if name not in ("name", "measurement")}
    return {**described, "measurement": _figures(result.measurement) if result.measurement else None}


def _figures(found: Measurement) -> dict[str, Any]:
    """Return what a report says of a measurement; what each pathway knows by itself is not asked in a run."""
    left_out = ("forget_confidence", "test_confidence", "image_accuracy", "memory_accuracy")
    return {name: value for name, value in asdict(found).items() if name not in left_out}


def _unordered(confidences: Iterable[float]) -> list[float]:
    """Return probabilities such that none can be told to be of a certain record."""
    return sorted(round(value, 4) for value in confidences)


def _permanent_share(hospitals: Sequence[Hospital]) -> float:
    """Return the share of all training records that were given for good."""
    consents = np.concatenate([hospital.given.split(Split.TRAIN).records.consents for hospital in hospitals])
    return float(np.mean(consents == Consent.PERMANENT.value))


def _privacy_loss(settings: Settings, rounds: Sequence[dict[str, Any]]) -> PrivacyLoss | None:
    """Return the largest privacy loss of a record that any site has reported; None unless `CERTIFIED`."""
    if settings.guarantee is not Guarantee.CERTIFIED:
        return None
    answers = [found for event in rounds for part in ("training", "evaluation") for found in event[part].values()]
    # An event has no word for infinity, which is what null stands for here.
    losses = [
        PrivacyLoss(math.inf if found["epsilon"] is None else found["epsilon"], found["delta"])
        for found in answers
        if "epsilon" in found
    ]
    return max(losses, key=lambda loss: loss.epsilon, default=PrivacyLoss(0.0, settings.delta))


def _at_each(event: dict[str, Any], metric: str) -> dict[str, float | None]:
    return {site: _percent(found.get(metric)) for site, found in event["evaluation"].items()}


def _percent(share: float | None) -> float | None:
    """Return a share in percent; None where no site could evaluate."""
    return None if share is None else 100 * share
