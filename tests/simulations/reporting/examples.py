"""Reports with numbers from a seeded generator, of the size that real ones have."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from fedmunkey.common.privacy.guarantees import Guarantee

SEEDS = [0, 1, 2]
STATES = {"before": 1.5, "after": 0.12, "oracle": 0.05}
"""How far members' scores lie above others', in standard deviations."""


def audit() -> dict[str, Any]:
    """Return the report of an audit."""
    rng = np.random.default_rng(7)
    after = interval(rng, 51.4, 0.4)
    return {
        **_shared("audit", "munkey-sim audit --data breastmnist.npz --guarantee certified --epsilon 3 --seeds 3"),
        "data": data("breastmnist", 780),
        "question": {
            "hospitals": 5,
            "alpha": "1.0",
            "guarantee": "certified",
            "method": "munkey",
            "forget_set": {"name": "random", "title": "records drawn at random"},
            "forget": 0.1,
            "permanent": 0.3,
            "forgotten": 54,
            "deletions": 6,
            "canaries": 5,
            "seeds": list(SEEDS),
            "shadows": 8,
        },
        "headline": {
            "passed": False,
            "sentence": "Six of seven checks passed: after deletion the federation answers as its oracle does, but the "
            "shared weights alone reproduce one canary's wrong label.",
        },
        "guarantee": {
            "name": "certified",
            "remains": Guarantee.CERTIFIED.remains,
            "epsilon": 3.0,
            "delta": 1.8e-4,
            "identical": None,
        },
        "verdicts": _verdicts(after["mean"]),
        "measures": _measures(rng, after),
        "attacks": [_attack(rng, number) for number in range(4)],
        "confidence": _confidence(rng),
        "rounds": [
            {"round": number, "test_accuracy": interval(rng, 84 - 14 * 0.75**number, 1.0)} for number in range(1, 13)
        ],
        "marks": [{"round": 5, "label": "records 5%"}, {"round": 9, "label": "10 subjects"}],
        "after_deletions": [
            {
                "deletion": number,
                "test_accuracy": interval(rng, 83.5, 0.5),
                "forget_accuracy": interval(rng, 81 + number % 2, 1.5),
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
    rng = np.random.default_rng(11)
    names = {"breastmnist": 83.0, "pneumoniamnist": 88.0, "bccd": 97.0}
    return {
        **_shared("comparison", "munkey-sim compare --data breastmnist --data pneumoniamnist --data bccd --seeds 3"),
        "question": {
            "hospitals": 5,
            "alpha": "inf",
            "forget": 0.1,
            "permanent": 0.3,
            "canaries": 5,
            "budget": 2,
            "seeds": list(SEEDS),
            "forget_set": {"name": "random", "title": "records drawn at random"},
        },
        "headline": {
            "passed": True,
            "sentence": "MUNKEY under certified has the smallest Average Gap of all methods that do not retrain, on "
            "two of three data sets.",
        },
        "columns": copy.deepcopy(_COLUMNS),
        "methods": [_method(*row) for row in _METHODS],
        "results": [
            _result(rng, name, best, method, gap) for name, best in names.items() for method, gap in _GAPS.items()
        ],
        "sets": [data(name, size) for name, size in zip(names, (780, 5856, 10_232), strict=True)],
        "findings": [
            "Win: key deletion is the only method that needs no images and stays within chance of its oracle.",
            "Loss: on bccd fine-tuning has a smaller Average Gap than MUNKEY, for 400 times the time.",
        ],
        "finished": 9,
        "total": 9,
    }


def run() -> dict[str, Any]:
    """Return the report of a run: three hospitals, the second of which leaves."""
    rng = np.random.default_rng(5)
    names, records = ["hospital-1", "hospital-2", "hospital-3"], {"train": 449, "val": 30, "test": 360}
    shared = _shared("run", "munkey-sim run --guarantee certified --delete records:5%@3 --delete site:2@5")
    return {
        **shared,
        "limits": shared["limits"][-1:],
        "data": "digits",
        "hospitals": [
            {"name": name, "records": records, "subjects": 449, "classes": {"zero": 40, "one": 409}} for name in names
        ],
        "alpha": None,
        "seed": 0,
        "headline": {"sentence": "A deletion here is certified: at most what (epsilon, delta) allows."},
        "guarantee": {
            "name": "certified",
            "remains": Guarantee.CERTIFIED.remains,
            "permanent": 0.0,
            "privacy_loss": {"epsilon": 2.9, "delta": 2e-5, "records": 1},
        },
        "rounds": [_round(rng, number, names) for number in range(1, 7)],
        "deletions": [
            _deletion("records:5%@3", 3, 67, {"epsilon": 2.901, "delta": 2e-5, "records": 1}),
            _deletion("site:2@5", 5, 420, {"epsilon": 1.5, "delta": 2e-5, "records": 1}),
        ],
        "final": {
            "test_accuracy": 95.25,
            "test_macro_f1": 95.0,
            "per_hospital": {"hospital-1": 95.5, "hospital-2": None, "hospital-3": 95.0},
            "measurement": _figures(95.25, 97.0, 94.0, 51.0),
            "average_gap": 0.75,
        },
        "confidence": _confidence(rng),
        "baselines": {
            "oracle": {**_baseline(30.0, 96.0), "measurement": _figures(96.0, 97.5, 94.5, 50.0)},
            "neighbours": _baseline(0.5, 93.0),
        },
        "bytes": {"weights_down": 80_000_000, "weights_up": 40_000_000},
        "seconds": {"preparation": 1.5, "training": 20.0},
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
        "seconds": {"site": 0.01, "request": 0.02, "slowest_request": 0.06},
        "times_faster": {"site": 3000.0, "request": 1500.0},
        "before": _figures(95.0, 97.0, 99.0, 68.0),
        "after": _figures(95.0, 97.0, 94.0, 52.0),
    }


def _figures(*four: float) -> dict[str, Any]:
    names = ("test_accuracy", "retain_accuracy", "forget_accuracy", "membership")
    others = {"test_macro_f1": 95.0, "membership_tpr": 2.5, "weights_membership": 50.5, "canary_recall": None}
    return {**dict(zip(names, four, strict=True)), **others}


def _baseline(seconds: float, accuracy: float) -> dict[str, Any]:
    known = dict.fromkeys(("test_accuracy", "test_macro_f1"), accuracy)
    return {"seconds": seconds, **known, "per_hospital": {}, "measurement": None}


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


_COLUMNS = [
    {"name": "TA", "title": "Test accuracy", "unit": "%", "better": "higher", "digits": 1},
    {"name": "RA", "title": "Accuracy on retained records", "unit": "%", "better": "oracle", "digits": 1},
    {"name": "FA", "title": "Accuracy on forgotten records", "unit": "%", "better": "oracle", "digits": 1},
    {"name": "MIA", "title": "AUROC of membership inference", "unit": "%", "better": "oracle", "digits": 1},
    {"name": "Average Gap", "title": "Mean difference to the oracle", "unit": "", "better": "lower", "digits": 2},
    {"name": "by chance", "title": "The same between two oracles", "unit": "", "better": "none", "digits": 2},
    {"name": "time", "title": "Time to forget", "unit": "s", "better": "lower", "digits": 2},
]

_METHODS = [
    ("munkey", "MUNKEY, key deletion", "MUNKEY", "Laguna et al. 2026, arXiv 2603.15033", False, False),
    ("munkey-certified", "MUNKEY, certified", "MUNKEY", "Laguna et al. 2026, arXiv 2603.15033", False, False),
    ("munkey-retrained", "MUNKEY retrained", "MUNKEY", "Laguna et al. 2026, arXiv 2603.15033", True, True),
    ("nothing", "plain ViT, nothing done", "plain ViT", "", False, False),
    ("fine-tuning", "fine-tuning", "plain ViT", "Golatkar et al. 2020, arXiv 1911.04933", True, False),
    ("gradient-ascent", "gradient ascent", "plain ViT", "Thudi et al. 2022, arXiv 2109.13398", True, False),
    ("negative-gradient", "NegGrad+", "plain ViT", "Kurmanji et al. 2023, arXiv 2302.09880", True, False),
    ("scrub", "SCRUB", "plain ViT", "Kurmanji et al. 2023, arXiv 2302.09880", True, False),
    ("salun", "SalUn", "plain ViT", "Fan et al. 2024, arXiv 2310.12508", True, False),
    ("random-labels", "random labels", "plain ViT", "Graves et al. 2021, arXiv 2010.10981", True, False),
    ("federaser", "FedEraser", "plain ViT", "Liu et al. 2021, IWQoS", True, False),
    ("retrained", "plain ViT retrained", "plain ViT", "", True, True),
    ("neighbours", "nearest neighbours", "neighbours", "", False, False),
]

_GAPS = {
    "munkey": 0.9,
    "munkey-certified": 0.4,
    "munkey-retrained": 0.3,
    "nothing": 10.8,
    "fine-tuning": 7.2,
    "gradient-ascent": 8.3,
    "negative-gradient": 6.4,
    "scrub": 5.1,
    "salun": 5.5,
    "random-labels": 7.7,
    "federaser": 2.9,
    "retrained": 0.8,
    "neighbours": 0.0,
}


def _shared(kind: str, command: str) -> dict[str, Any]:
    return {
        "format": 1,
        "kind": kind,
        "written": "2030-05-17T12:00:00+00:00",
        "command": command,
        "versions": {"python": "3.11.9", "fedmunkey": "0.1.0", "torch": "2.13.0"},
        "machine": {"processor": "a processor", "cores": 2, "memory_gib": 16, "accelerator": "none"},
        "settings": {"seed": 0, "num-rounds": 12, "encoder": "squeezenet1_0", "epsilon": "inf", "image-vote": True},
        "limits": [
            "Attacks that are stronger than these, or that know more, may find more.",
            "Copies outside of the key store, such as original images and backups, are not looked at.",
            "Hospitals are simulated: data of one source were divided among them.",
        ],
    }


def _verdicts(membership: float) -> list[dict[str, Any]]:
    rows = [
        ("membership", "Membership cannot be told", True, "Forgotten records are as hard to find as at the oracle."),
        ("rare", "No record stands out", True, "At 1% false positives no more records are found than by chance."),
        ("accuracy", "Accuracy is kept", True, "Test accuracy is within chance of the oracle's."),
        ("difference", "Before and after", True, "Who sees both models cannot tell who left."),
        ("canaries", "Canaries are forgotten", False, "One of five wrong labels is still reproduced."),
    ]
    figures = [
        {"MIA after, %": membership, "MIA oracle, %": 50.6},
        {"found, %": 1.3, "by chance, %": 1.0},
        {"gap, points": 0.62, "by chance, points": 1.07},
        {"AUROC": 0.514},
        {"canaries": 5, "reproduced": 1, "reproduced by the oracle": None},
    ]
    return [
        {"name": name, "title": title, "passed": passed, "sentence": sentence, "figures": found}
        for (name, title, passed, sentence), found in zip(rows, figures, strict=True)
    ]


def _measures(rng: np.random.Generator, after: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        ("TA", "accuracy on test records", 84.1, 83.4, 83.1),
        ("RA", "accuracy on retained records", 88.2, 87.9, 88.4),
        ("FA", "accuracy on forgotten records", 96.3, 82.7, 81.9),
        ("MIA", "AUROC of membership inference", 68.0, 51.4, 50.6),
        ("TPR at 1% FPR", "forgotten records found at 1% false positives", 9.2, 1.3, 1.1),
        ("Weights only", "AUROC with the memory bank removed", 58.0, 51.9, 50.3),
        ("Canary recall", "wrong labels that are reproduced", 80.0, 6.7, 0.0),
    ]
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


def _attack(rng: np.random.Generator, number: int) -> dict[str, Any]:
    title, question, paper = [
        ("confidence", "Is it surer of records that it learned from?", "Yeom et al. 2018, arXiv 1709.01604"),
        ("LiRA", "Is it as sure as models are that learned from the record?", "Carlini et al. 2022, arXiv 2112.03570"),
        ("before and after", "Which answers changed when records were deleted?", "Chen et al. 2021, arXiv 2005.02205"),
        ("weights only", "What do the shared weights know without the bank?", ""),
    ][number]
    states = {state: _attacked(rng, shift) for state, shift in STATES.items()}
    name = title.lower().replace(" ", "-")
    return {
        "name": name,
        "title": title,
        "question": question,
        "paper": paper,
        "judged": number != 2,
        "states": states,
    }


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


def _method(name: str, title: str, family: str, paper: str, needs_data: bool, retrains: bool) -> dict[str, Any]:
    return {
        "name": name,
        "title": title,
        "family": family,
        "paper": paper,
        "needs_data": needs_data,
        "retrains": retrains,
    }


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
