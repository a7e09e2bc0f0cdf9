"""A predictor that stays loaded answers from the state of the moment, in a followed folder and as a service."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from fedmunkey.client.commands.serve_predictions import PREDICTIONS_READY
from fedmunkey.client.deletions.promised_renewal import OwedRenewal
from fedmunkey.client.predicting import prediction, prediction_service, warm_predictor
from fedmunkey.client.predicting.following import FolderFollower, open_answers, read_done
from fedmunkey.client.predicting.picture_answers import PictureAnswer
from fedmunkey.client.predicting.prediction import CaseMix
from fedmunkey.client.predicting.prediction_service import prediction_application
from fedmunkey.client.predicting.warm_predictor import Asked, WarmPredictor
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, Records
from fedmunkey.common.errors import InvalidInput
from fedmunkey.common.model import model_choice
from fedmunkey.common.programs.supervision import own_program

from .conftest import SITE, Run
from .test_predict import imported
from .test_promised_renewal import take_over

__all__ = ["imported"]


@pytest.fixture
def site(imported: Path, tmp_path: Path) -> SiteFolder:
    return SiteFolder(Path(shutil.copytree(imported / SITE, tmp_path / SITE)))


@pytest.fixture
def predictor(site: SiteFolder) -> WarmPredictor:
    return WarmPredictor(site, Asked({}))


def delete(site: SiteFolder, imported: Path, row: int, number: int = 1) -> None:
    """Carry an order out, as the site's agent does."""
    reference = FederationSecret.read(imported / "federation.secret").reference(f"PATIENT-{row}")
    request = DeletionRequest(f"request-{row}", SITE, Records(frozenset({reference}), SITE))
    with site.open() as store:
        store.orders.apply(DeletionOrder(number, SITE, request))


def similarities(answer: PictureAnswer) -> list[float]:
    assert answer.prediction is not None
    return [neighbour.similarity for neighbour in answer.prediction.neighbours]


def owe(predictor: WarmPredictor, due: datetime) -> None:
    """Have what is loaded promise a renewal."""
    predictor.weights()
    assert predictor._loaded is not None
    object.__setattr__(predictor._loaded.predictor, "owed", OwedRenewal(due - timedelta(days=7), due))


def test_next_answer_after_a_deletion_is_that_of_a_predictor_that_was_started_then(
    predictor: WarmPredictor, site: SiteFolder, imported: Path
) -> None:
    asked = [(imported / "0.png", "0.png")]
    (before,) = predictor.answer(asked)
    assert similarities(before)[0] == pytest.approx(1, abs=1e-6)
    delete(site, imported, 0)

    (after,) = predictor.answer(asked)

    assert similarities(after)[0] < 0.9999
    assert [after] == WarmPredictor(site, Asked({})).answer(asked)


def test_deletion_while_an_answer_is_computed_has_no_part_in_it(
    predictor: WarmPredictor, site: SiteFolder, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [(imported / "0.png", "0.png")]
    computed: list[object] = []
    classify = prediction.classify

    def delete_after(*given: Any, **more: Any) -> Any:
        found = classify(*given, **more)
        if not computed:
            delete(site, imported, 0)
        computed.append(found)
        return found

    monkeypatch.setattr(warm_predictor, "classify", delete_after)

    (answer,) = predictor.answer(asked)

    assert len(computed) == 2
    assert similarities(answer)[0] < 0.9999


def test_what_was_read_of_records_is_let_go_of_although_nobody_asks(
    predictor: WarmPredictor, site: SiteFolder, imported: Path
) -> None:
    predictor.weights()
    loaded = predictor._loaded
    assert loaded is not None
    predictor.look()
    assert predictor._loaded is loaded
    assert torch.any(loaded.bank.keys)
    delete(site, imported, 0)

    predictor.look()

    assert predictor._loaded is None
    assert not torch.any(loaded.bank.keys)


def test_encoder_is_loaded_once_and_renewed_weights_are_used_at_once(
    predictor: WarmPredictor, site: SiteFolder, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    choose = model_choice.choose_encoder

    def count_and_choose(settings: Any) -> Any:
        made.append(settings)
        return choose(settings)

    monkeypatch.setattr(warm_predictor, "choose_encoder", count_and_choose)
    asked = [(imported / "0.png", "0.png")]
    predictor.answer(asked)
    loaded = predictor._loaded
    predictor.answer(asked)
    assert predictor._loaded is loaded

    take_over(site, contributed=0)

    assert predictor.weights() == "those that hospital-1 has last taken over"
    assert predictor._loaded is not loaded
    assert len(made) == 1


def test_answer_has_the_name_that_was_given_and_the_case_mix_that_was_asked_for(
    site: SiteFolder, imported: Path
) -> None:
    asked = [(imported / "0.png", "a name")]

    own, federation = (WarmPredictor(site, Asked({}, mix=mix)).answer(asked)[0].document() for mix in reversed(CaseMix))

    assert own["file"] == federation["file"] == "a name"
    assert own["probabilities"] != federation["probabilities"]


def test_picture_of_another_shape_is_brought_to_that_of_the_imports(predictor: WarmPredictor, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 30, 3), 7, np.uint8)).save(tmp_path / "colour.png")

    (answer,) = predictor.answer([(tmp_path / "colour.png", "colour.png")])

    assert answer.document()["remarks"] == ["the picture has a single grey level"]


