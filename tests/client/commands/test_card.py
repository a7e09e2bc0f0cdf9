"""`munkey-client card`, and what a site with a federation card takes in and answers, as a person types it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fedmunkey.client.importing.conventions import read_conventions
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.identities import MemberRole
from fedmunkey.common.identities.card_draft import CardDraft
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.model_choice import choose_encoder
from fedmunkey.common.model.torchvision_import import import_torchvision
from fedmunkey.common.settings.settings import Settings
from tests.cards import make_card
from tests.client.commands.conftest import SITE, Run
from tests.coordinator import FIRST_OFFICER, Coordinator, running_coordinator

CLASSES = ("benign", "malignant")
IN_ORDER = ["--class", "benign", "--class", "malignant"]
SETTINGS = Settings().replace(image_shape="1x8x8", num_classes=2, random_features=40)
FACTS = DescriptorEncoder(1).facts
Words = list[object]


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    with running_coordinator(tmp_path / "at-the-coordinator") as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> SiteFolder:
    return SiteFolder(tmp_path / SITE)


@pytest.fixture
def joined(run: Run, coordinator: Coordinator, site: SiteFolder) -> Words:
    """The words that name a site which has joined a federation with a card."""
    make_card(coordinator, CLASSES, SETTINGS, FACTS)
    assert run("join", coordinator.invite(SITE), "--site-dir", site.path).code == 0
    return ["--site-dir", site.path]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A manifest of twelve scans, half of each class."""
    random = np.random.default_rng(0)
    with (tmp_path / "scans.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "record_id", "subject_id", "split"])
        for row in range(12):
            Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / f"scan-{row}.png")
            split = "test" if row > 9 else "train"
            writer.writerow([f"scan-{row}.png", CLASSES[row % 2], f"scan-{row}", f"patient-{row}", split])
    return tmp_path / "scans.csv"


def arrays(path: Path, shape: tuple[int, ...] = (8, 8), classes: int = 2, **more: Any) -> Path:
    random = np.random.default_rng(0)
    images: dict[str, Any] = {
        split: random.integers(0, 256, (8, *shape), dtype=np.uint8) for split in ("train", "test")
    }
    labels = np.arange(8) % classes
    np.savez(path, **{f"{s}_images": i for s, i in images.items()}, train_labels=labels, test_labels=labels, **more)
    return path


def taking_in(site: SiteFolder, secret: Path, manifest: Path) -> Words:
    return ["import", manifest, "--site-dir", site.path, "--site", SITE, "--secret", secret]


def test_joining_brings_the_card(run: Run, coordinator: Coordinator, joined: Words) -> None:
    card = coordinator.folder.read_cards().current
    assert card is not None

    shown = run("card", "show", *joined, "--json").json

    assert (shown["digest"], shown["classes"]) == (card.digest, ["benign", "malignant"])
    assert f"version 1 ({card.digest[:12]})" in run("card", "accept", *joined, "--service", coordinator.address).out


def test_officer_has_the_card_as_well(run: Run, coordinator: Coordinator, joined: Words, tmp_path: Path) -> None:
    del joined
    identity = ["--identity", tmp_path / "officer"]
    assert run("join", coordinator.invite(FIRST_OFFICER, MemberRole.OFFICER), *identity).code == 0

    assert run("card", "show", *identity, "--json").json["version"] == 1
    make_card(coordinator, ("benign", "malignant", "other"), SETTINGS.replace(num_classes=3), FACTS, "a third")
    assert run("card", "accept", *identity, "--service", coordinator.address, "--json").json["version"] == 2


