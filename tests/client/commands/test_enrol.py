from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmunkey.client.importing import site_enrolment
from fedmunkey.client.importing.encoding import encode
from fedmunkey.client.learning.neighbour_index import list_arrivals
from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER
from fedmunkey.common.errors import BankChanged
from fedmunkey.common.privacy.guarantees import Guarantee

from .conftest import OTHER, SITE, STORE_FILES, TEST, TRAIN, Run, write_records


def test_first_enrolment_makes_the_sites_folder(run: Run, tmp_path: Path, enrolment: list[object]) -> None:
    shown = run(*enrolment, "--json").json

    folder = SiteFolder(tmp_path / SITE)
    assert (shown["site"], shown["added"], shown["known"], shown["refused"]) == (SITE, TRAIN + TEST, 0, 0)
    assert shown["records"] == {"train": TRAIN, "val": 0, "test": TEST}
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.secret.stat().st_mode & 0o777 == 0o600
    assert folder.key_store.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in folder.path.iterdir()} == STORE_FILES
    with folder.open() as store:
        assert store.description.site == SITE
        # Under exact nobody reads neighbour lists of records.
        assert len(store.records.read_unlisted()) == TRAIN + TEST


def test_later_enrolment_adds_what_is_not_known(run: Run, folder: SiteFolder, tmp_path: Path) -> None:
    more = write_records(tmp_path / "more.npz", name="later", train=4)

    ended = run("enrol", "--site-dir", folder.path, "--site", SITE, "--data", more)
    again = run("enrol", "--site-dir", folder.path, "--site", SITE, "--data", more, "--json")

    assert ended.code == 0
    assert ended.out.splitlines()[-1].split() == [SITE, "10", "0", "0", "0", "74", "0", "12"]
    assert (again.json["added"], again.json["known"]) == (0, 10)


def test_arrivals_are_listed_where_neighbours_are_read(run: Run, enrolment: list[object], tmp_path: Path) -> None:
    more = write_records(tmp_path / "more.npz", name="later", train=4)

    assert run(*enrolment, "--guarantee", "certified").code == 0
    assert run("enrol", "--site-dir", tmp_path / SITE, "--site", SITE, "--data", more).code == 0

    with SiteFolder(tmp_path / SITE).open() as store:
        assert store.records.count(Split.TRAIN) == TRAIN + 4
        assert len(store.records.read_unlisted()) == 0


def test_interrupted_enrolment_is_resumed(run: Run, enrolment: list[object], monkeypatch: pytest.MonkeyPatch) -> None:

    def interrupted(*arguments: Any) -> Iterator[Any]:
        yield next(encode(*arguments))
        raise KeyboardInterrupt

    encoded: list[int] = []

    def counted(encoder: Any, dataset: Any) -> Iterator[Any]:
        encoded.append(len(dataset))
        return encode(encoder, dataset)

    monkeypatch.setattr(site_enrolment, "encode", interrupted)
    stopped = run(*enrolment, "--json")
    monkeypatch.setattr(site_enrolment, "encode", counted)
    shown = run(*enrolment, "--json").json

    assert stopped.code == 130
    assert shown["known"] > 0
    assert sum(encoded) == shown["added"]
    assert shown["added"] + shown["known"] == TRAIN + TEST


def test_folder_without_a_store_is_completed(run: Run, tmp_path: Path, secret: Path, enrolment: list[object]) -> None:
    (tmp_path / SITE).mkdir()
    FederationSecret.read(secret).write(tmp_path / SITE / "federation.secret")

    assert run(*enrolment, "--json").json["added"] == TRAIN + TEST


def test_lost_copy_of_the_secret_is_made_again(run: Run, folder: SiteFolder, enrolment: list[object]) -> None:
    folder.secret.unlink()

    assert run(*enrolment, "--json").json["known"] == TRAIN + TEST
    assert folder.secret.stat().st_mode & 0o777 == 0o600


def test_lists_are_made_amid_deletions(run: Run, enrolment: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([BankChanged("entries were deleted")])

    def changed_once(*arguments: Any) -> None:
        for error in calls:
            raise error
        list_arrivals(*arguments)

    monkeypatch.setattr(site_enrolment, "list_arrivals", changed_once)

    assert run(*enrolment, "--guarantee", "certified").code == 0
    assert next(calls, None) is None


def test_federation_may_have_more_classes_than_the_site(run: Run, enrolment: list[object], tmp_path: Path) -> None:
    one_class = {"train_labels": np.zeros(TRAIN, int), "test_labels": np.zeros(TEST, int)}
    write_records(tmp_path / "scans.npz", changes=one_class)

    assert run(*enrolment).code == 0
    assert run(*enrolment, "--set", "num-classes=7").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--guarantee", "certified", "--epsilon", "2", "--delta", "1e-6"],
        ["--set", "guarantee=certified", "--set", "epsilon=2", "--set", "delta=1e-6"],
    ],
)
def test_first_enrolment_is_the_promise(run: Run, enrolment: list[object], tmp_path: Path, words: list[str]) -> None:
    first = run(*enrolment, *words)
    again = run(*enrolment, *words)
    without_asking = run(*enrolment)

    assert (first.code, again.code, without_asking.code) == (0, 0, 0)
    with SiteFolder(tmp_path / SITE).open() as store:
        promised = store.description
    assert (promised.guarantee, promised.epsilon, promised.delta) == (Guarantee.CERTIFIED, 2.0, 1e-6)


