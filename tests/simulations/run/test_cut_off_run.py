"""A simulation that is killed leaves nothing behind, and goes on from its last round."""

from __future__ import annotations

import json
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.closed_form.release import read_release
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.partition import DivideBy
from fedmunkey.simulations.run.experiment import Experiment
from fedmunkey.simulations.run.kept_run import KeptRun
from tests.simulations.whole_runs import RUN_SECONDS, expected_weights, started, wait_for

PLAN = ["records:5%@2", "site:1@2", "subjects:3@3"]
GONE_SECONDS = 60.0
SHARED_MEMORY = Path("/dev") / "shm"
MunkeySim = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    """The runs' folder for temporary files; short, for the paths of Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory, temporary: Path, marked_processes: Callable[[str], list[str]]
) -> Path:
    """A run that was killed in its second round, and of which nothing was left."""
    folder, mark = tmp_path_factory.mktemp("cut-off") / "run", uuid.uuid4().hex
    words = [word for deletion in PLAN for word in ("--delete", deletion)]
    words += ["--hospitals", "4", "--no-baselines", "--output", str(folder)]
    shared_memory = set(SHARED_MEMORY.iterdir())
    with started(*words, mark=mark, temporary=temporary) as run:
        reached = wait_for(KeptRun(folder).rounds, RUN_SECONDS)
        running = marked_processes(mark)
        run.send_signal(signal.SIGKILL)
    assert reached
    assert any("raylet" in command for command in running)
    assert wait_for(lambda: not marked_processes(mark) and not list(temporary.iterdir()), GONE_SECONDS)
    assert set(SHARED_MEMORY.iterdir()) <= shared_memory
    return folder


@pytest.mark.flower
def test_a_killed_run_goes_on_to_the_weights_that_it_would_have_had(killed: Path, temporary: Path) -> None:
    rounds = KeptRun(killed).rounds()
    with started("--resume", str(killed), temporary=temporary) as run:
        assert run.wait(RUN_SECONDS) == 0

    report: dict[str, Any] = json.loads((killed / "report.json").read_text())
    assert [event["number"] for event in report["rounds"]] == [1, 2, 3]
    assert report["rounds"][: len(rounds)] == rounds
    assert [deletion["plan"] for deletion in report["deletions"]] == PLAN
    assert all(deletion["entries"] == sum(deletion["expected"]) for deletion in report["deletions"])
    settings = Settings.parse(report["settings"])
    assert read_release(killed / "coordinator" / "last.safetensors").digest() == expected_weights(settings, 4, PLAN)
    with SiteFolder(killed / "sites" / "hospital-1").open() as store:
        assert store.records.count(Split.TRAIN) == 0


@pytest.mark.flower
def test_a_run_is_resumed_once_and_only_where_it_was_cut_off(munkey_sim: MunkeySim, killed: Path) -> None:
    code, _, said = munkey_sim("run", "--resume", killed)

    assert code == 2
    assert said == f"error: {killed} has a report: the run in it has come to its end; begin another one\n"


@pytest.mark.processes
def test_a_signal_during_preparation_ends_the_run_with_its_exit_code(tmp_path: Path, temporary: Path) -> None:
    folder = tmp_path / "run"
    with started("--no-baselines", "--output", str(folder), temporary=temporary) as run:
        assert wait_for((folder / "experiment.json").exists, RUN_SECONDS)
        run.terminate()
        code = run.wait(GONE_SECONDS)

    assert code == 128 + signal.SIGTERM
    assert not list(temporary.iterdir())
    assert KeptRun(folder).prepared_seconds() is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seed", "3"], "--resume goes on with what the run was asked for; leave --seed out"),
        (["--output", "x"], "--resume goes on with what the run was asked for; leave --output out"),
        ([], "{folder} holds no run that was cut off; name the --output folder of one, or begin it anew"),
    ],
)
def test_what_cannot_be_resumed_is_refused(munkey_sim: MunkeySim, tmp_path: Path, words: list[str], said: str) -> None:
    code, _, error = munkey_sim("run", "--resume", tmp_path, *words)

    assert code == 2
    assert error == f"error: {said.format(folder=tmp_path)}\n"
    assert not list(tmp_path.iterdir())


def test_changed_data_are_noticed(tmp_path: Path) -> None:
    kept = KeptRun(tmp_path)
    asked = Experiment("digits", None, 2, 1.0, None, [], {"seed": 3}, [], tmp_path, cores=1)
    asked = replace(asked, divide_by=DivideBy.SIZES, feature_shift=0.5)
    kept.begin(asked, "one digest")

    assert kept.read() == asked
    assert isinstance(kept.read().divide_by, DivideBy)
    kept.check_data("one digest")
    with pytest.raises(Exception, match="begun with other images or labels"):
        kept.check_data("another")
