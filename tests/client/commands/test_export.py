"""An exported predictor answers in onnxruntime as `munkey-client predict` does, from real pictures."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from fedmunkey.client.deletions.promised_renewal import CONTRIBUTED, INSTRUCTED, RENEW_WITHIN
from fedmunkey.client.learning.contribution import read_numbered
from fedmunkey.client.learning.own_memory import joined
from fedmunkey.client.predicting.exporting.descriptor_graph import add_descriptor
from fedmunkey.client.predicting.exporting.facts import read_facts
from fedmunkey.client.predicting.exporting.graph import OLDEST, Graph
from fedmunkey.client.predicting.predictor import choose_predictor
from fedmunkey.client.site import SiteFolder, model_shape
from fedmunkey.common.clock import utc_now
from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.linear_answers import TEMPERATURES
from fedmunkey.common.closed_form.release import Release, write_release
from fedmunkey.common.closed_form.solving import RIDGES, Choice, left_out_weights, shared_weights
from fedmunkey.common.closed_form.sums import Sums, SumsShape
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import Subject
from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.encoders.encoder_card import EncoderCard, card_path
from fedmunkey.common.model.encoders.pooling import Pooling
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.model.torchvision_import import import_torchvision
from fedmunkey.common.proofs.governance.instructions import InstructionKind, sign_instruction
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.settings.settings import ImageShape

from .conftest import SITE, Run

TRAIN, TEST, SIDE = 24, 6, 32
CLASSES = ("building", "flower")
Given = dict[str, NDArray[Any]]


def write_pictures(folder: Path) -> Path:
    """Write parts of two photographs, one class each, and a manifest of them."""
    photographs = load_sample_images().images
    draws = np.random.default_rng(0)
    with (folder / "scans.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "record_id", "subject_id", "split"])
        for row in range(TRAIN + TEST):
            photograph = photographs[row % 2]
            top, left = (int(draws.integers(0, side - 96)) for side in photograph.shape[:2])
            Image.fromarray(photograph[top : top + 96, left : left + 80]).save(folder / f"{row}.png")
            split = "train" if row < TRAIN else "test"
            table.writerow([f"{row}.png", CLASSES[row % 2], f"PATIENT-{row}", f"PATIENT-{row}", split])
    return folder / "scans.csv"


def take_over(folder: SiteFolder) -> Release:
    """Have a site take weights over that were solved from its records, one class three times as often."""
    with folder.open() as store:
        with_files = choose_predictor(folder, store, {}, None)
        settings = with_files.recipe.settings.replace(num_classes=2)
        read = FeatureMap.of(Recipe.of(settings), model_shape(settings, store.description))
        bank = joined(list(read_numbered(store, read)), read.size)
        sums = Sums.zeros(SumsShape(FOLDS, read.size, 2))
        for _ in range(3):
            first = bank.labels == 0
            sums.add(bank.numbers[first], bank.labels[first], bank.folds[first])
        sums.add(bank.numbers, bank.labels, bank.folds)
        choice = Choice(RIDGES[8], TEMPERATURES[3], 0.9, 0.3)
        about: dict[str, Any] = {"guarantee": "exact", CONTRIBUTED: store.orders.last, RENEW_WITHIN: 7.0}
        about[INSTRUCTED] = store.instructions.position()
        weights, left_out = shared_weights(sums, RIDGES[8]), left_out_weights(sums)[8]
        release = Release(weights, left_out, choice, read, settings.encoder, about)
    write_release(folder.shared_weights, release)
    return release


@pytest.fixture
def make_site(run: Run, tmp_path: Path) -> Callable[..., SiteFolder]:
    """Return what makes a site that has imported pictures with some encoder and taken weights over."""

    def make(*words: object, shape: str = f"3x{SIDE}x{SIDE}") -> SiteFolder:
        secret = tmp_path / "federation.secret"
        FederationSecret.generate().write(secret)
        manifest = write_pictures(tmp_path)
        typed = ["--site-dir", tmp_path / SITE, "--site", SITE, "--secret", secret, "--image-shape", shape]
        ended = run("import", manifest, *typed, *words)
        assert ended.code == 0, ended.err
        folder = SiteFolder(tmp_path / SITE)
        take_over(folder)
        return folder

    return make


@pytest.fixture
def squeezenet(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "squeezenet.pth"
    torch.save(import_torchvision().models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def answers_of(path: Path, given: Given) -> NDArray[np.float64]:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    taken = {value.name for value in session.get_inputs()}
    found, labels = session.run(None, {name: value for name, value in given.items() if name in taken})
    assert np.array_equal(labels, found.argmax(1))
    return np.asarray(found)


def pictures_of(folder: SiteFolder, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return the held-out pictures, brought to a shape as the metadata says."""
    channels, height, width = shape
    pictures = []
    for row in range(TRAIN, TRAIN + TEST):
        image = Image.open(folder.path.parent / f"{row}.png").convert("L" if channels == 1 else "RGB")
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, -1)
        pictures.append(pixels.transpose(2, 0, 1))
    return np.stack(pictures)