def test_import_needs_nothing_that_the_card_says(
    run: Run, joined: Words, site: SiteFolder, secret: Path, scans: Path
) -> None:
    imported = run(*taking_in(site, secret, scans), "--json").json

    assert (imported["added"], imported["classes"], imported["image_shape"]) == (12, list(CLASSES), "1x8x8")
    # Words of the card are no settings of the site's own: with another version they would be in its way.
    conventions = read_conventions(site)
    assert conventions is not None
    assert conventions.settings == {}
    assert "federation card" in run("status", *joined).out
    assert run("predict", scans.parent / "scan-0.png", *joined, "--json").json["predictions"][0]["class"] in CLASSES


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--class", "malignant", "--class", "benign"], "classes is malignant, benign, the card has benign, malignant"),
        ([*IN_ORDER, "--class", "other"], "classes is benign, malignant, other"),
        (["--class", "benign"], "classes is benign, the card has"),
        (["--class", "Benign", "--class", "malignant"], "classes is Benign, malignant"),
        (["--image-shape", "1x28x28"], "image-shape is 1x28x28, the card has 1x8x8"),
        (["--image-shape", "3x8x8"], "image-shape is 3x8x8"),
        (["--encoder", "resnet18"], "encoder is resnet18, the card has descriptor"),
        (["--set", "encoder-mirror=false"], "encoder-mirror is false, the card has true"),
        (["--set", "encoder-size=64"], "encoder-size is 64, the card has 0"),
        (["--set", "image-path=frozen"], "image-path is frozen, the card has patches"),
        (["--set", "num-classes=3"], "num-classes is 3, the card has 2"),
        (["--set", "exemplar-size=64"], "exemplar-size is 64, the card has 128"),
        (["--set", "random-features=41"], "random-features is 41, the card has 40"),
        (["--set", "learns-from=permanent"], "learns-from is permanent, the card has all"),
        (["--guarantee", "empirical"], "guarantee is empirical, the card has exact"),
        (["--guarantee", "certified", "--epsilon", 8], "guarantee is certified, the card has exact"),
    ],
)
@pytest.mark.usefixtures("joined")
def test_import_of_anything_else_is_refused_by_field_and_writes_nothing(
    run: Run, site: SiteFolder, secret: Path, scans: Path, words: list[object], field: str
) -> None:
    refused = run(*taking_in(site, secret, scans), *words).error

    assert field in refused
    assert "the federation card (version 1)" in refused
    assert not site.key_store.exists()


@pytest.mark.parametrize(
    ("shape", "classes", "more", "said"),
    [
        ((8, 8), 2, {"class_names": np.array(["malignant", "benign"])}, "classes is malignant, benign"),
        ((8, 8), 3, {"class_names": np.array([*CLASSES, "other"])}, "classes is benign, malignant, other"),
        ((8, 8), 3, {}, "there are 3 classes, and the federation card (version 1) has 0 benign, 1 malignant"),
        ((12, 12), 2, {}, "image-shape is 1x12x12, the card has 1x8x8"),
        ((8, 8, 3), 2, {}, "image-shape is 3x8x8, the card has 1x8x8"),
    ],
)
def test_array_file_of_anything_else_is_refused(
    run: Run,
    joined: Words,
    site: SiteFolder,
    secret: Path,
    tmp_path: Path,
    shape: tuple[int, ...],
    classes: int,
    more: dict[str, Any],
    said: str,
) -> None:
    data = arrays(tmp_path / "a.npz", shape, classes, **more)

    assert said in run("enrol", *joined, "--site", SITE, "--data", data, "--secret", secret).error
    assert not site.key_store.exists()


def test_array_file_without_names_says_what_its_numbers_mean(
    run: Run, joined: Words, site: SiteFolder, secret: Path, tmp_path: Path
) -> None:
    shown = run("enrol", *joined, "--site", SITE, "--data", arrays(tmp_path / "a.npz"), "--secret", secret)

    assert "its numbers are those of the card: 0 benign, 1 malignant" in shown.out
    conventions = read_conventions(site)
    assert conventions is not None
    assert conventions.classes == CLASSES


def test_later_version_is_taken_over_by_a_command_only(
    run: Run, coordinator: Coordinator, joined: Words, site: SiteFolder, secret: Path, scans: Path
) -> None:
    three = [*IN_ORDER, "--class", "other"]
    make_card(coordinator, (*CLASSES, "other"), SETTINGS.replace(num_classes=3), FACTS, "a third finding")

    assert "classes is benign, malignant, other" in run(*taking_in(site, secret, scans), *three).error
    accepted = run("card", "accept", *joined, "--service", coordinator.address)

    assert "in force here: version 2" in accepted.out
    assert "  classes: benign, malignant -> benign, malignant, other" in accepted.out
    assert run(*taking_in(site, secret, scans), *three, "--json").json["added"] == 12
    noted = (site.path / "cards" / "taken.jsonl").read_text().splitlines()
    assert [line.split('"how": ')[1] for line in noted] == ['"joined"}', '"accepted"}']