# A folder that is followed.


class Following:
    """A follower, what it has written and what it has told."""

    def __init__(self, inbox: Path, predictor: WarmPredictor) -> None:
        self.written: list[dict[str, Any]] = []
        self.told: list[str] = []
        self.follower = FolderFollower(inbox, predictor, self.written.append, self.told.append)

    def look(self, times: int = 2) -> list[str]:
        """Look some times; return the names of the files that were answered then."""
        before = len(self.written)
        for _ in range(times):
            self.follower.look()
        return [each["file"] for each in self.written[before:]]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@pytest.fixture
def following(inbox: Path, predictor: WarmPredictor) -> Following:
    return Following(inbox, predictor)


def test_each_picture_is_answered_once_and_bad_ones_with_their_reason(
    following: Following, inbox: Path, imported: Path
) -> None:
    for row in (0, 1):
        shutil.copy2(imported / f"{row}.png", inbox / f"{row}.png")
    (inbox / "bad.png").write_bytes(b"no picture")
    (inbox / ".part.png").write_bytes(b"hidden")
    (inbox / "folder").mkdir()

    assert sorted(following.look()) == ["0.png", "1.png", "bad.png"]
    assert following.look(3) == []

    by_name = {each["file"]: each for each in following.written}
    assert (by_name["0.png"]["class"], by_name["1.png"]["class"]) == ("lying", "upright")
    assert by_name["bad.png"]["reason"].startswith("it is no PNG, JPEG, DICOM or NIfTI file")
    assert by_name["0.png"]["weights"] == "none yet: answers are of the site's own records alone"
    shutil.copy2(imported / "2.png", inbox / "0.png")
    assert following.look() == ["0.png"]


def test_file_that_is_still_being_written_waits(following: Following, inbox: Path, imported: Path) -> None:
    content = (imported / "0.png").read_bytes()
    (inbox / "0.png").write_bytes(content[:100])
    assert following.look(1) == []
    (inbox / "0.png").write_bytes(content)
    assert following.look(1) == []

    assert following.look(1) == ["0.png"]
    assert following.written[0]["class"] == "lying"


def test_pictures_wait_while_the_promise_to_renew_is_over_and_that_is_said_once(
    following: Following, inbox: Path, imported: Path, predictor: WarmPredictor, site: SiteFolder
) -> None:
    shutil.copy2(imported / "0.png", inbox / "0.png")
    owe(predictor, utc_now() - timedelta(seconds=1))

    assert following.look(4) == []
    (told,) = following.told
    assert "should have been renewed by" in told

    take_over(site, contributed=0)
    assert following.look(1) == ["0.png"]


def test_after_a_restart_only_what_is_not_answered_yet_is(
    inbox: Path, predictor: WarmPredictor, imported: Path
) -> None:
    output = inbox.parent / "answers.jsonl"
    shutil.copy2(imported / "0.png", inbox / "0.png")
    first = Following(inbox, predictor)
    first.look()
    line = json.dumps(first.written[0]) + "\n"
    output.write_text(line + '{"file": "1.p')
    shutil.copy2(imported / "1.png", inbox / "1.png")

    again = Following(inbox, predictor)
    again.follower.done = read_done(output)
    open_answers(output).close()

    assert again.look() == ["1.png"]
    assert output.read_text() == line


