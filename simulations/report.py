"""What a simulation found, as a JSON document and as tables for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from fedmunkey.client.dataset import Consent, Split
from fedmunkey.common.command_line import loss_document, loss_words
from fedmunkey.common.guarantees import Guarantee, PrivacyLoss
from fedmunkey.common.settings import Settings
from fedmunkey.simulations.baselines import Baseline, BaselineResult
from fedmunkey.simulations.deletions import CarriedOut
from fedmunkey.simulations.hospitals import Hospital
from fedmunkey.simulations.json_values import finite_only, settings_values
from fedmunkey.simulations.machine import PACKAGES, describe_machine, describe_versions
from fedmunkey.simulations.measurement import Measurement

if TYPE_CHECKING:
    from fedmunkey.simulations.run import Experiment

REPORT = "report.json"
_FORMAT = 1


@dataclass(frozen=True)
class Report:
    """One simulation's findings.

    Attributes
    ----------
    document : dict
        Everything, JSON-ready; numbers that are not known are None.
    deletions : tuple of CarriedOut
        In the order in which they were carried out.
    """

    document: dict[str, Any]
    deletions: tuple[CarriedOut, ...] = ()

    @classmethod
    def collect(
        cls,
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
    ) -> Report:
        """Put together what the parts of a simulation found."""
        oracle = baselines.get(Baseline.ORACLE)
        last = rounds[-1]
        document = {
            "format": _FORMAT,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": describe_versions(PACKAGES),
            "machine": describe_machine(),
            "data": experiment.data,
            "hospitals": [_describe(hospital) for hospital in hospitals],
            "alpha": experiment.alpha,
            "seed": settings.seed,
            "settings": settings_values(settings),
            "guarantee": {
                "name": settings.guarantee.value,
                "remains": settings.guarantee.remains,
                "permanent": _permanent_share(hospitals),
                "privacy_loss": loss_document(_privacy_loss(settings, rounds)),
            },
            "rounds": list(rounds),
            "deletions": [_describe_deletion(done, oracle) for done in deletions],
            "final": {
                "test_accuracy": _percent(last["mean"].get("test-accuracy")),
                "test_macro_f1": _percent(last["mean"].get("test-macro-f1")),
                "per_hospital": {site: _percent(found["test-accuracy"]) for site, found in last["evaluation"].items()},
                "measurement": _figures(final),
                "average_gap": final.gap(oracle.measurement) if oracle and oracle.measurement else None,
            },
            "baselines": {name.value: _describe_baseline(result) for name, result in baselines.items()},
            "bytes": {
                "weights_down": sum(event["bytes_down"] for event in rounds),
                "weights_up": sum(event["bytes_up"] for event in rounds),
            },
            "seconds": {"preparation": preparation_seconds, "training": training_seconds},
        }
        return cls(finite_only(document), tuple(deletions))

    def write(self, folder: Path) -> Path:
        """Write the document into a folder and return its path."""
        path = folder / REPORT
        path.write_text(json.dumps(self.document, indent=2, allow_nan=False) + "\n")
        return path

    def accuracy_table(self) -> Table:
        """Return test accuracies: the federation's and its baselines'."""
        table = Table(title="Test accuracy, mean over hospitals", title_justify="left")
        for heading in ("model", "TA %", "macro-F1 %", "training s"):
            table.add_column(heading, justify="left" if heading == "model" else "right")
        final, seconds = self.document["final"], self.document["seconds"]["training"]
        table.add_row("MUNKEY, federated", *map(_one, (final["test_accuracy"], final["test_macro_f1"], seconds)))
        for name, found in self.document["baselines"].items():
            figures = (found["test_accuracy"], found["test_macro_f1"], found["seconds"])
            table.add_row(_LABELS[Baseline(name)], *map(_one, figures))
        return table

    def deletion_table(self) -> Table:
        """Return what was forgotten, with which guarantee, how fast, and what the model knew before and after."""
        claims = [self._claim(guarantee) for guarantee in self._guarantees]
        table = Table(title=f"Deletions ({'; '.join(claims)})", title_justify="left")
        headings = ("deletion", "guarantee", "entries", "took", "vs retraining", "", "TA %", "RA %", "FA %", "MIA %")
        for heading in headings:
            table.add_column(heading, justify="left" if heading in ("deletion", "guarantee", "") else "right")
        for done, carried_out in zip(self.document["deletions"], self.deletions, strict=True):
            first = (done["plan"], done["guarantee"] or "-", str(done["entries"]), *_speed(done, "site", "at a site"))
            table.add_row(*first, "before", *_four(done["before"]))
            second = ("", _bounds(carried_out), "", *_speed(done, "request", "in all"))
            table.add_row(*second, "after", *_four(done["after"]), end_section=True)
        nothing = ("",) * 4
        table.add_row("all, at the end", *nothing, "after", *_four(self.document["final"]["measurement"]))
        oracle = self.document["baselines"].get(Baseline.ORACLE.value)
        if oracle:
            table.add_row("", *nothing, "oracle", *_four(oracle["measurement"]))
            gap = _one(self.document["final"]["average_gap"])
            table.caption = f"Average Gap to the oracle at the end: {gap} points"
        return table

    @property
    def closing_line(self) -> str:
        """What the guarantee of these deletions means, in one line; where some have a weaker one, they are named."""
        first, *others = self._guarantees
        claims = [f"A deletion here is {first}: {first.remains}{self._bound(first)}."]
        claims += [
            f"But {', '.join(self._plans(weaker))} is {weaker}: {weaker.remains}{self._bound(weaker)}."
            for weaker in others
        ]
        return " ".join(claims)

    @property
    def _guarantees(self) -> list[Guarantee]:
        """Those that deletions have, strongest first; the federation's where nothing was deleted."""
        given = {done.guarantee for done in self.deletions if done.guarantee is not None}
        return [one for one in Guarantee if one in given] or [Guarantee(self.document["guarantee"]["name"])]

    def _with(self, guarantee: Guarantee) -> list[CarriedOut]:
        return [done for done in self.deletions if done.guarantee is guarantee]

    def _plans(self, guarantee: Guarantee) -> list[str]:
        return [str(done.deletion.planned) for done in self._with(guarantee)]

    def _claim(self, guarantee: Guarantee) -> str:
        """Return a guarantee with its bound, and the deletions that have it where others have another."""
        whose = f"{', '.join(self._plans(guarantee))} " if guarantee is not self._guarantees[0] else ""
        return f"{whose}{guarantee}{self._bound(guarantee)}"

    def _bound(self, guarantee: Guarantee) -> str:
        """Return the largest privacy loss of a record in the deletions that have a guarantee, if it is `CERTIFIED`."""
        losses = [done.record_loss for done in self._with(guarantee) if done.record_loss is not None]
        if not losses:
            return ""
        worst = max(losses, key=lambda loss: loss.epsilon)
        return f", epsilon = {loss_words(worst)}, delta = {worst.delta:.3g}"