def test_version_that_the_records_contradict_is_not_accepted(
    run: Run, coordinator: Coordinator, joined: Words, site: SiteFolder, secret: Path, scans: Path
) -> None:
    run(*taking_in(site, secret, scans))
    make_card(coordinator, tuple(reversed(CLASSES)), SETTINGS, FACTS, "in alphabetical order from the end")

    refused = run("card", "accept", *joined, "--service", coordinator.address).error

    assert f"{SITE} differs from the federation card (version 2): classes is benign, malignant" in refused
    assert run("card", "show", *joined, "--json").json["version"] == 1


def test_site_that_had_imported_before_it_heard_of_a_card_is_held_against_it(
    run: Run, coordinator: Coordinator, site: SiteFolder, secret: Path, scans: Path
) -> None:
    where, service = ["--site-dir", site.path], ["--service", coordinator.address]
    turned = ["--class", "malignant", "--class", "benign", "--image-shape", "1x8x8"]
    assert run(*taking_in(site, secret, scans), *turned).code == 0
    assert "no federation card" in run("join", coordinator.invite(SITE), *where).out
    assert "no federation card" in run("card", "show", *where).out
    assert "no federation card" in run("card", "accept", *where, *service).error
    make_card(coordinator, CLASSES, SETTINGS, FACTS)

    refused = run("card", "accept", *where, *service).error

    assert f"{SITE} differs from the federation card (version 1): classes is malignant, benign" in refused


def test_prediction_with_anything_else_is_refused(
    run: Run, joined: Words, site: SiteFolder, secret: Path, scans: Path
) -> None:
    run(*taking_in(site, secret, scans))
    predict = ["predict", scans.parent / "scan-0.png", *joined]

    assert "image-shape is 1x28x28, the card has 1x8x8" in run(*predict, "--set", "image-shape=1x28x28").error
    # How many neighbours are named is for whoever asks.
    assert run(*predict, "--set", "neighbours=2", "--json").json["predictions"][0]["retrieved"] == 2


def test_weights_and_mirror_of_an_encoder_are_held_against_the_card(
    run: Run, coordinator: Coordinator, site: SiteFolder, secret: Path, scans: Path, tmp_path: Path
) -> None:
    files = [tmp_path / "agreed.pth", tmp_path / "other.pth"]
    for seed, path in enumerate(files):
        torch.manual_seed(seed)
        torch.save(import_torchvision().models.squeezenet1_0(weights=None).state_dict(), path)
    settings = SETTINGS.replace(encoder="squeezenet1_0", encoder_weights=str(files[0]), encoder_size=48)
    make_card(coordinator, CLASSES, settings, choose_encoder(settings).facts)
    run("join", coordinator.invite(SITE), "--site-dir", site.path)
    words = taking_in(site, secret, scans)

    assert f"what {SITE} would take in differs" in run(*words, "--weights", files[1]).error
    assert "encoder-mirror is false" in run(*words, "--weights", files[0], "--set", "encoder-mirror=false").error
    assert not site.key_store.exists()
    assert run(*words, "--weights", files[0], "--json").json["added"] == 12
    predict = ["predict", scans.parent / "scan-0.png", "--site-dir", site.path]
    assert run(*predict).code == 0
    assert "encoder-weights is" in run(*predict, "--weights", files[1]).error


def test_site_proposes_what_its_records_are(run: Run, site: SiteFolder, secret: Path, scans: Path) -> None:
    run(*taking_in(site, secret, scans), *IN_ORDER, "--image-shape", "1x8x8")
    output = scans.parent / "proposal.json"

    shown = run("card", "propose", output, "--site-dir", site.path)

    assert "benign, malignant" in shown.out
    draft = CardDraft.read(output)
    assert (draft.classes, draft.encoder) == (CLASSES, FACTS)
    assert draft.settings["image-shape"] == "1x8x8"
    assert "scan-" not in output.read_text()
    assert "patient" not in output.read_text()


def test_mistakes_are_one_line(run: Run, joined: Words, tmp_path: Path) -> None:
    assert "say whose card" in run("card", "show").error
    assert "say whose card" in run("card", "show", *joined, "--identity", tmp_path).error
    assert "cannot be reached" in run("card", "accept", *joined, "--service", "127.0.0.1:1").error