def test_other_files_are_not_added_to(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("one\ntwo\n")

    with pytest.raises(InvalidInput, match=r"line 1 of .* is no answer of predict; name another --output"):
        read_done(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "name images, or a folder with --follow"),
        (["a.png", "--follow", "{tmp}"], "name images, or a folder with --follow"),
        (["a.png", "--output", "{tmp}/x"], "is for --follow"),
        (["--follow", "{tmp}/missing"], "is no folder; make it"),
    ],
)
def test_what_cannot_be_followed_is_one_line(
    run: Run, site: SiteFolder, tmp_path: Path, words: list[str], reason: str
) -> None:
    typed = [word.format(tmp=tmp_path) for word in words]

    assert reason in run("predict", *typed, "--site-dir", site.path).error


# A service.


class Client:
    """Asks the application in this process."""

    def __init__(self, predictor: WarmPredictor) -> None:
        self._application = prediction_application(predictor)

    def get(self, path: str) -> httpx.Response:
        return asyncio.run(self._ask("GET", path))

    def post(self, path: str, **given: Any) -> httpx.Response:
        return asyncio.run(self._ask("POST", path, **given))

    async def _ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._application)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **given)


@pytest.fixture
def client(predictor: WarmPredictor) -> Client:
    return Client(predictor)


def test_service_answers_as_predict_does(client: Client, predictor: WarmPredictor, imported: Path) -> None:
    picture = imported / "21.png"

    reply = client.post("/predictions", params={"name": "scan 1.png"}, content=picture.read_bytes())

    (expected,) = predictor.answer([(picture, "scan 1.png")])
    assert (reply.status_code, reply.json()) == (200, expected.document())
    assert client.get("/health").json() == {"weights": predictor.weights()}


def test_service_says_why_a_picture_cannot_be_used(
    client: Client, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = client.post("/predictions", content=b"no picture")
    assert bad.status_code == 422
    assert bad.json()["reason"].startswith("it is no PNG")
    assert client.post("/predictions", content=b"").json() == {"reason": "the file is empty"}
    monkeypatch.setattr(prediction_service, "MOST_BYTES", 100)
    assert client.post("/predictions", content=(imported / "0.png").read_bytes()).status_code == 413


def test_service_does_not_answer_once_the_promise_to_renew_is_over(
    client: Client, predictor: WarmPredictor, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (imported / "0.png").read_bytes()
    due = utc_now() + timedelta(days=1)
    owe(predictor, due)
    assert client.post("/predictions", content=content).status_code == 200

    monkeypatch.setattr(warm_predictor, "utc_now", lambda: due + timedelta(seconds=1))

    late = client.post("/predictions", content=content)
    assert (late.status_code, client.get("/health").status_code) == (503, 503)
    assert "should have been renewed by" in late.json()["reason"]


def test_page_of_another_name_reaches_nothing(client: Client, imported: Path) -> None:
    content = (imported / "0.png").read_bytes()

    assert client.post("/predictions", content=content, headers={"host": "example.org"}).status_code == 400


def test_address_that_others_reach_or_that_is_taken_is_one_line(run: Run, site: SiteFolder) -> None:
    words = ["serve-predictions", "--site-dir", site.path, "--address"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        assert f"{address} cannot be listened on" in run(*words, address).error
    assert "listen on 127.0.0.1, or at a --socket" in run(*words, "0.0.0.0:8470").error


@pytest.mark.processes
def test_running_service_hears_of_a_deletion_at_its_next_answer(
    site: SiteFolder, imported: Path, tmp_path: Path
) -> None:
    path = tmp_path / "p.sock"
    words = ["serve-predictions", "--site-dir", str(site.path), "--socket", str(path)]
    content = (imported / "0.png").read_bytes()
    command = own_program("fedmunkey.client.cli", *words)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 (our own program)
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(f"{PREDICTIONS_READY}{path}")
            assert path.stat().st_mode & 0o777 == 0o600
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
                before = client.post("/predictions", content=content, timeout=120).json()
                delete(site, imported, 0)
                after = client.post("/predictions", content=content, timeout=120).json()
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert before["neighbours"][0]["similarity"] == pytest.approx(1, abs=1e-6)
    assert after["neighbours"][:3] == before["neighbours"][1:4]
    assert not path.exists()
