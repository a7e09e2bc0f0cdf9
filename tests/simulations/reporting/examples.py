"""Reports with numbers from a seeded generator, of the size that real ones have; their words are in a file beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from fedmunkey.common.privacy.guarantees import Guarantee

SEEDS = [0, 1, 2]
STATES = {"before": 1.5, "after": 0.12, "oracle": 0.05}
"""How far members' scores lie above others', in standard deviations."""


def _words(kind: str) -> dict[str, Any]:
    """Return what does not come from a generator; some lists have rows there that become parts of the report here."""
    words = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {"kind": kind, **words["shared"], **words[kind]}
    if "guarantee" in found:
        found["guarantee"]["remains"] = Guarantee.CERTIFIED.remains
    return found


def audit() -> dict[str, Any]:
    """Return the report of an audit."""
    rng, words = np.random.default_rng(7), _words("audit")
    after = interval(rng, 51.4, 0.4)
    figures = words.pop("figures")
    figures[0]["MIA after, %"] = after["mean"]
    return {
        **words,
        "data": data("breastmnist", 780),
        "verdicts": [
            {"name": name, "title": title, "passed": name != "canaries", "sentence": sentence, "figures": found}
            for (name, title, sentence), found in zip(words["verdicts"], figures, strict=True)
        ],
        "measures": _measures(rng, after, words["measures"]),
        "attacks": [_attack(rng, *row) for row in words["attacks"]],
        "confidence": _confidence(rng),
        "rounds": [
            {"round": number, "test_accuracy": interval(rng, 84 - 14 * 0.75**number, 1.0)} for number in range(1, 13)
        ],
        "after_deletions": [
            {
                "deletion": number,
                "test_accuracy": interval(rng, 83.5, 0.5),
                "forget_accuracy": interval(rng, 81 + number % 2, 1.5),
                "first_forget_accuracy": interval(rng, 80 + number % 3, 2.5),
            }
            for number in range(1, 7)
        ],
        "cost": {
            "forget_seconds": interval(rng, 0.021, 0.002),
            "retrain_seconds": interval(rng, 112, 4),
            "forget_bytes": 1480,
            "retrain_bytes": 183_000_000,
        },
    }


def comparison() -> dict[str, Any]:
    """Return the report of a comparison."""
    rng, words = np.random.default_rng(11), _words("comparison")
    sets = {"breastmnist": (780, 83.0), "pneumoniamnist": (5856, 88.0), "bccd": (10_232, 97.0)}
    columns = ("name", "title", "family", "paper", "needs_data", "retrains")
    return {
        **words,
        "methods": [dict(zip(columns, row, strict=True)) for _, *row in words["methods"]],
        "results": [
            _result(rng, name, best, method, gap)
            for name, (_, best) in sets.items()
            for gap, method, *_ in words["methods"]
        ],
        "sets": [data(name, size) for name, (size, _) in sets.items()],
    }


def run() -> dict[str, Any]:
    """Return the report of a run: three hospitals, the second of which leaves."""
    rng, words = np.random.default_rng(5), _words("run")
    names, records = ["hospital-1", "hospital-2", "hospital-3"], {"train": 449, "val": 30, "test": 360}
    loss = words["guarantee"]["privacy_loss"]
    return {
        **words,
        "limits": words["limits"][-1:],
        "hospitals": [
            {"name": name, "records": records, "subjects": 449, "classes": {"zero": 40, "one": 409}} for name in names
        ],
        "rounds": [_round(rng, number, names) for number in range(1, 7)],
        "deletions": [
            _deletion("records:5%@3", 3, 67, {**loss, "epsilon": 2.901}),
            _deletion("site:2@5", 5, 420, {**loss, "epsilon": 1.5}),
        ],
        "final": {
            "test_accuracy": 95.25,
            "test_macro_f1": 95.0,
            "per_hospital": {"hospital-1": 95.5, "hospital-2": None, "hospital-3": 95.0},
            "own_per_hospital": {"hospital-1": 96.5, "hospital-2": None, "hospital-3": 97.0},
            "measurement": _figures(95.25, 97.0, 94.0, 51.0),
            "average_gap": 0.75,
        },
        "confidence": _confidence(rng),
        "baselines": {
            "oracle": {**_baseline(30.0, 96.0), "measurement": _figures(96.0, 97.5, 94.5, 50.0)},
            "neighbours": {
                **_baseline(0.5, 93.0),
                "per_hospital": {"hospital-1": 92.5, "hospital-2": 94.5, "hospital-3": 92.0},
                "own_per_hospital": {"hospital-1": 97.5, "hospital-2": 98.5, "hospital-3": 98.0},
            },
        },
    }


def _round(rng: np.random.Generator, number: int, names: list[str]) -> dict[str, Any]:
    found = {name: float(1 - 0.3 * 0.6**number + rng.normal(0, 0.01)) for name in names}
    evaluation: dict[str, dict[str, float | None]] = {name: {"test-accuracy": one} for name, one in found.items()}
    if number >= 5:
        evaluation["hospital-2"] = {"test-accuracy": None}
    return {
        "event": "round",
        "number": number,
        "training": {name: {"num-examples": 449.0, "train-loss": 0.1} for name in names},
        "evaluation": evaluation,
        "failures": {},
        "mean": {"test-accuracy": (found["hospital-1"] + found["hospital-3"]) / 2},
        "bytes_down": 13_000_000,
        "bytes_up": 7_000_000,
        "seconds": 3.2,
        "release_seconds": None,
    }


def _deletion(plan: str, number: int, entries: int, loss: dict[str, Any]) -> dict[str, Any]:
    return {
        "plan": plan,
        "round": number,
        "requests": 3,
        "expected": [entries, 0, 0],
        "records": entries + 10,
        "entries": entries,
        "guarantee": "certified",
        "record_loss": loss,
        "subject_loss": {**loss, "records": 1},
        "seconds": {"site": 0.01, "request": 0.02, "slowest_request": 0.06, "renewed": None},
        "times_faster": {"site": 3000.0, "request": 1500.0},
        "before": _figures(95.0, 97.0, 99.0, 68.0),
        "after": _figures(95.0, 97.0, 94.0, 52.0),
    }


def _figures(*four: float) -> dict[str, Any]:
    names = ("test_accuracy", "retain_accuracy", "forget_accuracy", "membership")
    others = {"test_macro_f1": 95.0, "membership_tpr": 2.5, "weights_membership": 50.5, "canary_recall": None}
    others["own_accuracy"] = 96.5
    return {**dict(zip(names, four, strict=True)), **others}


def _baseline(seconds: float, accuracy: float) -> dict[str, Any]:
    known = dict.fromkeys(("test_accuracy", "own_accuracy", "test_macro_f1"), accuracy)
    return {"seconds": seconds, **known, "per_hospital": {}, "own_per_hospital": {}, "measurement": None}


def data(name: str, records: int) -> dict[str, Any]:
    """Return the description of a data set with two classes."""
    return {
        "name": name,
        "records": records,
        "train": round(0.7 * records),
        "test": round(0.2 * records),
        "classes": ["malignant", "benign"],
        "encoder": "squeezenet1_0:112:mirror:0123456789abcdef",
        "digest": "5e" * 32,
    }


def interval(rng: np.random.Generator, mean: float, spread: float) -> dict[str, Any]:
    """Return a mean of three values around another, none above 100."""
    values = [round(min(float(value), 100.0), 6) for value in rng.normal(mean, spread, len(SEEDS))]
    return {"mean": float(np.mean(values)), "half": 2.48 * float(np.std(values, ddof=1)), "values": values}


def _measures(rng: np.random.Generator, after: dict[str, Any], rows: list[Any]) -> list[dict[str, Any]]:
    measures = [
        {
            "name": name,
            "title": title,
            "unit": "%",
            "before": interval(rng, before, 0.8),
            "after": after if name == "MIA" else interval(rng, later, 0.4),
            "oracle": interval(rng, oracle, 0.4),
            "other_oracle": interval(rng, oracle, 0.4),
            "gap": interval(rng, later - oracle, 0.3),
            "chance": interval(rng, 0.4, 0.1),
        }
        for name, title, before, later, oracle in rows
    ]
    last = {"name": "Average Gap", "title": "mean difference to the oracle in TA, RA, FA, MIA", "unit": ""}
    return [*measures, {**last, "gap": interval(rng, 0.6, 0.1), "chance": interval(rng, 0.5, 0.1)}]


def _attack(rng: np.random.Generator, title: str, question: str, paper: str) -> dict[str, Any]:
    name, states = title.lower().replace(" ", "-"), {state: _attacked(rng, shift) for state, shift in STATES.items()}
    words = {"name": name, "title": title, "question": question, "paper": paper}
    return {**words, "judged": name != "before-and-after", "states": states}


def _attacked(rng: np.random.Generator, shift: float) -> dict[str, Any]:
    scores: NDArray[np.float64] = np.concatenate([rng.normal(shift, 1, 162), rng.normal(0, 1, 468)])
    truth = np.repeat([1, 0], [162, 468])
    false, true, _ = roc_curve(truth, scores)
    at = float(np.interp(0.01, false, true))
    return {
        "auroc": interval(rng, float(roc_auc_score(truth, scores)), 0.01),
        "true_positives": interval(rng, at, 0.004),
        "curve": {"false": false.tolist(), "true": true.tolist()},
    }


def _confidence(rng: np.random.Generator) -> dict[str, list[float]]:
    forgotten = {"before": (9, 1.2), "after": (4, 1.6), "oracle": (4, 1.7)}
    return {**{state: _beta(rng, *shape, 162) for state, shape in forgotten.items()}, "test": _beta(rng, 4, 1.5, 468)}


def _beta(rng: np.random.Generator, a: float, b: float, count: int) -> list[float]:
    return [round(float(value), 4) for value in rng.beta(a, b, count)]


def _result(rng: np.random.Generator, name: str, best: float, method: str, gap: float) -> dict[str, Any]:
    accuracy = best - 0.35 * gap - (3 if method == "neighbours" else 0)
    figures = {
        "TA": interval(rng, accuracy, 0.5),
        "RA": interval(rng, accuracy + 4, 0.4),
        "FA": interval(rng, accuracy + gap, 0.9),
        "MIA": interval(rng, 50 + gap, 0.5),
        "Average Gap": interval(rng, gap, 0.02 + gap / 20) if gap else {"mean": 0.0, "half": 0.0, "values": [0.0] * 3},
        "by chance": interval(rng, 0.3, 0.02),
        "time": interval(rng, 0.02 if method.startswith("munkey") else 8, 0.002),
    }
    return {"data": name, "method": method, "figures": figures}
