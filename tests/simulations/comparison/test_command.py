"""`munkey-sim compare` as a person uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.comparison import jobs
from fedmunkey.simulations.comparison.jobs import Job, Search
from fedmunkey.simulations.comparison.presets import PRESETS
from fedmunkey.simulations.federation import encoded_set
from fedmunkey.simulations.reporting.document import validate
from tests.simulations.conftest import MunkeySim

QUICK = ["--hospitals", "2", "--seeds", "2", "--permanent", "50%", "--forget", "20%", "--budget", "1", "--tries", "1"]
SETTINGS = ["image-path=frozen", "num-rounds=2", "local-epochs=1", "random-features=50", "exemplar-size=8", "seed=7"]
METHODS = ["--method", "munkey-exact", "--method", "nothing", "--method", "fine-tuning"]


@pytest.fixture
def cells(tasks_here: Callable[[ModuleType], list[Job]]) -> list[Job]:
    """Collect what is run, and run it in this process."""
    return tasks_here(jobs)


def described(cells: list[Job]) -> list[tuple[str, tuple[str, ...], int]]:
    """Return each cell's data set, methods and seed, and forget the cells."""
    found = sorted((job.contest.label, tuple(method.name for method in job.methods), job.seed) for job in cells)
    cells.clear()
    return found


@pytest.fixture
def run(munkey_sim: MunkeySim, few_npz: Path, tmp_path: Path) -> MunkeySim:
    """Run `munkey-sim compare` on few digits."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    place = ["--data", str(few_npz), "--output", str(tmp_path / "comparison")]
    return lambda *words: munkey_sim("compare", *place, *QUICK, *settings, *words)


@pytest.fixture
def refused(run: MunkeySim, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run it with words that must be refused before anything is computed; return the one line that says why."""
    monkeypatch.setattr(encoded_set, "encode_all", None)
    monkeypatch.setattr(jobs, "run_tasks", None)

    def refused(*words: str) -> str:
        code, out, err = run(*words)
        (line,) = err.splitlines()
        assert (code, out) == (EXIT_CODE, "")
        return line

    return refused


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    """Return a report without what a clock or the command line says."""
    kept = {name: value for name, value in document.items() if name not in ("written", "command")}
    times = {column["name"] for column in document["columns"] if column["unit"] == "s"}
    kept["results"] = [
        {**row, "figures": {name: found for name, found in row["figures"].items() if name not in times}}
        for row in document["results"]
    ]
    return kept


@pytest.mark.usefixtures("cells")
def test_table_findings_and_report_are_made(run: MunkeySim, tmp_path: Path) -> None:
    code, out, err = run(*METHODS)

    assert code == 0, err
    assert "MUNKEY, exact" in out
    assert "few: the most accurate method is" in out
    assert out.splitlines()[-1] == f"report: {tmp_path / 'comparison' / 'report.html'}"
    assert "comparing" in err
    document = json.loads((tmp_path / "comparison" / "report.json").read_text())
    validate(document)
    assert document["command"].startswith("munkey-sim compare --data ")
    assert (document["finished"], document["total"]) == (4, 4)
    (exact,) = (row for row in document["results"] if row["method"] == "munkey-exact")
    assert exact["figures"]["Average Gap"]["values"] == [0, 0]


def test_finished_cells_are_not_run_again(run: MunkeySim, cells: list[Job], tmp_path: Path) -> None:
    run("--seeds", "1", *METHODS)
    assert described(cells) == [("few", ("munkey-exact",), 7), ("few", ("nothing", "fine-tuning"), 7)]

    run(*METHODS)

    assert {seed for _, _, seed in described(cells)} == {8}
    kept = sorted((tmp_path / "comparison" / "cells").iterdir())
    assert len(kept) == 4
    kept[0].unlink()
    run(*METHODS)
    assert len(cells) == 1


@pytest.mark.usefixtures("cells")
def test_json_is_the_document_alone_and_the_same_for_the_same_seeds_apart_from_times(
    run: MunkeySim, tmp_path: Path
) -> None:
    first, second = (run("--json", *METHODS, "--output", str(tmp_path / name)) for name in ("first", "second"))

    assert (first[0], first[2]) == (0, "")
    assert json.loads(first[1]) == json.loads((tmp_path / "first" / "report.json").read_text())
    assert without_times(json.loads(first[1])) == without_times(json.loads(second[1]))


