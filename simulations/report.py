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

from client.dataset import Split
from common.guarantees import Guarantee
from common.settings import Settings
from simulations.baselines import Baseline, BaselineResult
from simulations.deletions import CarriedOut
from simulations.hospitals import Hospital
from simulations.machine import describe_machine, describe_versions
from simulations.measurement import Measurement

if TYPE_CHECKING:
    from simulations.run import Experiment

REPORT = "report.json"
_FORMAT = 1
_PACKAGES = ("fedmunkey", "torch", "flwr", "ray", "grpcio", "numpy", "scikit-learn")


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
            "versions": describe_versions(_PACKAGES),
            "machine": describe_machine(),
            "data": experiment.data,
            "hospitals": [_describe(hospital) for hospital in hospitals],
            "alpha": experiment.alpha,
            "seed": settings.seed,
            "settings": settings.to_config(),
            "guarantee": {"name": settings.guarantee.value, "remains": settings.guarantee.remains},
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
        return cls(_without_nan(document), tuple(deletions))

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
        """Return what was forgotten, how fast, and what the model knew before and after."""
        table = Table(title=f"Deletions ({self.document['guarantee']['name']})", title_justify="left")
        headings = ("deletion", "entries", "took", "vs retraining", "", "TA %", "RA %", "FA %", "MIA %")
        for heading in headings:
            table.add_column(heading, justify="left" if heading in ("deletion", "") else "right")
        for done in self.document["deletions"]:
            first = (done["plan"], str(done["entries"]), *_speed(done, "site", "at a site"))
            table.add_row(*first, "before", *_four(done["before"]))
            table.add_row("", "", *_speed(done, "request", "in all"), "after", *_four(done["after"]), end_section=True)
        table.add_row("all, at the end", "", "", "", "after", *_four(self.document["final"]["measurement"]))
        oracle = self.document["baselines"].get(Baseline.ORACLE.value)
        if oracle:
            table.add_row("", "", "", "", "oracle", *_four(oracle["measurement"]))
            gap = _one(self.document["final"]["average_gap"])
            table.caption = f"Average Gap to the oracle at the end: {gap} points"
        return table

    @property
    def closing_line(self) -> str:
        """What the guarantee of these deletions means, in one line."""
        guarantee = Guarantee(self.document["guarantee"]["name"])
        return f"A deletion here is {guarantee}: {guarantee.remains}."


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


def _without_nan(value: Any) -> Any:
    """Replace what is not a number by None, which JSON can say."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
