from __future__ import annotations

from pathlib import Path

from fedmunkey.client.importing.conventions import Conventions, write_conventions
from fedmunkey.client.importing.splits import SplitRule
from fedmunkey.client.key_store import KeyStore, Tokens
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, Records
from fedmunkey.common.privacy.guarantees import Influence
from fedmunkey.common.privacy.noisy_steps import NoisySteps
from fedmunkey.common.settings.settings import ImageShape

from .conftest import SITE, TEST, TRAIN, Run


def test_status_as_json(run: Run, folder: SiteFolder) -> None:
    with folder.open() as store:
        entries, _ = store.records.read_entries(Split.TRAIN)
        tokens = Tokens.zeros(5, store.description.exemplar_size)
        tokens.steps.fill_(1)
        store.records.write_tokens(store.generation, entries[:5], tokens)
        apply_order(store, "request-1")

    shown = run("status", "--site-dir", folder.path, "--json").json

    assert (shown["site"], shown["entries"], shown["last_order"], shown["generation"]) == (SITE, TRAIN, 1, 0)
    assert shown["records"] == {"train": TRAIN, "val": 0, "test": TEST}
    assert shown["consents"] == {"revocable": TRAIN + TEST}
    assert shown["classes"] == {"0": TRAIN // 2, "1": TRAIN // 2}
    assert (shown["trained_tokens"], shown["neighbours_listed"]) == (5, 8)
    assert shown["encoder"].startswith("descriptor")
    assert shown["bytes"] > 0
    assert (shown["guarantee"], shown["budget"], shown["spent"], shown["noisy_rounds"]) == ("exact", None, None, 0)
    (order,) = shown["orders"]
    assert (order["order"], order["request_id"], order["state"]) == (1, "request-1", "nothing-held")


def test_status_as_tables(run: Run, folder: SiteFolder) -> None:
    write_conventions(folder, Conventions(ImageShape((1, 8, 8)), ("benign", "malignant"), "", SplitRule(), {}))
    without_orders = run("status", "--site-dir", folder.path).out
    with folder.open() as store:
        apply_order(store, "request-1")
    with_orders = run("status", "--site-dir", folder.path).out

    assert f"classes 0 benign: {TRAIN // 2}, 1 malignant: {TRAIN // 2}" in " ".join(without_orders.split())
    assert f"train {TRAIN}, val 0, test {TEST}" in without_orders
    assert "request" not in without_orders
    assert with_orders.splitlines()[-1].split()[:6] == ["request-1", "nothing-held", "exact", "1", "0", "0"]


def test_status_shows_what_was_promised_and_spent(run: Run, enrolment: list[object], tmp_path: Path) -> None:
    run(*enrolment, "--guarantee", "certified", "--epsilon", 8, "--delta", "1e-6")
    folder = SiteFolder(tmp_path / SITE)
    with folder.open() as store:
        entries, _ = store.records.read_entries(Split.TRAIN)
        training = store.privacy.begin(NoisySteps(1, 1.0, 4.0), 1)
        tokens = Tokens.zeros(5, store.description.exemplar_size)
        store.records.write_tokens(store.generation, entries[:5], tokens, used=Influence.BOUNDED, training=training)
        spent = store.privacy.loss().epsilon

    shown = run("status", "--site-dir", folder.path, "--json").json
    table = run("status", "--site-dir", folder.path).out

    assert shown["guarantee"] == "certified"
    assert shown["budget"] == {"epsilon": 8.0, "delta": 1e-6}
    assert shown["spent"] == {"epsilon": spent, "delta": 1e-6, "records": 1}
    assert shown["noisy_rounds"] == 1
    assert shown["influences"] == {"bounded": 5, "none": TRAIN + TEST - 5}
    assert "epsilon 8, delta 1e-06" in table
    assert f"epsilon {spent:g}, delta 1e-06, records 1" in table
    assert f"bounded 5, none {TRAIN + TEST - 5}" in table


def test_status_of_a_budget_without_bound_is_json(run: Run, enrolment: list[object], tmp_path: Path) -> None:
    run(*enrolment, "--guarantee", "certified", "--epsilon", "inf")
    words = ["status", "--site-dir", tmp_path / SITE]

    assert run(*words, "--json").json["budget"]["epsilon"] is None
    assert "epsilon unbounded, delta 1e-05" in run(*words).out


def test_status_without_a_key_store_is_one_line(run: Run, tmp_path: Path) -> None:
    assert "munkey-client enrol" in run("status", "--site-dir", tmp_path / "absent").error


def apply_order(store: KeyStore, request_id: str) -> None:
    request = DeletionRequest(request_id, SITE, Records(frozenset([bytes(32)]), SITE))
    store.orders.apply(DeletionOrder(store.orders.last + 1, SITE, request))