def features_of(folder: SiteFolder, images: NDArray[np.uint8]) -> Given:
    with folder.open() as store:
        encoding = choose_predictor(folder, store, {}, None).encoder.encode(torch.from_numpy(images))
    return {"keys": encoding.keys.numpy(), "features": encoding.features.numpy()}


def predicted(run: Run, folder: SiteFolder, mix: str) -> NDArray[np.float64]:
    files = [folder.path.parent / f"{row}.png" for row in range(TRAIN, TRAIN + TEST)]
    found = run("predict", *files, "--site-dir", folder.path, "--case-mix", mix, "--json").json["predictions"]
    return np.array([list(each["probabilities"].values()) for each in found])


@pytest.mark.parametrize("shape", [(1, 20, 24), (3, SIDE, SIDE)])
@pytest.mark.parametrize("mirror", ["true", "false"])
def test_answers_from_pictures_are_those_of_predict_in_both_case_mixes(
    run: Run,
    make_site: Callable[..., SiteFolder],
    squeezenet: Path,
    tmp_path: Path,
    shape: tuple[int, int, int],
    mirror: str,
) -> None:
    words = ["--encoder", "squeezenet1_1", "--weights", squeezenet, "--set", "encoder-size=64"]
    folder = make_site(*words, "--set", f"encoder-mirror={mirror}", shape="x".join(map(str, shape)))
    images = pictures_of(folder, shape)

    for mix in ("federation", "own"):
        path = tmp_path / f"{mix}.onnx"
        ended = run("export", path, "--site-dir", folder.path, "--case-mix", mix)
        assert ended.code == 0, ended.err
        assert ("CAUTION" in ended.err) is (mix == "own")
        assert "it reads images of" in ended.out
        onnx.checker.check_model(onnx.load(str(path)), full_check=True)
        expected = predicted(run, folder, mix)
        assert np.abs(answers_of(path, {"images": images}) - expected).max() < 1e-3
        # One by one, as well as together.
        assert np.abs(answers_of(path, {"images": images[:1]}) - expected[:1]).max() < 1e-3
    assert not np.allclose(predicted(run, folder, "own"), predicted(run, folder, "federation"), atol=1e-3)