_LABELS = {
    Baseline.ORACLE: "MUNKEY retrained without the forgotten (oracle)",
    Baseline.PLAIN_VIT: "plain ViT, federated",
    Baseline.NEIGHBOURS: "nearest neighbours, each hospital's own",
    Baseline.ALONE: "MUNKEY, each hospital alone",
}


def _describe(hospital: Hospital) -> dict[str, Any]:
    records = hospital.given.records
    train = records.split(Split.TRAIN)
    labels, counts = np.unique(train.labels, return_counts=True)
    return {
        "name": hospital.name,
        "records": {split.value: int((records.splits == split.value).sum()) for split in Split},
        "subjects": len(np.unique(train.subject_ids)),
        "classes": {records.class_names[label]: int(count) for label, count in zip(labels, counts, strict=True)},
    }


def _describe_deletion(done: CarriedOut, oracle: BaselineResult | None) -> dict[str, Any]:
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
        "seconds": {**seconds, "slowest_request": max(done.seconds)},
        "times_faster": {what: oracle.seconds / took for what, took in seconds.items()} if oracle else None,
        "before": _figures(done.before),
        "after": _figures(done.after),
    }


def _describe_baseline(result: BaselineResult) -> dict[str, Any]:
    described = {name: value for name, value in asdict(result).items() if name not in ("name", "measurement")}
    return {**described, "measurement": _figures(result.measurement) if result.measurement else None}


def _figures(found: Measurement) -> dict[str, Any]:
    return {name: value for name, value in asdict(found).items() if name != "forget_confidence"}


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


def _bounds(done: CarriedOut) -> str:
    """Return epsilon of a record, and of a subject where that is more, for people."""
    losses = [done.record_loss]
    if done.subject_loss is not None and done.subject_loss.records > 1:
        losses.append(done.subject_loss)
    words = [loss_words(loss) for loss in losses if loss is not None]
    return f"epsilon {', '.join(words)}" if words else ""


def _speed(done: dict[str, Any], what: str, where: str) -> tuple[str, str]:
    """Return how long a deletion took at the slowest site or altogether, and how many times faster than retraining."""
    faster = f"{done['times_faster'][what]:,.0f}x" if done["times_faster"] else "-"
    return f"{1000 * done['seconds'][what]:.0f} ms {where}", faster


def _percent(share: float | None) -> float | None:
    """Return a share in percent; None where no site could evaluate."""
    return None if share is None else 100 * share


def _four(figures: dict[str, Any]) -> tuple[str, str, str, str]:
    names = ("test_accuracy", "retain_accuracy", "forget_accuracy", "membership")
    ta, ra, fa, mia = (_one(figures[name]) for name in names)
    return ta, ra, fa, mia


def _one(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
