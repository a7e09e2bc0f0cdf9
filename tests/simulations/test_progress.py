"""What a person sees while a simulation runs."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fedmunkey.common.deletion import (
    Acknowledgement,
    DeletionRequest,
    RequestStatus,
    SiteProgress,
    SiteState,
    WholeSite,
)
from fedmunkey.common.guarantees import Guarantee
from fedmunkey.simulations.deletions import CarriedOut
from fedmunkey.simulations.measurement import Measurement
from fedmunkey.simulations.plan import DeletionKind, PlannedDeletion, ResolvedDeletion
from fedmunkey.simulations.progress import Progress

NOON = datetime(2030, 5, 17, 12, tzinfo=UTC)
MEASURED = Measurement(90, 90, 90, 50, 90)


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=60)


def shown(console: Console) -> list[str]:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def event(**changes: Any) -> dict[str, Any]:
    return {"event": "round", "number": 2, "mean": {"test-accuracy": 0.875}, "failures": {}, **changes}


def test_round_shows_its_test_accuracy_beside_the_bar(console: Console) -> None:
    console.width = 120
    with Progress(console) as progress, progress.counting("training", 3) as count:
        count(2)
        progress.round(event())

    (line,) = shown(console)
    assert line.startswith("training")
    assert "2/3" in line
    assert "test accuracy 87.5%" in line


def test_round_that_nobody_evaluated_is_shown(console: Console) -> None:
    with Progress(console) as progress, progress.counting("training", 3):
        progress.round(event(mean={}))

    assert "training" in shown(console)[0]


def test_site_that_could_not_take_part_is_named_with_its_reason_on_one_line(console: Console) -> None:
    reason = "there is no key store /srv/hospital-2/[red]keystore.sqlite; enrol the site's records first"
    with Progress(console) as progress, progress.counting("training", 3):
        progress.round(event(failures={"hospital-2": reason}))

    assert f"round 2: hospital-2 could not take part: {reason}" in shown(console)


def test_waiting_says_for_what_on_one_line(console: Console) -> None:
    reason = "the deletion service at 127.0.0.1:1 cannot be reached; no training until it answers (waited 0 of 60 s)"
    with Progress(console) as progress:
        progress.waiting({"event": "waiting", "reason": reason})

    assert f"waiting: {reason}" in shown(console)


@pytest.mark.parametrize(("requests", "words"), [(1, "1 request,"), (2, "2 requests,")])
def test_deletion_is_told_with_its_round(console: Console, requests: int, words: str) -> None:
    planned = PlannedDeletion(DeletionKind.SUBJECTS, 4, count=2)
    done = CarriedOut(ResolvedDeletion(planned, (np.arange(2),)), (), MEASURED, MEASURED)
    # Only their number is shown.
    object.__setattr__(done, "statuses", tuple(_Status() for _ in range(requests)))

    with Progress(console) as progress:
        progress.deletion(done)

    (line,) = [line for line in shown(console) if line]
    assert line.startswith("before round 4: subjects:2@4 over gRPC: ")
    assert words in line
    assert line.endswith(f"0 entries gone in {0.25 * requests:.2f} s")


def test_deletion_names_its_guarantee(console: Console) -> None:
    console.width = 120
    planned = PlannedDeletion(DeletionKind.SITE, 4, hospital=1)
    answer = Acknowledgement(1, "hospital-1", "simulation-1", SiteState.ERASED, 3, 2, Guarantee.EXACT, 0.1)
    progress = SiteProgress("hospital-1", 1, SiteState.ERASED, answer)
    status = RequestStatus(DeletionRequest("simulation-1", "hospital-1", WholeSite("hospital-1")), NOON, (progress,))

    with Progress(console) as shows:
        shows.deletion(CarriedOut(ResolvedDeletion(planned, (np.arange(2),)), (status,), MEASURED, MEASURED))

    (line,) = [line for line in shown(console) if line]
    assert line == "before round 4: site:1@4 over gRPC: 1 request, 2 entries gone in 0.00 s (exact)"


class _Status:
    """A request without sites that took a quarter of a second."""

    sites = ()
    seconds = 0.25


def test_nothing_is_shown_before_something_is_done(console: Console) -> None:
    with Progress(console):
        pass

    assert shown(console) == []


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress.quiet() as progress, progress.counting("training", 3) as count:
        count(1)
        progress.round(event(failures={"hospital-2": "gone"}))
        progress.waiting({"event": "waiting", "reason": "gone"})

    assert capsys.readouterr() == ("", "")
