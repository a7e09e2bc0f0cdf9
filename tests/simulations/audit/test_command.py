"""`munkey-sim audit` as a person uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.simulations.audit import command
from fedmunkey.simulations.federation import encoded_set
from fedmunkey.simulations.forget_sets.registry import FORGET_SETS
from fedmunkey.simulations.reporting.document import validate
from tests.simulations.conftest import MunkeySim, first_digits, write_npz

QUICK = ["--hospitals", "2", "--seeds", "1", "--permanent", "50%", "--forget", "5%", "--budget", "1"]
SETTINGS = ["image-path=frozen", "num-rounds=2", "random-features=50", "exemplar-size=8", "seed=7"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many digits as verdicts need."""
    some = first_digits({Split.TRAIN: 300, Split.VAL: 30, Split.TEST: 100})
    return write_npz(some, tmp_path_factory.mktemp("data") / "digits.npz")


@pytest.fixture
def run(
    munkey_sim: MunkeySim, tmp_path: Path, digits: Path, tasks_here: Callable[[ModuleType], list[Any]]
) -> MunkeySim:
    """Run `munkey-sim audit` on some digits, in this process."""
    tasks_here(command)
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    place = ["--data", str(digits), "--output", str(tmp_path / "audit")]
    return lambda *words: munkey_sim("audit", *place, *QUICK, *settings, *words)


def test_exact_federation_passes_and_the_report_says_how(run: MunkeySim, tmp_path: Path) -> None:
    code, out, err = run("--shadows", "4")

    assert code == 0, err
    assert "FLAGGED" not in out
    assert "Verdicts" in out
    assert "likelihood ratio (U-LiRA), AUROC" in out
    assert out.splitlines()[-1] == f"report: {tmp_path / 'audit' / 'report.html'}"
    document = json.loads((tmp_path / "audit" / "report.json").read_text())
    validate(document)
    assert document["headline"]["passed"] is True
    assert document["guarantee"]["identical"] is True
    assert document["question"]["canaries"] > 0
    assert {verdict["name"] for verdict in document["verdicts"]} >= {"oracle", "banks", "bytes", "attacks", "canaries"}
    html = (tmp_path / "audit" / "report.html").read_text()
    assert "What this does not show" in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_attacks_are_those_that_were_named_and_stand_in_table_json_and_page(run: MunkeySim, tmp_path: Path) -> None:
    code, out, err = run("--attack", "near-duplicates", "--attack", "going-on", "--shadows", "4")

    assert code == 0, err
    assert "near duplicates, AUROC" in out
    assert "Near duplicates are as unknown" in out
    document = json.loads((tmp_path / "audit" / "report.json").read_text())
    validate(document)
    assert [attack["name"] for attack in document["attacks"]] == ["going-on", "near-duplicates"]
    assert {"going-on", "near-duplicates", "subgroups"} <= {verdict["name"] for verdict in document["verdicts"]}
    html = (tmp_path / "audit" / "report.html").read_text()
    assert "does what was forgotten come back?" in html


def test_certified_federation_has_its_claimed_privacy_loss_beside_the_one_that_attacks_prove(run: MunkeySim) -> None:
    words = ["--guarantee", "certified", "--attack", "loss-threshold", "--forget", "20%", "--epsilon", "4", "--json"]
    code, out, err = run(*words)

    assert code == 0, err
    document = json.loads(out)
    (verdict,) = [one for one in document["verdicts"] if one["name"] == "epsilon"]
    assert verdict["passed"]
    assert verdict["figures"]["claimed"] == pytest.approx(document["guarantee"]["epsilon"])
    assert verdict["figures"]["proved"] <= verdict["figures"]["claimed"] <= 4


def test_nothing_done_on_a_plain_transformer_is_flagged(run: MunkeySim, few_npz: Path) -> None:
    by_heart = ["num-rounds=8", "local-epochs=12", "batch-size=16", "learning-rate=0.005", "label-smoothing=0"]
    words = ["--data", few_npz, "--permanent", "0%", "--forget", "20%", "--forget-set", "canaries"]
    words += [word for setting in (*by_heart, "width=32", "heads=2") for word in ("--set", setting)]
    code, out, _ = run("--method", "nothing", "--shadows", "0", "--json", *words)

    assert code == 0
    document = json.loads(out)
    assert document["headline"]["passed"] is False
    assert [verdict["name"] for verdict in document["verdicts"] if not verdict["passed"]] == ["canaries"]


@pytest.mark.parametrize("name", sorted(name for name in FORGET_SETS if name != "sequence-50"))
def test_every_forget_set_can_be_audited(run: MunkeySim, name: str) -> None:
    code, out, err = run("--forget-set", name, "--shadows", "0", "--json")

    assert (code, err) == (0, "")
    document = json.loads(out)
    validate(document)
    assert document["question"]["forget_set"]["name"] == name
    assert document["question"]["forgotten"] > 0
    flagged = {verdict["name"] for verdict in document["verdicts"] if not verdict["passed"]}
    assert flagged == set(), document["headline"]["sentence"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--method", "magic"], "--method magic: is unknown; choose from munkey-exact"),
        (["--forget-set", "everyone"], "--forget-set everyone: is unknown; choose from random"),
        (["--attack", "magic"], "--attack magic: is unknown; choose from loss-threshold, "),
        (["--thorough", "--attack", "label-only"], "--thorough: means all attacks; leave it out, or name no --attack"),
        (["--shadows", "3"], "--shadows 3: give 0, or an even number of at least 4"),
        (["--guarantee", "perfect"], "'perfect' is not one of 'exact', 'certified', 'empirical'"),
        (["--set", "guarantee=exact"], "guarantee = exact: give it with --guarantee"),
        (["--forget", "101%"], "101% is out of range; give from 0% to 100%"),
        (["--encoder", "squeezenet9"], "encoder = squeezenet9: unknown"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_computed(
    run: MunkeySim, monkeypatch: pytest.MonkeyPatch, words: list[str], reason: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(encoded_set, "encode_all", None)

    code, out, err = run(*words)

    (line,) = err.splitlines()
    assert (code, out) == (EXIT_CODE, "")
    assert reason in line
    assert not (tmp_path / "audit").exists()
