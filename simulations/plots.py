"""Pictures of a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fedmunkey.simulations.deletions import CarriedOut

ACCURACY = "accuracy.png"
FORGOTTEN = "forgotten.png"


def plot_accuracy(document: dict[str, Any], path: Path) -> None:
    """Draw each hospital's test accuracy over the rounds, and where deletions happened."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    rounds = document["rounds"]
    for hospital in document["hospitals"]:
        found = [(event["number"], event["evaluation"].get(hospital["name"], {})) for event in rounds]
        axes.plot(*_accuracies(found), linewidth=1, alpha=0.7, label=hospital["name"])
    means = [(event["number"], event["mean"]) for event in rounds]
    axes.plot(*_accuracies(means), color="black", linewidth=2, label="mean")
    for deletion in document["deletions"]:
        axes.axvline(deletion["round"] - 0.5, color="firebrick", linestyle="--", linewidth=1)
        label = f" {deletion['plan']}"
        axes.text(deletion["round"] - 0.5, axes.get_ylim()[0], label, rotation=90, va="bottom", ha="right", size=8)
    axes.set(xlabel="round", ylabel="test accuracy (%)", title="Test accuracy at each hospital")
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=120)


def plot_forgotten(deletions: Sequence[CarriedOut], path: Path) -> None:
    """Draw how sure the model was of forgotten records' labels just before and just after each deletion."""
    figure = Figure(figsize=(4 * max(len(deletions), 1), 3.5), layout="constrained")
    bins = np.linspace(0, 1, 21).tolist()
    grid = figure.subplots(1, max(len(deletions), 1), squeeze=False)[0]
    for axes, done in zip(grid, deletions, strict=False):
        axes.hist(done.before.forget_confidence, bins=bins, alpha=0.6, label="before")
        axes.hist(done.after.forget_confidence, bins=bins, alpha=0.6, label="after")
        axes.set(title=str(done.deletion.planned), xlabel="probability of the record's label", ylabel="records")
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _accuracies(rounds: Sequence[tuple[int, dict[str, Any]]]) -> tuple[list[int], list[float]]:
    """Return the rounds after which there was a test accuracy, and that accuracy in percent."""
    known = [(number, found["test-accuracy"]) for number, found in rounds if found.get("test-accuracy") is not None]
    return [number for number, _ in known], [100 * value for _, value in known]
