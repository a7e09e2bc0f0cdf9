"""`munkey-server card` as a person types it, and runs that do not agree with the card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedmunkey.common.identities.card_draft import CardDraft
from fedmunkey.common.identities.signed_card import CARDS_FOLDER
from fedmunkey.common.model.torchvision_import import import_torchvision
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.transparency_log.leaves import LeafKind
from fedmunkey.server.transparency_log.log import TransparencyLog
from fedmunkey.server.transparency_log.log_key import open_log_key
from tests.typed import Run

CLASSES = ["--class", "benign", "--class", "malignant"]
SHAPE = ["--image-shape", "1x28x28"]


@pytest.fixture
def where(run: Run, tmp_path: Path) -> list[object]:
    """The option that names a coordinator's folder that was just made."""
    words: list[object] = ["--coordinator-dir", tmp_path / "coordinator"]
    assert run("init", "--host", "127.0.0.1", *words).code == 0
    return words


@pytest.fixture
def made(run: Run, where: list[object]) -> list[object]:
    """Likewise, with a card."""
    assert run("card", "make", *CLASSES, *SHAPE, *where).code == 0
    return where


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with weights of SqueezeNet that nobody has trained."""
    return untrained(tmp_path_factory.mktemp("weights") / "squeezenet1_0.pth", 0)


def untrained(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    torch.save(import_torchvision().models.squeezenet1_0(weights=None).state_dict(), path)
    return path


def kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "coordinator" / CARDS_FOLDER).glob("*")}


def test_card_says_what_was_given_and_what_follows(run: Run, made: list[object]) -> None:
    card = run("card", "show", *made, "--json").json

    assert card["classes"] == ["benign", "malignant"]
    assert card["version"] == 1
    told = {"image-shape": "1x28x28", "guarantee": "exact", "encoder": "descriptor", "features": "1x28x28"}
    assert told.items() <= card["fields"].items()
    shown = run("card", "show", *made).out
    assert f"digest                 {card['digest']}" in shown
    assert "classes                benign, malignant" in shown


def test_init_makes_the_first_card_where_it_is_told_what_it_says(run: Run, tmp_path: Path) -> None:
    words = ["init", "--host", "127.0.0.1", "--coordinator-dir", tmp_path / "coordinator"]

    assert "--class NAME for each" in run(*words, *SHAPE).error
    assert "--image-shape" in run(*words, *CLASSES).error
    assert not (tmp_path / "coordinator").exists()
    made = run(*words, *CLASSES, *SHAPE, "--json").json

    assert run("card", "show", "--coordinator-dir", tmp_path / "coordinator", "--json").json["digest"] == made["card"]


def test_later_version_keeps_what_is_not_given_says_why_and_is_in_the_log(
    run: Run, made: list[object], tmp_path: Path
) -> None:
    before = kept(tmp_path)
    words = ["card", "make", *CLASSES, "--class", "other", *made]

    assert "say why with --reason" in run(*words).error
    assert "says this already" in run("card", "make", *CLASSES, "--reason", "no change", *made).error
    assert kept(tmp_path) == before
    card = run(*words, "--reason", "a third finding", "--json").json

    assert (card["version"], card["fields"]["image-shape"]) == (2, "1x28x28")
    assert card["versions"][1]["reason"] == "a third finding"
    assert card["versions"][1]["changes"] == {
        "classes": {"before": "benign, malignant", "after": "benign, malignant, other"},
        "num-classes": {"before": "2", "after": "3"},
    }
    assert kept(tmp_path)["1.json"] == before["1.json"]
    assert "  classes: benign, malignant -> benign, malignant, other" in run("card", "show", *made).out
    assert run("card", "show", "--version", 1, *made, "--json").json["version"] == 1
    assert "there is no version 3" in run("card", "show", "--version", 3, *made).error
    folder = CoordinatorFolder(tmp_path / "coordinator")
    with Ledger(folder.ledger) as ledger:
        log = TransparencyLog(ledger.engine, open_log_key(folder.log_key, folder.ledger)[1])
        assert [log.number(LeafKind.CARD, version["digest"]) for version in card["versions"]] == [0, 1]


def test_what_an_encoder_decides_is_decided_anew_with_another_one(
    run: Run, made: list[object], weights: Path, tmp_path: Path
) -> None:
    other = tmp_path / "again.pth"
    torch.save(torch.load(weights, weights_only=True), other)
    encoder = ["--encoder", "squeezenet1_0", "--reason", "features"]
    card = run("card", "make", *encoder, "--weights", weights, *made, "--json").json

    fields = card["fields"]
    assert (fields["image-path"], fields["features"], fields["encoder-size"]) == ("frozen", "2x512", "112")
    assert fields["encoder-weights-sha256"].startswith(fields["encoder-weights"])
    # The same weights in another file are the same; and without a file they are those of the version before.
    assert "says this already" in run("card", "make", *encoder, "--weights", other, *made).error
    assert "says this already" in run("card", "make", *encoder, *made).error


def test_proposal_of_a_site_needs_no_weights_here(run: Run, made: list[object], weights: Path, tmp_path: Path) -> None:
    run("card", "make", "--encoder", "squeezenet1_0", "--weights", weights, "--reason", "features", *made)
    card = CoordinatorFolder(tmp_path / "coordinator").read_cards().cards[-1].card
    CardDraft(("first", "second"), card.encoder, card.settings).write(tmp_path / "proposal.json")
    elsewhere = ["--coordinator-dir", tmp_path / "another"]
    run("init", "--host", "127.0.0.1", *elsewhere)

    proposed = run("card", "make", "--proposal", tmp_path / "proposal.json", *elsewhere, "--json").json

    assert proposed["classes"] == ["first", "second"]
    assert proposed["fields"]["encoder-weights-sha256"] == card.encoder.weights


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (SHAPE, "--class NAME for each"),
        (CLASSES, "say what the federation's images are with --image-shape"),
        ([*CLASSES, "--class", "Benign", *SHAPE], "a name twice"),
        ([*CLASSES, *SHAPE, "--encoder", "squeezenet1_0", "--weights", "none.pth"], "there is no such file"),
        ([*CLASSES, *SHAPE, "--encoder", "squeeznet1_0"], "did you mean squeezenet1_0"),
        ([*CLASSES, *SHAPE, "--set", "patch-size=5"], "does not divide images"),
        ([*CLASSES, *SHAPE, "--proposal", "none.json"], "cannot be read"),
    ],
)
def test_mistake_is_one_line_and_makes_no_card(
    run: Run, where: list[object], tmp_path: Path, words: list[str], fault: str
) -> None:
    assert fault in run("card", "make", *words, *where).error
    assert kept(tmp_path) == {}


def test_changed_file_of_a_card_is_noticed(run: Run, made: list[object], tmp_path: Path) -> None:
    path = tmp_path / "coordinator" / CARDS_FOLDER / "1.json"
    path.write_bytes(path.read_bytes().replace(b'"sig":"M', b'"sig":"N').replace(b'"sig":"A', b'"sig":"M') + b" ")

    assert "1.json" in run("card", "show", *made).error


@pytest.fixture
def file(made: list[object], tmp_path: Path) -> Path:
    """The coordinator's settings; what members agree on is left to the card."""
    del made
    path = tmp_path / "coordinator.toml"
    path.write_text('coordinator-dir = "coordinator"\n[run]\nmin-sites = 3\n')
    return path


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("encoder=squeezenet1_0", "encoder is squeezenet1_0, the card has descriptor"),
        ("encoder-mirror=false", "encoder-mirror is false, the card has true"),
        ("encoder-weights=/nix.pth", "encoder-weights = /nix.pth: the descriptor has no weights"),
        ("image-shape=3x28x28", "image-shape is 3x28x28, the card has 1x28x28"),
        ("num-classes=3", "num-classes is 3, the card has 2"),
        ("guarantee=empirical", "guarantee is empirical, the card has exact"),
        ("fewest-changed=0", "fewest-changed is 0, the card has 10"),
    ],
)
def test_run_that_contradicts_the_card_is_refused_before_it_begins(
    run: Run, file: Path, tmp_path: Path, setting: str, said: str
) -> None:
    assert said in run("run", file, "--set", setting).error
    assert not (tmp_path / "coordinator" / "weights").exists()


