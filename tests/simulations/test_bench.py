from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fedmunkey.client.key_store import KeyStore, StoreDescription
from fedmunkey.client.learning.bank import Bank
from fedmunkey.client.learning.training import Trained, train
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.recipe import FEW_STEPS, Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs.command_line import application
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.bench import noisy_training
from fedmunkey.simulations.bench.command import bench
from fedmunkey.simulations.bench.document import closing_lines, result_table
from fedmunkey.simulations.bench.figure import Bench, Bound, Figure, Group, Measured, at_least, at_most, below
from fedmunkey.simulations.bench.memory import peak_memory, resident_memory
from fedmunkey.simulations.bench.registry import GROUPS, choose
from fedmunkey.simulations.bench.synthetic_store import SITE, SyntheticStore
from fedmunkey.simulations.bench.timing import alternate, ratio
from fedmunkey.simulations.programs.machine import torch_threads
from fedmunkey.simulations.programs.progress import Progress

FIGURE = Figure("speed", "how fast it is", "x", at_most(1.3))
SECRET = FederationSecret(bytes(range(32)))
FIGURES = {group.name: [figure.name for figure in group.figures] for group in GROUPS}
CHILD_PROCESSES = ["site-memory"]
SERVICE = ["deletion-service"]
STRANGERS = ["strangers"]
MEMBERS = ["members"]
CONSOLE = ["console"]
HERE = [name for name in FIGURES if name not in CHILD_PROCESSES + SERVICE + STRANGERS + MEMBERS + CONSOLE]


def run(*arguments: str) -> str:
    app = application("")
    app.command()(bench)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def groups(names: list[str]) -> list[str]:
    return [word for name in names for word in ("--only", name)]


def measured(names: list[str], folder: Path) -> dict[str, float]:
    printed = run("--quick", "--json", *groups(names), "--output", str(folder / "bench.json"))
    return {figure["name"]: figure["measured"] for figure in json.loads(printed)["figures"]}


def measure(value: float, *, judged: bool = True) -> Measured:
    return Measured(FIGURE, value, judged=judged)


@pytest.mark.parametrize(
    ("target", "words", "met"),
    [
        (at_most(2.0), "<= 2", [True, True, False]),
        (at_least(2.0), ">= 2", [False, True, True]),
        (below(2.0), "< 2", [True, False, False]),
    ],
)
def test_target_compares_with_its_bound_and_is_written_so(target: Bound, words: str, met: list[bool]) -> None:
    assert [target.met_by(value) for value in (1.9, 2.0, 2.1)] == met
    assert not target.met_by(math.nan)
    assert str(target) == words
    assert (str(at_most(1e-5)), str(at_least(1000.0))) == ("<= 1e-05", ">= 1,000")


def test_only_a_judged_value_meets_or_misses_a_target() -> None:
    assert measure(1.2).met is True
    assert measure(1.4).met is False
    assert measure(1.2, judged=False).met is None
    assert Measured(Figure("size", "how large it is", "bytes"), 5.0).met is None
    missing = Measured.missing(FIGURE, "no such machine")
    found = missing.to_json()
    assert missing.met is found["measured"] is found["met"] is None
    assert found["note"] == "not measured: no such machine"


def test_table_and_closing_lines_say_what_met_or_missed_its_target_and_what_was_not_measured() -> None:
    found = [measure(1.2), measure(1.4), Measured.missing(FIGURE, "no such machine")]

    table = result_table(found, quick=False)

    assert closing_lines(found) == ["not measured: no such machine: speed", "1 of 2 targets met", "missed: speed"]
    assert list(table.columns[1].cells) == ["1.2", "1.4", "-"]
    assert list(table.columns[-1].cells) == ["yes", "no", "-"]


def test_groups_are_chosen_by_name_in_their_own_order_and_no_figure_is_there_twice() -> None:
    assert [group.name for group in choose(["serving", "packed-ensemble"])] == ["packed-ensemble", "serving"]
    assert choose([]) == list(GROUPS)
    with pytest.raises(InvalidSetting, match="did you mean serving"):
        choose(["servin"])
    names = [figure.name for group in GROUPS for figure in group.figures]
    assert len(set(names)) == len(names)


def test_group_that_cannot_be_measured_says_so_of_every_figure() -> None:
    def measure_nothing(_: Bench) -> Iterator[Measured]:
        raise AssertionError

    found = Group("fast", (FIGURE,), measure_nothing, lambda: "no such machine").run(Bench(Progress.quiet()))

    assert [result.note for result in found] == ["not measured: no such machine"]


def test_actions_take_turns_every_other_turn_backwards_and_are_compared_turn_by_turn() -> None:
    seen: list[str] = []

    seconds = alternate([lambda: seen.append("a"), lambda: seen.append("b")], 2)
    found = ratio(np.array([[2.0, 1.0], [30.0, 10.0], [400.0, 100.0]]))

    assert "".join(seen) == "ab" + "ab" + "ba"
    assert seconds.shape == (2, 2)
    assert (found.low, found.median, found.high) == (2.5, 3.0, 3.5)


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1

    assert torch.get_num_threads() == before


def test_peak_memory_includes_what_was_given_back() -> None:
    size = 64 * 2**20
    before = resident_memory()
    block = np.ones(size, dtype=np.uint8)
    del block

    assert peak_memory() >= before + size // 2