@pytest.mark.parametrize("path", ["patches", "frozen"])
def test_answers_from_features_are_those_of_predict_to_the_last_digits(
    run: Run, make_site: Callable[..., SiteFolder], tmp_path: Path, path: str
) -> None:
    folder = make_site("--set", f"image-path={path}")
    images = pictures_of(folder, (3, SIDE, SIDE))
    given = features_of(folder, images)

    for mix in ("federation", "own"):
        file, whole = tmp_path / f"{mix}.onnx", tmp_path / f"{mix}-pictures.onnx"
        typed = ["--site-dir", folder.path, "--case-mix", mix]
        ended = run("export", file, *typed, "--begin", "features")
        assert "it begins with the encoder's keys and features, not with pictures\n" in ended.out
        expected = predicted(run, folder, mix)
        assert np.abs(answers_of(file, given) - expected).max() < 1e-12
        # The descriptor rounds to 32 bits what was computed in 64.
        assert "it reads images of" in run("export", whole, *typed).out
        assert np.abs(answers_of(whole, {"images": images}) - expected).max() < 1e-4


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 20, 27), (3, 33, 16)])
def test_descriptor_is_the_same_numbers_in_onnx(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, *shape), dtype=np.uint8)
    images[0], images[1] = 0, 255
    images[2, :, :, : shape[2] // 2] = 9
    graph = Graph()
    keys, features = add_descriptor(graph, "images", ImageShape(shape))
    made = onnx.helper.make_graph(
        graph.nodes,
        "descriptor",
        [graph.value("images", np.uint8, ["N", *shape])],
        [graph.value(keys, np.float32, ["N", "K"]), graph.value(features, np.float32, ["N", "T", "F"])],
        graph.constants,
    )
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", OLDEST)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    found = session.run(None, {"images": images})

    expected = DescriptorEncoder(shape[0]).encode(torch.from_numpy(images))
    for one, other in zip(found, (expected.keys.numpy(), expected.features.numpy()), strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 1e-7


def test_encoder_that_cannot_be_written_leaves_features_and_is_named(
    run: Run,
    make_site: Callable[..., SiteFolder],
    squeezenet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = make_site("--encoder", "squeezenet1_1", "--weights", squeezenet, "--set", "encoder-size=64")

    def refuse(*_given: object, **_more: object) -> None:
        raise RuntimeError("Exporting the operator 'x'\nis not supported")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    typed = ["--site-dir", folder.path]

    ended = run("export", tmp_path / "m.onnx", *typed)
    refused = run("export", tmp_path / "p.onnx", *typed, "--begin", "pictures").error

    why = "its encoder cannot be written in ONNX (Exporting the operator 'x' is not supported)"
    assert f"it begins with the encoder's keys and features, not with pictures: {why}" in ended.out
    assert f"{why}, so no model can begin with pictures; leave out --begin" in refused
    assert not (tmp_path / "p.onnx").exists()
    given = features_of(folder, pictures_of(folder, (3, SIDE, SIDE)))
    found = answers_of(tmp_path / "m.onnx", given)
    assert np.abs(found - predicted(run, folder, "federation")).max() < 1e-12


@pytest.mark.parametrize("pooling", list(Pooling))
def test_encoder_in_onnx_is_part_of_the_model(
    run: Run, make_site: Callable[..., SiteFolder], tmp_path: Path, pooling: Pooling
) -> None:
    encoder = write_encoder(tmp_path / "encoder.onnx", pooling)
    folder = make_site("--encoder", f"onnx:{encoder}", "--set", "encoder-mirror=true")

    ended = run("export", tmp_path / "model.onnx", "--site-dir", folder.path)

    assert ended.code == 0, ended.err
    assert "it reads images of" in ended.out
    found = answers_of(tmp_path / "model.onnx", {"images": pictures_of(folder, (3, SIDE, SIDE))})
    assert np.abs(found - predicted(run, folder, "federation")).max() < 1e-3


def write_encoder(path: Path, pooling: Pooling) -> Path:
    """Write a network whose output is what a pooling takes, and its card."""
    torch.manual_seed(1)
    layers: list[torch.nn.Module] = [torch.nn.Conv2d(3, 8, 5, stride=5), torch.nn.ReLU()]
    if pooling is Pooling.NONE:
        layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    network: torch.nn.Module = torch.nn.Sequential(*layers)
    if pooling is Pooling.CLASS_TOKEN:
        network = _Tokens(network)
    with pytest.warns():
        torch.onnx.export(network.eval(), (torch.zeros(1, 3, 25, 25),), path, dynamo=False)
    said = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "licence": "CC0-1.0", "size": 25}
    card = EncoderCard.of({**said, "features": (pooling.tokens, 8), "pooling": pooling}, "test")
    card_path(path).write_text(card.to_toml())
    return path


class _Tokens(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner(pixels)
        return found.flatten(2).transpose(1, 2)


def test_file_says_what_it_is_and_a_changed_one_is_refused(
    run: Run, make_site: Callable[..., SiteFolder], tmp_path: Path
) -> None:
    folder, path = make_site(), tmp_path / "model.onnx"

    shown = run("export", path, "--site-dir", folder.path, "--case-mix", "own", "--json").json

    facts = read_facts(path)
    assert facts == shown["facts"]
    assert shown["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (facts["site"], facts["guarantee"], facts["case-mix"]) == (SITE, "exact", "own")
    assert json.loads(facts["classes"]) == list(CLASSES)
    assert (facts["last-order"], facts["contributed-up-to"]) == ("0", "0")
    assert facts["release"] == json.loads(folder.shared_weights.with_suffix(".json").read_text())["digest"]
    assert f"= 3x{SIDE}x{SIDE}" in facts["image-preprocessing"]
    assert "solved from the records of its own patients" in facts["holds"]
    assert path.stat().st_mode & 0o077 == 0
    assert b"PATIENT" not in path.read_bytes()
    model = onnx.load(str(path))
    for prop in model.metadata_props:
        if prop.key == "fedmunkey.site":
            prop.value = "another"
    onnx.save(model, str(tmp_path / "changed.onnx"))
    with pytest.raises(InvalidWeights, match="was changed since it was exported"):
        read_facts(tmp_path / "changed.onnx")


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    run: Run, make_site: Callable[..., SiteFolder], tmp_path: Path
) -> None:
    folder, path = make_site(), tmp_path / "model.onnx"
    typed = ["export", path, "--site-dir", folder.path]
    assert "make it, or name another file" in run("export", tmp_path / "no" / "m.onnx", "--site-dir", folder.path).error
    for suffix in (".safetensors", ".json"):
        folder.shared_weights.with_suffix(suffix).unlink()
    assert "taken no shared weights over yet; export after the first round" in run(*typed).error
    take_over(folder)
    path.write_text("")
    assert "is there already; name another file" in run(*typed).error
    assert path.read_text() == ""
    assert run("recall", "--site-dir", folder.path).out.startswith("no model was exported")


def test_other_guarantees_are_refused(run: Run, tmp_path: Path) -> None:
    FederationSecret.generate().write(tmp_path / "s")
    manifest = write_pictures(tmp_path)
    words = ["--site-dir", tmp_path / SITE, "--site", SITE, "--secret", tmp_path / "s", "--image-shape", "3x32x32"]
    assert run("import", manifest, *words, "--set", "guarantee=empirical").code == 0

    refused = run("export", tmp_path / "m.onnx", "--site-dir", tmp_path / SITE).error

    assert "under guarantee = empirical answers read the bank's own entries" in refused
    assert "only exact weights are exported" in refused
    assert not (tmp_path / "m.onnx").exists()


def test_nothing_is_exported_whose_weights_hold_what_was_opted_out_since(
    run: Run, make_site: Callable[..., SiteFolder], tmp_path: Path
) -> None:
    folder = make_site()
    secret, officer = FederationSecret.read(tmp_path / "federation.secret"), SigningKey.generate()
    about = Subject(secret.reference("PATIENT-3"))
    out = sign_instruction("out-1", InstructionKind.OPT_OUT, about, officer, secret.federation_id, utc_now())
    with folder.open() as store:
        store.instructions.add([(1, out)])
        store.records.begin_again()

    error = run("export", tmp_path / "held.onnx", "--site-dir", folder.path).error
    assert "still hold what 1 record contributed that were opted out since" in error
    assert not (tmp_path / "held.onnx").exists()

    take_over(folder)
    assert run("export", tmp_path / "left.onnx", "--site-dir", folder.path, "--case-mix", "own").code == 0
    with folder.open() as store, store.journal.writing() as journal:
        journal.execute("UPDATE instructions SET sealed = zeroblob(40)")
    assert (
        "nothing is learned, enrolled or exported"
        in run("export", tmp_path / "unread.onnx", "--site-dir", folder.path).error
    )