def test_weights_that_a_run_names_are_those_of_the_card(
    run: Run, file: Path, made: list[object], weights: Path, tmp_path: Path
) -> None:
    run("card", "make", "--encoder", "squeezenet1_0", "--weights", weights, "--reason", "features", *made)
    other = untrained(tmp_path / "other.pth", 1)

    refused = run("run", file, "--set", f"encoder-weights={other}").error
    missing = run("run", file, "--set", "encoder-weights=/nix.pth").error

    assert "the run differs from the federation card (version 2): encoder-weights is" in refused
    assert "/nix.pth: there is no such file" in missing


def findings(run: Run, file: Path) -> list[str]:
    return [finding["what"] for finding in run("doctor", file, "--json").document["findings"]]


def test_file_of_settings_that_contradicts_the_card_is_found_before_anything_starts(run: Run, file: Path) -> None:
    assert not [line for line in findings(run, file) if "card" in line]

    file.write_text(file.read_text() + "num-classes = 3\n")

    (line,) = [line for line in findings(run, file) if "card" in line]
    assert line.startswith("no run can begin: ")
    assert "num-classes is 3, the card has 2" in line


def test_no_run_begins_without_a_card_but_weights_are_renewed(
    run: Run, where: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del where
    file = tmp_path / "coordinator.toml"
    file.write_text('coordinator-dir = "coordinator"\n')
    begun: list[object] = []

    def owes_nothing(coordinator: object) -> bool:
        begun.append(coordinator)
        return False

    monkeypatch.setattr("fedmunkey.server.superlink.run_command._owes_renewal", owes_nothing)

    assert "munkey-server card make --coordinator-dir" in run("run", file).error
    assert begun == []
    renewing = run("run", file, "--renew")

    assert (renewing.code, len(begun)) == (0, 1)
    assert renewing.err.startswith("warning: no federation card")
    assert "no federation card: nothing says what members must agree on" in run("up", file, "--check").out
