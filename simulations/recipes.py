"""The search for the `empirical` recipe that forgets best: `munkey-sim recipes` makes the table in docs/recipes.md.

Every recipe is tried on every data set and seed as `munkey-sim guarantees` tries a guarantee, and judged by its Average
Gap to its own oracle beside the gap between two oracles.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from common.errors import InvalidDataset, InvalidSetting
from common.guarantees import Guarantee
from common.settings import Settings
from common.settings_text import ConfigValue
from simulations.encoded_set import load_encoded
from simulations.guarantee_table import Findings
from simulations.guarantees import Question, compare
from simulations.machine import usable_cores
from simulations.progress import Progress

_LINEAR: dict[str, ConfigValue] = {"depth": 0}
_TRANSFORMER: dict[str, ConfigValue] = {"depth": 1, "image-dropout": 0.6, "memory-dropout": 0.3, "local-steps": 3}
_LONG: dict[str, ConfigValue] = {"depth": 2, "local-steps": 12}

RECIPES: Mapping[str, dict[str, ConfigValue]] = {
    "linear, as by default": _LINEAR,
    "linear, 1 step a round": {**_LINEAR, "local-steps": 1},
    "linear, 12 steps a round": {**_LINEAR, "local-steps": 12},
    "linear, rate 8": {**_LINEAR, "clipped-learning-rate": 8.0},
    "linear, rate 32": {**_LINEAR, "clipped-learning-rate": 32.0},
    "linear, a tenth of the records in a step": {**_LINEAR, "empirical-sampling-rate": 0.1},
    "linear, all records in a step": {**_LINEAR, "empirical-sampling-rate": 1.0},
    "linear, clipped at 0.5, rate 32": {**_LINEAR, "clipping-norm": 0.5, "clipped-learning-rate": 32.0},
    "linear, not clipped": {**_LINEAR, "clipping-norm": 1000.0},
    "linear, no label smoothing": {**_LINEAR, "label-smoothing": 0.0},
    "linear, label smoothing 0.3": {**_LINEAR, "label-smoothing": 0.3},
    "transformer, 1 block": _TRANSFORMER,
    "transformer, own tokens": {**_TRANSFORMER, "exemplar-tokens": "own"},
    "transformer, own entry never": {**_TRANSFORMER, "self-retrieval": 0.0},
    "transformer, own entry always": {**_TRANSFORMER, "self-retrieval": 1.0},
    "transformer, image never dropped": {**_TRANSFORMER, "image-dropout": 0.0},
    "transformer, 8 wide": {**_TRANSFORMER, "width": 8},
    "transformer, 2 blocks, 12 steps, as published": {**_LONG, "image-dropout": 0.4, "memory-dropout": 0.4},
    "transformer on patches, 12 steps": {**_LONG, "image-path": "patches", "trained-weights": "all"},
}
"""What is tried, by name; each differs from the defaults as it says."""


def recipes(
    data: Annotated[list[Path], typer.Option(help="A MedMNIST-layout .npz. Repeatable.")],
    encoder: Annotated[str, typer.Option(help="The frozen encoder.")],
    weights: Annotated[Path, typer.Option(help="Its weights.")],
    hospitals: Annotated[int, typer.Option(min=1, help="How many hospitals.")] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="How often each recipe is tried on each data set.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Only the recipe of this name. Repeatable.")] = None,
) -> None:
    """Try recipes of empirical training, and print as Markdown how well each forgets.

    Example: munkey-sim recipes --data a.npz --data b.npz --encoder squeezenet1_0 --weights squeezenet1_0.pth
    """
    missing = next((path for path in data if not path.is_file()), None)
    if missing is not None:
        raise InvalidDataset(f"{missing}: there is no such file; check the path of the data set")
    unknown = next((name for name in only or () if name not in RECIPES), None)
    if unknown is not None:
        raise InvalidSetting(f"--only {unknown}: is no recipe; choose from {'; '.join(RECIPES)}")
    tried = {name: changes for name, changes in RECIPES.items() if not only or name in only}
    with Progress(Console(stderr=True)) as progress:
        for line in _table(data, tried, encoder, weights, hospitals, seeds, progress):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


def _table(
    data: list[Path],
    tried: Mapping[str, dict[str, ConfigValue]],
    encoder: str,
    weights: Path,
    hospitals: int,
    seeds: int,
    progress: Progress,
) -> Iterator[str]:
    """Yield the table's lines as they are found."""
    asked: dict[str, ConfigValue] = {"encoder": encoder, "encoder-weights": str(weights)}
    sets = [load_encoded(str(path), asked, None, progress) for path in data]
    names = [one.name for one in sets]
    yield f"| recipe | {' | '.join(f'{name}: TA | gap (by chance)' for name in names)} |"
    yield f"| --- |{' ---: | ---: |' * len(names)}"
    with progress.counting("trying recipes", len(tried) * len(sets) * seeds) as count:
        for name, changes in tried.items():
            cells = []
            for one in sets:
                changed = Settings.parse({**one.settings.to_config(), **changes})
                question = Question(one.images, changed, hospitals, np.inf, 0.0, 0.1)
                trials = compare(
                    question,
                    [Guarantee.EMPIRICAL],
                    range(seeds),
                    processes=usable_cores(),
                    done=lambda _: count(1),
                )
                found = Findings(trials)
                shown = (found.interval(Guarantee.EMPIRICAL, column) for column in ("TA %", "Average Gap", "by chance"))
                accuracy, gap, chance = (interval.mean for interval in shown)
                cells.append(f"{accuracy:.1f} | {gap:.2f} ({chance:.2f})")
            yield f"| {name} | {' | '.join(cells)} |"