def test_consent_is_that_of_the_file_unless_its_rows_say_it(run: Run, enrolment: list[object], tmp_path: Path) -> None:
    one_is_public = np.array(["permanent"] + ["revocable"] * (TRAIN - 1))
    said = write_records(tmp_path / "said.npz", name="said", changes={"train_consents": one_is_public})

    run(*enrolment, "--consent", "permanent")
    with SiteFolder(tmp_path / SITE).open() as store:
        donated = store.records.count_consents()
    run(*enrolment, "--data", said, "--consent", "permanent")

    with SiteFolder(tmp_path / SITE).open() as store:
        both = store.records.count_consents()
    assert donated == {Consent.PERMANENT: TRAIN + TEST}
    assert both == {Consent.PERMANENT: TRAIN + TEST + 1 + TEST, Consent.REVOCABLE: TRAIN - 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--guarantee", "sworn"], "sworn"),
        (["--epsilon", "0"], "epsilon = 0"),
        (["--delta", "1"], "delta = 1"),
        (["--consent", "perhaps"], "perhaps"),
        (["--data", "{tmp}/absent.npz"], "no such file"),
        (["--site", OFFICER], "cannot be a site's name"),
        (["--site", " "], "cannot be a site's name"),
        (["--secret", "{tmp}/absent.secret"], "absent.secret cannot be read"),
        (["--set", "image-shape=3x8x8"], "the images are 1x8x8"),
        (["--set", "neighbors=2"], "did you mean neighbours?"),
        (["--set", "width"], "key=value"),
        (["--encoder", "descriptr"], "did you mean descriptor?"),
        (["--weights", "{tmp}/weights.pth"], "the descriptor has no weights"),
        (["--new-consent", "{tmp}/absent.txt"], "absent.txt cannot be read"),
        (["--new-consent", "{tmp}/strangers.txt"], "1 of the 2 record ids"),
        (["--new-consent", "{tmp}/empty.txt"], "holds no id"),
        (["--new-consent", "{tmp}/latin.txt"], "not a UTF-8 text file"),
    ],
)
def test_mistake_adds_nothing(
    run: Run, enrolment: list[object], tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "strangers.txt").write_text("scan-1\nstranger-1\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("Händel".encode("latin-1"))

    assert message in run(*enrolment, *(word.format(tmp=tmp_path) for word in words)).error
    assert not (tmp_path / SITE).exists()


def test_fewer_classes_than_the_data_have_are_refused(run: Run, enrolment: list[object], tmp_path: Path) -> None:
    write_records(tmp_path / "scans.npz", changes={"train_labels": np.arange(TRAIN) % 5})

    assert "there are 5 classes" in run(*enrolment, "--set", "num-classes=3").error


def test_first_enrolment_needs_the_secret(run: Run, enrolment: list[object]) -> None:
    assert "munkey-client secret" in run(*enrolment[:-2]).error


def test_enrolment_into_a_file_is_one_line(run: Run, enrolment: list[object], tmp_path: Path) -> None:
    (tmp_path / SITE).write_text("in the way")

    assert SITE in run(*enrolment).error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--site", OTHER], "belongs to site 'hospital-1'"),
        (["--secret", "{tmp}/other.secret"], "another secret"),
        (["--data", "{tmp}/colour.npz"], "--encoder"),
        (["--data", "{tmp}/large.npz"], "images of 1x8x8"),
        (["--set", "image-path=frozen"], "--set image-path=patches"),
        (["--set", "exemplar-size=16"], "exemplar-size = 16"),
        (["--guarantee", "empirical"], "promised its patients guarantee = exact, not empirical; leave --guarantee out"),
        (["--set", "guarantee=certified"], "promised its patients guarantee = exact, not certified"),
        (["--epsilon", "2.5"], "promised its patients epsilon = 3.0, not 2.5; leave --epsilon out"),
        (["--delta", "1e-6"], "promised its patients delta = 1e-05, not 1e-06; leave --delta out"),
    ],
)
def test_what_does_not_fit_the_key_store_is_not_written(
    run: Run, folder: SiteFolder, enrolment: list[object], tmp_path: Path, words: list[str], message: str
) -> None:
    FederationSecret.generate().write(tmp_path / "other.secret")
    for name, size in (("colour", (8, 8, 3)), ("large", (16, 16))):
        images = {f"{split}_images": np.zeros((n, *size), np.uint8) for split, n in (("train", TRAIN), ("test", TEST))}
        write_records(tmp_path / f"{name}.npz", name, changes=images)

    assert message in run(*enrolment, *(word.format(tmp=tmp_path) for word in words)).error
    with folder.open() as store:
        assert store.records.count(Split.TRAIN) == TRAIN


def test_other_secret_is_refused(run: Run, folder: SiteFolder, enrolment: list[object], tmp_path: Path) -> None:
    folder.secret.unlink()
    FederationSecret.generate().write(tmp_path / "other.secret")

    assert "another federation secret" in run(*enrolment, "--secret", tmp_path / "other.secret").error
    assert not folder.secret.exists()