def test_quick_takes_two_seeds_of_the_first_data_set_and_a_method_can_be_left_out(
    run: MunkeySim, cells: list[Job], few_npz: Path
) -> None:
    methods = ["--method", "nothing", "--method", "fine-tuning", "--without", "fine-tuning"]
    run("--quick", "--seeds", "5", "--data", str(few_npz.with_name("unread.npz")), *methods)

    assert described(cells) == [("few", ("nothing",), 7), ("few", ("nothing",), 8)]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--method", "magic"], "--method magic: is unknown; choose from munkey-exact"),
        (["--without", "magic"], "--without magic: is unknown; choose from munkey-exact"),
        (["--method", "ssd", "--without", "ssd"], "--without ssd: leaves no method; leave out fewer"),
        (["--preset", "magic"], "--preset magic: is unknown; choose from methods, guarantees, recipes, munkey-paper"),
        (["--preset", "guarantees", "--method", "ssd"], "--method ssd: is unknown; choose from munkey-exact, munkey-"),
        (
            ["--preset", "recipes", "--method", "sourdough"],
            "is unknown; choose from transformer, as by default; linear",
        ),
        (["--forget-set", "magic"], "--forget-set magic: is unknown; choose from random, subjects, canaries, site"),
        (["--set", "guarantee=exact"], "guarantee = exact: all are compared; choose with --method"),
        (["--epsilon", "1", "--epsilon", "2"], "--epsilon is given 2 times for 1 data sets; give it once for each"),
        (["--forget", "some"], "'some' is not a share"),
        (["--forget", "101%"], "101% is out of range; give from 0% to 100%"),
        (["--permanent", "-1%"], "-1% is out of range; give from 0% to 100%"),
        (["--epsilon", "0"], "epsilon = 0"),
        (["--set", "num-classes=3"], "num-classes = 3: comes from the data set; leave it out"),
        (["--set", "num-round=3"], "num-round: did you mean num-rounds?"),
        (["--hospitals", "0"], "--hospitals"),
        (["--seeds", "0"], "--seeds"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_computed(
    refused: Callable[..., str], words: list[str], reason: str
) -> None:
    assert reason in refused(*words)


def test_output_that_is_a_file_is_refused(refused: Callable[..., str], few_npz: Path) -> None:
    assert f"--output {few_npz}: {few_npz} is a file; give a folder" in refused("--output", str(few_npz))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--forget", "0%"], "0 of the records cannot be forgotten; give a share between 0 and 1"),
        (["--forget", "60%"], "may be; forget fewer, or make fewer permanent"),
        (["--hospitals", "500"], "500 hospitals"),
    ],
)
def test_nothing_that_cannot_be_asked_is_trained(
    run: MunkeySim, cells: list[Job], tmp_path: Path, words: list[str], reason: str
) -> None:
    code, out, err = run(*words, *METHODS)

    assert (code, out, cells) == (EXIT_CODE, "", [])
    assert err.splitlines()[-1].startswith("error: ")
    assert reason in err.splitlines()[-1]
    assert not (tmp_path / "comparison" / "report.json").exists()


def test_guarantees_are_compared_with_each_other(run: MunkeySim, cells: list[Job], tmp_path: Path) -> None:
    code, out, err = run("--preset", "guarantees", "--epsilon", "4", "--set", "depth=0", "--seeds", "1")

    assert code == 0, err
    assert "few: take " in out
    document = json.loads((tmp_path / "comparison" / "report.json").read_text())
    validate(document)
    figures = {row["method"]: row["figures"] for row in document["results"]}
    names = [f"munkey-{guarantee}" for guarantee in Guarantee]
    assert list(figures) == [*names, "certified-without-noise"]
    assert described(cells) == sorted(("few", (name,), 7) for name in figures)
    assert [figures[name]["same bytes"]["mean"] for name in figures] == [100, 0, 0, 0]
    epsilons = [figures[name]["epsilon"]["mean"] for name in figures]
    assert (epsilons[0], epsilons[2:]) == (0, [None, None])
    assert 3.2 < epsilons[1] <= 4
    assert document["question"]["canaries"] == 0
    # Unless it is asked for, delta follows from the 60 training records.
    assert document["settings"]["delta"] == pytest.approx(1 / 600)
    assert document["headline"]["passed"]


def test_recipes_differ_in_their_settings(run: MunkeySim, cells: list[Job], tmp_path: Path) -> None:
    names = ["transformer, own entry never", "transformer, 8 wide"]
    words = ["--preset", "recipes", "--seeds", "1", "--method", names[0], "--method", names[1]]
    code, out, err = run(*words)

    assert code == 0, err
    assert [methods for _, methods, _ in described(cells)] == [(name,) for name in sorted(names)]
    assert "few: the most accurate is transformer, " in out
    document = json.loads((tmp_path / "comparison" / "report.json").read_text())
    assert [column["name"] for column in document["columns"]] == ["TA", "Average Gap", "by chance"]
    kept = [json.loads(path.read_text()) for path in sorted((tmp_path / "comparison" / "cells").iterdir())]
    found = {cell["cell"]["methods"][0]: cell["cell"]["settings"] for cell in kept}
    assert (found[names[0]]["self-retrieval"], found[names[1]]["width"]) == (0, 8)
    run(*words)
    assert cells == []


