"""`munkey-sim` as a person uses it: what cannot be done is said in one line, before anything is written."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.common.model.checkpoints import Checkpoint, write_checkpoint
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.model_choice import choose_shape
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.common.settings.settings import Settings
from tests.simulations.conftest import MunkeySim

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(munkey_sim: MunkeySim, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MunkeySim:
    """Run `munkey-sim` with some words in an empty folder; return its exit code, stdout and stderr."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return munkey_sim


@pytest.fixture
def refused(run: MunkeySim) -> Callable[..., str]:
    """Run a simulation that must be refused; return the one line that says why."""

    def refused(*words: str) -> str:
        code, out, err = run("run", *words)
        assert code == EXIT_CODE
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("error: ")
        assert list(Path.cwd().iterdir()) == []
        return line

    return refused


def npz(path: Path, **changes: Any) -> Path:
    """Write a MedMNIST-layout file with some arrays changed, or left out where the change is None."""
    content: dict[str, Any] = {}
    for split, count in {"train": 12, "val": 2, "test": 4}.items():
        content[f"{split}_images"] = np.zeros((count, 8, 8), dtype=np.uint8)
        content[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % 2)[:, None]
    content |= changes
    np.savez(path, **{name: array for name, array in content.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--data", "digit"], "'digit'"),
        (["--data", "absent.npz"], "absent.npz"),
        (["--encoder", "squeezenet1_9"], "encoder = squeezenet1_9"),
        (["--set", "strategy=fedsgd"], "strategy = fedsgd"),
        (["--set", "num-round=3"], "num-round: did you mean num-rounds?"),
        (["--set", "width"], "'width'"),
        (["--set", "learning-rate=-1"], "learning-rate = -1"),
        (["--set", "width=30"], "width = 30"),
        (["--set", "guarantee=absolute"], "guarantee = absolute"),
        (["--guarantee", "absolute"], "'absolute'"),
        (["--guarantee", "exact", "--set", "exemplar-tokens=joint"], "exemplar-tokens = joint: guarantee = exact"),
        (["--epsilon", "0"], "epsilon = 0"),
        (["--permanent", "some"], "'some' is not a share; write for example 30%"),
        (["--permanent", "101%"], "101% is out of range; give from 0% to 100%"),
        (["--set", "patch-size=3"], "patch-size = 3"),
        (["--set", "encoder-size=many"], "encoder-size = many"),
        (["--rounds", "-1"], "num-rounds = -1"),
        (["--rounds", "two"], "'two'"),
        (["--seed", "-1"], "seed = -1"),
        (["--hospitals", "0"], "0"),
        (["--hospitals", "5000"], "5000 hospitals"),
        (["--alpha", "0"], "alpha = 0.0"),
        (["--baseline", "centralised"], "'centralised'"),
        (["--weights", "absent.pth"], "encoder-weights = "),
        (["--set", "initial-weights=absent.safetensors"], "guarantee = exact are solved for"),
        (["--guarantee", "empirical", "--set", "initial-weights=absent.safetensors"], "absent."),
        (["--delete", "records:5%"], "'records:5%'"),
        (["--delete", "patients:5@2"], "'patients:5@2'"),
        (["--delete", "site:6@2"], "names hospital 6, but there are 5"),
        (["--delete", "records:5@4", "--rounds", "3"], "there is no round 4"),
        (["--delete", "records:5@0"], "there is no round 0"),
        (
            ["--permanent", "0%", "--delete", "records:1348@2"],
            "1348 records, but only 1347 are left that",
        ),
        (
            ["--permanent", "30%", "--delete", "records:1000@2"],
            "only 943 are left that may be withdrawn; ask for",
        ),
        (["--permanent", "100%", "--delete", "records:1@2"], "records:1@2: asks for 1 records, but only 0 are left"),
        (["--delete", "subjects:1348@2"], "subjects:1348@2: asks for 1348 subjects"),
        (["--delete", "records:101%@2"], "101%"),
        (["--delete", "records:100%@2"], "records:100%@2"),
        (["--delete", "site:2@2", "--delete", "site:2@3"], "site:2@3"),
        (["--deletion-service", "nowhere"], "nowhere"),
        (["--deletion-service", "127.0.0.1:9440", "--delete", "site:2@2"], "plan of deletions"),
        (["--number", "3"], "--number"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(refused: Callable[..., str], words: list[str], named: str) -> None:
    assert named in refused(*words)


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"val_labels": None}, ["val_labels"]), ({"train_labels": np.zeros((11, 1), dtype=np.uint8)}, ["12", "11"])],
)
def test_file_that_cannot_be_used_is_named_with_its_fault(
    refused: Callable[..., str], tmp_path: Path, changes: dict[str, Any], named: list[str]
) -> None:
    broken, cut = npz(tmp_path / "set.npz", **changes), npz(tmp_path / "cut.npz")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])

    line = refused("--data", str(broken))

    assert all(word in line for word in [str(broken), *named])
    assert str(cut) in refused("--data", str(cut))


