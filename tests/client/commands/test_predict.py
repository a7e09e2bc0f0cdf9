from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fedmunkey.client.commands.import_ import import_
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.bank import read_bank, read_held_out
from fedmunkey.client.learning.contribution import read_numbered
from fedmunkey.client.learning.evaluation import predict as evaluate
from fedmunkey.client.learning.exact_state import refresh_tokens
from fedmunkey.client.learning.own_memory import answer as solved_answer
from fedmunkey.client.learning.own_memory import joined, read_memory
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.linear_answers import TEMPERATURES
from fedmunkey.common.closed_form.release import Release, read_release, write_release
from fedmunkey.common.closed_form.solving import RIDGES, Choice, left_out_weights, shared_weights
from fedmunkey.common.closed_form.sums import Sums, SumsShape
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, Records
from fedmunkey.common.model.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from fedmunkey.common.model.model_choice import choose_shape, initial_model
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.settings.settings import Settings
from tests.client.conftest import Opinionated

from .conftest import SITE, Run

TRAIN, TEST = 20, 4
SETTINGS = Settings().replace(image_shape="1x16x16", num_classes=2)
Answer = dict[str, Any]


def stripes(upright: bool, shift: int) -> NDArray[np.uint8]:
    """Return an image of one of two classes that anyone can tell apart."""
    lines = np.tile(((np.arange(16) + shift) // 2 % 2 * 200 + 20).astype(np.uint8), (16, 1))
    return lines if upright else np.ascontiguousarray(lines.T)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a site that has imported upright and lying stripes, and their images."""
    folder = tmp_path_factory.mktemp("imported")
    FederationSecret.generate().write(folder / "federation.secret")
    with (folder / "scans.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "record_id", "subject_id", "split"])
        for row in range(TRAIN + TEST):
            noise = np.random.default_rng(row).integers(0, 30, (16, 16), dtype=np.uint8)
            Image.fromarray(stripes(bool(row % 2), row) + noise).save(folder / f"{row}.png")
            split = "train" if row < TRAIN else "test"
            table.writerow([f"{row}.png", ("lying", "upright")[row % 2], f"PATIENT-{row}", f"PATIENT-{row}", split])
    secret = folder / "federation.secret"
    import_(manifest=folder / "scans.csv", site_dir=folder / SITE, site=SITE, secret=secret, image_shape="1x16x16")
    return folder


@pytest.fixture
def store(imported: Path) -> Iterator[KeyStore]:
    with SiteFolder(imported / SITE).open() as opened:
        yield opened


@pytest.fixture
def answer(run: Run, imported: Path) -> Callable[..., Answer]:
    """Return a function that asks about images, by default the held-out ones."""

    def ask(*words: object, images: list[Path] | None = None) -> Answer:
        asked = images or [imported / f"{row}.png" for row in range(TRAIN, TRAIN + TEST)]
        shown: Answer = run("predict", *asked, "--site-dir", imported / SITE, *words, "--json").json
        return shown

    return ask


@pytest.fixture
def checkpoint(tmp_path: Path, opinionated: Opinionated) -> Path:
    """Shared weights with an opinion, as a coordinator writes them."""
    model = opinionated(initial_model(choose_shape(SETTINGS), 0))
    path = tmp_path / "best.safetensors"
    write_checkpoint(path, Checkpoint(model.state_dict(), model.shape, "descriptor", {"guarantee": "exact"}))
    return path


@pytest.fixture
def released(tmp_path: Path, store: KeyStore) -> Path:
    """Released weights of a federation in which most records lie, otherwise than at this site."""
    read = FeatureMap.of(Recipe.of(SETTINGS), choose_shape(SETTINGS))
    bank = joined(list(read_numbered(store, read)), read.size)
    sums = Sums.zeros(SumsShape(FOLDS, read.size, 2))
    for _ in range(3):
        lying = bank.labels == 0
        sums.add(bank.numbers[lying], bank.labels[lying], bank.folds[lying])
    sums.add(bank.numbers, bank.labels, bank.folds)
    place, choice = 4, Choice(RIDGES[4], TEMPERATURES[3], 0.9, 0.3)
    weights, left_out = shared_weights(sums, RIDGES[place]), left_out_weights(sums)[place]
    path = tmp_path / "last.safetensors"
    write_release(path, Release(weights, left_out, choice, read, "descriptor", {"guarantee": "exact"}))
    return path


def test_before_the_first_round_a_site_answers_from_its_own_records(answer: Callable[..., Answer]) -> None:
    found = answer()

    assert found["weights"] == "none yet: answers are of the site's own records alone"
    for number, each in enumerate(found["predictions"], 1):
        assert each["image"] == number
        assert each["class"] == ("lying", "upright")[(number - 1) % 2]
        assert each["probability"] == max(each["probabilities"].values()) > 0.5
        assert sum(each["probabilities"].values()) == pytest.approx(1)
        assert (each["retrieved"], len(each["neighbours"])) == (4, 4)
        votes = [neighbour["class"] for neighbour in each["neighbours"]]
        assert each["supporting"] == votes.count(each["class"]) >= 3


def test_answer_is_that_of_an_evaluation(answer: Callable[..., Answer], checkpoint: Path, store: KeyStore) -> None:
    model = read_checkpoint(checkpoint).model()
    found = answer("--model", checkpoint)
    bank = read_bank(store, Recipe.of(SETTINGS).neighbours)
    held_out = read_held_out(store, Split.TEST, bank, Recipe.of(SETTINGS).neighbours)
    refresh_tokens(store, model)
    bank = read_bank(store, Recipe.of(SETTINGS).neighbours)
    expected = evaluate(model, bank, held_out.inputs, held_out.lists, Recipe.of(SETTINGS).reading)

    given = torch.tensor([list(each["probabilities"].values()) for each in found["predictions"]])
    assert torch.allclose(given, expected, atol=1e-6)
    # Otherwise the first weights would do as well.
    first = torch.tensor([list(each["probabilities"].values()) for each in answer()["predictions"]])
    assert not torch.allclose(first, expected, atol=1e-3)
    assert found["weights"] == f"{checkpoint} (exact)"


@pytest.fixture
def taken_over(imported: Path, released: Path) -> Iterator[Path]:
    """The released weights as the site has taken them over."""
    kept = SiteFolder(imported / SITE).shared_weights
    for suffix in (".safetensors", ".json"):
        shutil.copy2(released.with_suffix(suffix), kept.with_suffix(suffix))
    yield kept
    for suffix in (".safetensors", ".json"):
        kept.with_suffix(suffix).unlink()


def test_weights_that_were_taken_over_are_used(answer: Callable[..., Answer], released: Path, taken_over: Path) -> None:
    assert taken_over.exists()

    own, given = answer(), answer("--model", released)

    assert own["predictions"] == given["predictions"]
    assert own["weights"] == "those that hospital-1 has last taken over"
    assert given["weights"] == f"{released} (exact)"


def test_case_mix_is_the_sites_own_or_the_federations(
    answer: Callable[..., Answer], released: Path, store: KeyStore
) -> None:
    release = read_release(released)
    memory, _ = read_memory(store, release)
    held_out = joined(list(read_numbered(store, release.feature_map, Split.TEST)), release.feature_map.size)
    expected = solved_answer(release, memory, held_out.numbers)

    found = {
        mix: np.array(
            [list(each["probabilities"].values()) for each in answer("--model", released, *words)["predictions"]]
        )
        for mix, words in (("usual", []), ("own", ["--case-mix", "own"]), ("shared", ["--case-mix", "federation"]))
    }

    assert np.allclose(found["own"], expected.own, atol=1e-9)
    assert np.allclose(found["shared"], expected.federation, atol=1e-9)
    assert np.array_equal(found["usual"], found["own"])
    assert not np.allclose(found["shared"], found["own"], atol=1e-6)


def test_unknown_case_mix_is_one_line(run: Run, imported: Path) -> None:
    ended = run("predict", imported / "0.png", "--site-dir", imported / SITE, "--case-mix", "other")

    assert ended.code == 2
    assert "'own', 'federation'" in ended.err


def test_exact_weights_of_an_earlier_version_are_not_answered_from(
    run: Run, imported: Path, checkpoint: Path, taken_over: Path
) -> None:
    write_checkpoint(taken_over, read_checkpoint(checkpoint))

    refused = run("predict", imported / "0.png", "--site-dir", imported / SITE).error

    assert "is of an earlier version, which trained exact weights; wait for the next round" in refused


def test_changed_release_is_not_answered_from(run: Run, imported: Path, taken_over: Path) -> None:
    content = bytearray(taken_over.read_bytes())
    content[-1] ^= 1
    taken_over.write_bytes(content)

    refused = run("predict", imported / "0.png", "--site-dir", imported / SITE).error

    assert "was changed since it was written; take the file of the last round again" in refused


def test_released_weights_of_another_federation_are_refused(run: Run, imported: Path, tmp_path: Path) -> None:
    image, site = imported / "0.png", imported / SITE
    release = Release.nothing(FeatureMap((3, 4), 0), 2, "descriptor")
    for name, other, reason in (
        ("features", release, "reads (3, 4) features of a record, this site has (0, 0)"),
        ("encoder", replace(release, encoder="resnet18"), "was made with the encoder resnet18"),
    ):
        path = tmp_path / f"{name}.safetensors"
        chosen = Choice(RIDGES[0], TEMPERATURES[0], 0.5, 0.5)
        write_release(path, replace(other, choice=chosen))
        assert reason in run("predict", image, "--site-dir", site, "--model", path).error


def test_features_of_the_encoder_are_read_where_the_site_keeps_those(run: Run, imported: Path, tmp_path: Path) -> None:
    words = ["--site-dir", tmp_path / SITE, "--site", SITE, "--secret", imported / "federation.secret"]
    frozen = ["--image-shape", "1x16x16", "--set", "image-path=frozen"]
    assert run("import", imported / "scans.csv", *words, *frozen).code == 0
    images = [imported / f"{row}.png" for row in range(TRAIN, TRAIN + TEST)]

    shown = run("predict", *images, "--site-dir", tmp_path / SITE, "--json").json

    assert [each["retrieved"] for each in shown["predictions"]] == [4] * TEST
    assert [each["class"] for each in shown["predictions"]] == ["lying", "upright"] * 2


def test_deleted_entry_supports_none(answer: Callable[..., Answer], run: Run, imported: Path, tmp_path: Path) -> None:
    site = tmp_path / "copy"
    shutil.copytree(imported / SITE, site)
    image = imported / "0.png"
    reference = FederationSecret.read(imported / "federation.secret").reference("PATIENT-0")
    request = DeletionRequest("request-1", SITE, Records(frozenset({reference}), SITE))
    with SiteFolder(site).open() as store:
        store.orders.apply(DeletionOrder(1, SITE, request))

    before = answer(images=[image])["predictions"][0]["neighbours"]
    after = run("predict", image, "--site-dir", site, "--json").json["predictions"][0]["neighbours"]

    assert before[0]["similarity"] == pytest.approx(1, abs=1e-6)
    assert after[:3] == before[1:4]


def test_number_of_neighbours_is_a_setting(answer: Callable[..., Answer]) -> None:
    assert {each["retrieved"] for each in answer("--set", "neighbours=11")["predictions"]} == {11}
    assert {each["retrieved"] for each in answer("--set", "neighbours=60")["predictions"]} == {TRAIN}


def test_table_names_files_classes_and_support_and_nobody_of_the_bank(run: Run, imported: Path) -> None:
    ended = run("predict", imported / f"{TRAIN}.png", imported / f"{TRAIN + 1}.png", "--site-dir", imported / SITE)

    lines = [line.split() for line in ended.out.splitlines()]
    files = [str(imported / f"{row}.png") for row in (TRAIN, TRAIN + 1)]
    assert [line[:2] for line in lines[1:3]] == [[files[0], "lying"], [files[1], "upright"]]
    assert lines[1][2:5] in (["3", "of", "4"], ["4", "of", "4"])
    assert lines[1][5].endswith("%")
    assert "PATIENT" not in ended.out


def test_file_that_cannot_be_used_costs_no_other_its_answer(run: Run, imported: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.dcm").write_text("no picture")
    good = [imported / f"{row}.png" for row in (TRAIN, TRAIN + 1)]
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "black.png")
    asked = [good[0], tmp_path / "bad.dcm", good[1], tmp_path / "black.png"]

    ended = run("predict", *asked, "--site-dir", imported / SITE, "--json")
    table = run("predict", *asked, "--site-dir", imported / SITE)

    found = json.loads(ended.out)
    assert (ended.code, table.code) == (1, 1)
    assert [(each["image"], each["file"], each["class"]) for each in found["predictions"][:2]] == [
        (1, str(good[0]), "lying"),
        (3, str(good[1]), "upright"),
    ]
    assert [(each["image"], each["file"]) for each in found["refused"]] == [(2, str(tmp_path / "bad.dcm"))]
    assert found["refused"][0]["reason"].startswith("it is no PNG, JPEG, DICOM or NIfTI file")
    assert found["predictions"][2]["remarks"] == ["the picture has a single grey level"]
    assert f"{tmp_path / 'bad.dcm'} cannot be used: it is no PNG" in table.out
    assert f"{tmp_path / 'black.png'}: the picture has a single grey level" in table.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}/PATIENT-17.png"], "image 1 of 1 cannot be used: there is no such file"),
        (["{tmp}/text.png"], "image 1 of 1 cannot be used: it is no PNG"),
        (["{images}/0.png", "--slice", "top"], "neither middle nor a whole number"),
        (["{images}/0.png", "--model", "{tmp}/absent.safetensors"], "weights cannot be read"),
        (["{images}/0.png", "--model", "{tmp}/wide.safetensors"], "exemplar_size is 64, the key store has 128"),
        (["{images}/0.png", "--model", "{tmp}/large.safetensors"], "input_shape is (1, 8, 8), the key store has"),
        (["{images}/0.png", "--model", "{tmp}/named.safetensors"], "trained with the encoder vit_b_16"),
        (["{images}/0.png", "--set", "image-shape=3x16x16"], "the key store's keys are of encoder descriptor"),
        (["{images}/0.png", "--weights", "{tmp}/absent.pth"], "the descriptor has no weights"),
        (["{images}/0.png", "--set", "neighbors=3"], "did you mean neighbours?"),
    ],
)
def test_mistake_is_one_line(run: Run, imported: Path, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "text.png").write_text("PATIENT-17")
    shape = choose_shape(SETTINGS)
    for name, other, encoder in (
        ("wide", replace(shape, exemplar_size=64), "descriptor"),
        ("large", replace(shape, input_shape=(1, 8, 8)), "descriptor"),
        ("named", shape, "vit_b_16"),
    ):
        weights = initial_model(other, 0).state_dict()
        write_checkpoint(tmp_path / f"{name}.safetensors", Checkpoint(weights, other, encoder, {}))
    typed = [word.format(tmp=tmp_path, images=imported) for word in words]

    error = run("predict", *typed, "--site-dir", imported / SITE).error

    assert message in error
    assert "PATIENT-17" not in error


def test_weights_of_fewer_classes_than_the_site_has_are_refused(run: Run, imported: Path, tmp_path: Path) -> None:
    site = tmp_path / "copy"
    shutil.copytree(imported / SITE, site)
    names = json.loads((site / "pictures.json").read_text())
    (site / "pictures.json").write_text(json.dumps({**names, "classes": ["lying", "upright", "crossed"]}))
    shape = choose_shape(SETTINGS)
    path = tmp_path / "two.safetensors"
    write_checkpoint(path, Checkpoint(initial_model(shape, 0).state_dict(), shape, "descriptor", {}))

    refused = run("predict", imported / "0.png", "--site-dir", site, "--model", path).error

    assert "knows 2 classes, the site has 3" in refused


def test_site_that_was_enrolled_from_a_data_set_can_predict(run: Run, folder: SiteFolder, tmp_path: Path) -> None:
    Image.fromarray(stripes(True, 0)).save(tmp_path / "image.png")

    shown = run("predict", tmp_path / "image.png", "--site-dir", folder.path, "--json").json

    assert set(shown["predictions"][0]["probabilities"]) == {"0", "1"}


def test_site_without_a_training_record_is_told_so(run: Run, imported: Path, tmp_path: Path) -> None:
    lines = (imported / "scans.csv").read_text().replace("train", "test").splitlines()
    (imported / "held-out.csv").write_text("\n".join(lines[:5]))
    secret = imported / "federation.secret"
    words = ["--site-dir", tmp_path / SITE, "--site", SITE, "--secret", secret, "--image-shape", "1x16x16"]
    assert run("import", imported / "held-out.csv", *words).code == 0

    refused = run("predict", imported / "0.png", "--site-dir", tmp_path / SITE).error
    assert "holds no training record; import some, or name a --model" in refused