def test_synthetic_store_reads_as_an_enrolled_one(tmp_path: Path) -> None:
    description = StoreDescription(
        SITE, "synthetic", 8, ImagePath.FROZEN, (2, 3), 5, 12, Guarantee.EMPIRICAL, 3.0, 1e-5
    )
    SyntheticStore(description, records=50, subjects=10).write(tmp_path / "store.sqlite", SECRET)

    with KeyStore.open(tmp_path / "store.sqlite") as store:
        entries, labels = store.records.read_entries(Split.TRAIN)
        keys = store.records.read_keys(entries)
        lists = store.records.read_neighbours(entries, entries)
        assert len(labels) == 50
        assert store.records.read_inputs(entries).shape == (50, 2, 3)
        assert store.records.read_tokens(entries).steps.tolist() == [1] * 50
        assert not len(store.records.read_unlisted())
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(50))
    assert lists.lengths.tolist() == [12] * 50
    assert not (lists.indices == torch.arange(50)[:, None]).any()


def test_quick_figures_have_the_structure_of_the_document(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"

    run("--quick", *groups(HERE), "--output", str(output))

    document = json.loads(output.read_text())
    figures = {figure["name"]: figure for figure in document["figures"]}
    assert list(figures) == [name for group in HERE for name in FIGURES[group]]
    assert all({"name", "measured", "unit", "target", "met"} <= set(figure) for figure in figures.values())
    # A service under load has no errors, which is a figure as well.
    assert all(figure["measured"] >= 0 for figure in figures.values())
    assert document["quick"]
    assert document["machine"]["cores"] >= 1
    # Small sizes are not those of the targets.
    assert all(figure["met"] is None for figure in figures.values())


def test_noisy_training_is_compared_with_as_many_steps_on_all_records_and_the_same_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: dict[str, list[int]] = {"noisy": [], "plain": []}
    moved: dict[str, set[str]] = {}

    def changed(model: Munkey, before: dict[str, torch.Tensor]) -> set[str]:
        return {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}

    def watched(model: Munkey, bank: Bank, recipe: Recipe, **options: Any) -> Trained:
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        found = train(model, bank, recipe, after_step=lambda _, total: steps["noisy"].append(total), **options)
        assert recipe.settings.guarantee is Guarantee.CERTIFIED
        moved["noisy"] = changed(model, before)
        return found

    def plainly(model: Munkey, bank: Bank, settings: Settings) -> None:
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        forward = model.linear.register_forward_hook(lambda _, given, __: steps["plain"].append(len(given[0])))
        train_plainly(model, bank, settings)
        forward.remove()
        moved["plain"] = changed(model, before)

    train_plainly = noisy_training._train_plainly
    monkeypatch.setattr(noisy_training, "train", watched)
    monkeypatch.setattr(noisy_training, "_train_plainly", plainly)

    results = noisy_training.GROUP.run(Bench(Progress.quiet(), quick=True))

    assert set(steps["noisy"]) == {FEW_STEPS}
    # All of the 100 records in each step.
    assert set(steps["plain"]) == {100}
    assert len(steps["noisy"]) == len(steps["plain"])
    assert moved["noisy"] == moved["plain"] == {"linear.weight", "linear.bias"}
    assert all(result.value > 0 for result in results)


@pytest.mark.processes
def test_memory_is_that_of_a_child_process_and_a_service_is_measured_from_outside(tmp_path: Path) -> None:
    figures = measured([*SERVICE, *CHILD_PROCESSES], tmp_path)

    assert set(figures) == {*FIGURES["site-memory"], *FIGURES["deletion-service"]}
    assert figures["site-memory-peak"] > figures["list-memory"] > 0
    # How good they are is for the benchmark to say: this machine may be busy.
    assert all(math.isfinite(value) for value in figures.values())
    assert figures["service-errors"] >= 0


@pytest.mark.processes
def test_strangers_make_no_process_grow(tmp_path: Path) -> None:
    figures = measured(STRANGERS, tmp_path)

    assert set(figures) == set(FIGURES["strangers"])
    for port in ("superlink", "joining", "deletions"):
        assert figures[f"strangers-{port}-memory"] < 20
        # How much slower deletions are depends on the machine.
        assert math.isfinite(figures[f"strangers-{port}-slower"])


@pytest.mark.processes
def test_members_answer_over_mutual_tls_and_through_restarts(tmp_path: Path) -> None:
    figures = measured(MEMBERS, tmp_path)

    assert set(figures) == set(FIGURES["members"])
    assert all(value > 0 for value in figures.values())


@pytest.mark.processes
def test_every_screen_of_every_console_is_asked_for(tmp_path: Path) -> None:
    figures = measured(CONSOLE, tmp_path)

    assert set(figures) == set(FIGURES["console"])
    # How fast they are is for the benchmark to say: this machine may be busy.
    assert all(value > 0 for value in figures.values())


def test_list_names_every_figure_and_nothing_is_measured_for_an_output_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    printed = run("--list")

    assert all(figure.name in printed for group in GROUPS for figure in group.figures)
    with pytest.raises(InvalidSetting, match="must be a file in a folder that is there"):
        run("--output", str(tmp_path / "nowhere" / "bench.json"))
    assert not list(tmp_path.iterdir())