def test_encoder_weights_of_another_model_are_named(refused: Callable[..., str], tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(3, 3)}, weights)

    line = refused("--encoder", "squeezenet1_0", "--weights", str(weights))

    assert str(weights) in line


@pytest.mark.parametrize(
    ("change", "named"), [({"width": 32}, "width is 32"), ({"num_classes": 9}, "num_classes is 9")]
)
def test_first_weights_of_another_model_are_named(
    refused: Callable[..., str], tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    settings = Settings(guarantee=Guarantee.EMPIRICAL).replace(**change)
    path, shape = tmp_path / "start.safetensors", choose_shape(settings)
    write_checkpoint(path, Checkpoint(Munkey(shape).state_dict(), shape, settings.encoder, {}))

    line = refused("-s", "guarantee=empirical", "-s", f"initial-weights={path}")

    assert str(path) in line
    assert named in line


def test_folder_that_holds_something_is_not_written_to(run: MunkeySim, tmp_path: Path) -> None:
    folder = tmp_path / "earlier"
    folder.mkdir()
    (folder / "report.json").write_text("{}")

    code, out, err = run("run", "--output", str(folder))

    assert (code, out) == (EXIT_CODE, "")
    assert err == f"error: {folder} is there already and not empty; name another folder with --output\n"
    assert [path.name for path in folder.iterdir()] == ["report.json"]


def test_folder_that_cannot_be_made_is_named(run: MunkeySim, tmp_path: Path) -> None:
    data = npz(tmp_path / "set.npz")
    folder = data / "run"

    code, _, err = run("run", "--data", str(data), "--hospitals", "2", "--output", str(folder))

    assert code == EXIT_CODE
    assert (
        err.splitlines()[-1] == f"error: {folder} cannot be made (Not a directory); name another folder with --output"
    )


@pytest.mark.flower
def test_federation_that_cannot_hear_deletions_waits_says_so_and_stops_with_the_way_out(tmp_path: Path) -> None:
    sizes = ["width=8", "depth=1", "heads=1", "exemplar-size=4", "deletion-patience=1"]
    words = ["--data", str(npz(tmp_path / "set.npz")), "--hospitals", "2", "--output", str(tmp_path / "run")]
    words += [word for size in sizes for word in ("-s", size)]
    words += ["--no-baselines", "--deletion-service", "127.0.0.1:1"]

    ended = subprocess.run(  # noqa: S603 (this interpreter)
        own_program("fedmunkey.simulations.cli", "run", *words),
        env={**os.environ, "PYTHONPATH": str(ROOT / "dev"), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=900,
    )

    reason = (
        "the deletion service at 127.0.0.1:1 cannot be reached: "
        "start it with munkey-server serve, or name another with --service (deletion-service in a file of settings)"
    )
    lines = ended.stderr.splitlines()
    waiting = [line for line in lines if line.startswith("waiting: ")]
    assert waiting[0] == f"waiting: {reason}; no training until it answers (waited 0 of 1 s)"
    assert [line for line in lines if line.startswith("error: ")] == [f"error: {reason}"] == lines[-1:]
    # Else there are bars, which end in how long something has taken.
    assert [line for line in lines if line not in waiting and "0:00:" not in line] == lines[-1:]
    assert (ended.returncode, ended.stdout) == (EXIT_CODE, "")
    events = [json.loads(line) for line in (tmp_path / "run/coordinator/events.jsonl").read_text().splitlines()]
    assert {event["event"] for event in events[:-1]} == {"waiting"}
    assert events[-1] == {"event": "stopped", "reason": reason}
    assert not (tmp_path / "run/report.json").exists()
    assert "cannot be reached" in (tmp_path / "run/logs/simulation.log").read_text()