@pytest.mark.parametrize("name", PRESETS["recipes"].methods)
def test_recipe_is_made_of_settings(name: str) -> None:
    assert Settings.parse(PRESETS["recipes"].changes[name]) != Settings() or name == "transformer, as by default"


def test_several_alphas_and_forget_sets_have_tables_of_their_own(
    run: MunkeySim, cells: list[Job], tmp_path: Path
) -> None:
    words = ["--alpha", "inf", "--alpha", "1", "--forget-set", "random", "--forget-set", "site", "--seeds", "1"]
    code, out, err = run("--method", "munkey-exact", "--method", "closed-form", *words)

    assert code == 0, err
    labels = [
        f"few, {what}, alpha = {alpha}" for what in ("random records", "a whole hospital") for alpha in ("inf", "1")
    ]
    assert {label for label, _, _ in described(cells)} == set(labels)
    assert all(f"{label}, one seed" in out for label in labels)
    document = json.loads((tmp_path / "comparison" / "report.json").read_text())
    validate(document)
    assert [one["name"] for one in document["sets"]] == labels
    assert (document["question"]["alpha"], document["question"]["forget_set"]["name"]) == ("inf, 1.0", "random, site")
    own = {
        row["data"]: row["figures"]["own mix"]["mean"] for row in document["results"] if row["method"] == "munkey-exact"
    }
    assert len(set(own.values())) == len(labels)


def test_searched_settings_are_used_and_stand_in_the_report_and_the_search_is_kept(
    run: MunkeySim, cells: list[Job], tmp_path: Path
) -> None:
    words = ["--method", "nothing-linear", "--method", "neg-grad-plus-linear", "--seeds", "1", "--tries", "3"]
    code, out, err = run(*words)

    assert code == 0, err
    assert "Settings chosen on validation data" in out
    document = json.loads((tmp_path / "comparison" / "report.json").read_text())
    validate(document)
    learning, forgetting = document["searched"]
    assert (learning["title"], forgetting["title"]) == ("linear, how it learns", "NegGrad+, linear")
    assert [one["settings"] for one in learning["tried"]][:2] == ["as published", "learning-rate = 0.0005"]
    assert [len(one["tried"]) for one in (learning, forgetting)] == [3, 3]
    assert all(sum(tried["chosen"] for tried in one["tried"]) == 1 for one in (learning, forgetting))
    search, cell = cells
    assert isinstance(search, Search)
    chosen = next(tried["settings"] for tried in forgetting["tried"] if tried["chosen"])
    method = cell.methods[1]
    assert chosen == "as published" or f"alpha = {vars(method)['alpha']:g}" in chosen
    cells.clear()
    run(*words)
    assert cells == []


def test_munkey_as_published_says_what_each_pathway_knows_beside_our_guarantees(
    run: MunkeySim, cells: list[Job], tmp_path: Path
) -> None:
    words = ["--preset", "munkey-paper", "--seeds", "1", "--set", "width=16", "--set", "num-rounds=2"]
    chosen = ["munkey-exact", "as published, ensemble", "as published, rank", "nothing"]
    code, out, err = run(*words, *(word for name in chosen for word in ("--method", name)), "--hospitals", "1")

    assert code == 0, err
    assert len(cells) == 4
    document = json.loads((tmp_path / "comparison" / "report.json").read_text())
    validate(document)
    figures = {row["method"]: row["figures"] for row in document["results"]}
    for name in chosen[1:3]:
        image, memory, score = (figures[name][one]["mean"] for one in ("image alone", "memory alone", "sensitivity"))
        assert score == pytest.approx((memory - image) / (memory + image))
        # A federation that is hardly trained votes as the nearest neighbours do.
        assert memory > 50
    assert figures["nothing"]["sensitivity"]["mean"] is None
    assert "sensitivity" in out


@pytest.mark.parametrize("name", [n for n in PRESETS["munkey-paper"].methods if "publish" in n or "ensemble" in n])
def test_published_recipe_is_made_of_settings(name: str) -> None:
    settings = Settings.parse(PRESETS["munkey-paper"].changes[name])

    assert (settings.neighbours, settings.image_vote, settings.depth) == (4, False, 2)
    assert Recipe.of(settings.replace(guarantee="empirical")).route.joint_tokens
