"""A site's folder, and whether what is in it fits the federation."""

from __future__ import annotations

import math
import stat
from pathlib import Path

import pytest

from fedmunkey.client.key_store import StoreDescription
from fedmunkey.client.key_store.on_disk.contents import SLACK
from fedmunkey.client.site import SiteFolder, check_promise, describe_store, hospital_name, model_shape
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.errors import InvalidInput, InvalidSetting, KeyStoreError
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath, ImageShape, Settings

ENCODER = DescriptorEncoder(1)


def shape_of(settings: Settings) -> ModelShape:
    return ModelShape.of(Recipe.of(settings), ENCODER.feature_shape)


def described(**settings: object) -> StoreDescription:
    chosen = Settings().replace(**settings)
    return describe_store("hospital-1", chosen, ENCODER, shape_of(chosen))


def test_deployed_node_names_its_folder() -> None:
    folder = SiteFolder.locate({"site-dir": "/srv/site", "partition-id": 3}, Settings())

    assert folder == SiteFolder(Path("/srv/site"))
    assert folder.key_store == Path("/srv/site/keystore.sqlite")
    assert folder.secret == Path("/srv/site/federation.secret")


@pytest.mark.parametrize("partition", [0, "0"])
def test_simulated_node_has_the_folder_of_its_partition(partition: object) -> None:
    settings = Settings(sites_dir="run/sites")

    assert SiteFolder.locate({"partition-id": partition}, settings).path == Path("run/sites") / hospital_name(1)


def test_node_without_a_folder_says_how_to_give_it_one() -> None:
    with pytest.raises(InvalidSetting, match="no site-dir; start it with --node-config 'site-dir="):
        SiteFolder.locate({}, Settings())


def test_folder_is_its_owners_alone(tmp_path: Path, small: Settings) -> None:
    folder = SiteFolder(tmp_path / "sites" / "hospital-1")
    folder.path.mkdir(parents=True, mode=0o755)

    with folder.create("hospital-1", small, ENCODER, shape_of(small)) as store:
        assert store.description.site == "hospital-1"

    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    with folder.open() as store:
        assert store.description.key_size == ENCODER.key_size


def test_secret_is_read_from_the_folder(tmp_path: Path) -> None:
    folder, secret = SiteFolder(tmp_path), FederationSecret.generate()
    with pytest.raises(InvalidInput, match=r"federation\.secret cannot be read"):
        folder.read_secret()

    secret.write(folder.secret)

    assert folder.read_secret().reference("a") == secret.reference("a")


def test_noise_key_may_be_fixed_for_a_simulation(tmp_path: Path, small: Settings) -> None:
    folder, key = SiteFolder(tmp_path / "hospital-1"), bytes(range(32))

    folder.create("hospital-1", small, ENCODER, shape_of(small), noise_key=key).close()

    with folder.open() as store:
        assert store.draw_noise_key() == key


@pytest.mark.parametrize("path", [ImagePath.PATCHES, ImagePath.FROZEN])
def test_store_fits_the_settings_that_it_was_made_for(path: ImagePath) -> None:
    settings = Settings(image_path=path, neighbours=5)
    description = describe_store("hospital-1", settings, ENCODER, shape_of(settings))

    assert description == StoreDescription(
        site="hospital-1",
        encoder=ENCODER.fingerprint,
        key_size=ENCODER.key_size,
        image_path=path,
        input_shape=(1, 8, 8) if path is ImagePath.PATCHES else ENCODER.feature_shape,
        exemplar_size=128,
        list_length=5 + SLACK,
        guarantee=settings.guarantee,
        epsilon=settings.epsilon,
        delta=settings.delta,
    )
    assert model_shape(settings, description) == shape_of(settings)
    # "auto" means what the store holds.
    assert model_shape(Settings(), description).image_path is path


CERTIFIED = {"guarantee": "certified"}
TOO_MANY = 4 + SLACK + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_shape": ImageShape((1, 16, 16))}, "images of 1x8x8, the federation has image-shape = 1x16x16"),
        ({"exemplar_size": 64}, "exemplar tokens of 128 numbers, the federation has exemplar-size = 64; enrol"),
        (
            {**CERTIFIED, "neighbours": 4 + SLACK + 1},
            f"keeps {4 + SLACK} neighbours .* neighbours = {4 + SLACK + 1}; enrol",
        ),
    ],
)
def test_store_that_was_made_for_other_settings_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(KeyStoreError, match=message):
        model_shape(Settings().replace(**changes), described())


def test_lists_may_be_of_any_length_where_weights_are_solved_for() -> None:
    assert model_shape(Settings(neighbours=TOO_MANY), described()).num_classes == 10


def test_lists_are_long_enough_for_a_larger_k() -> None:
    assert model_shape(Settings(guarantee=Guarantee.CERTIFIED, neighbours=4 + SLACK), described()).exemplar_size == 128


def test_frozen_features_do_not_depend_on_the_size_of_images() -> None:
    settings = Settings(image_shape=ImageShape((1, 16, 16)))

    assert model_shape(settings, described(image_path=ImagePath.FROZEN)).input_shape == ENCODER.feature_shape


@pytest.mark.parametrize(
    ("promised", "trained"),
    [
        *((guarantee, {"guarantee": guarantee}) for guarantee in Guarantee),
        (Guarantee.CERTIFIED, {"guarantee": "exact", "epsilon": 9.0}),
        (Guarantee.EMPIRICAL, {"guarantee": "exact"}),
        (Guarantee.EMPIRICAL, {"guarantee": "certified", "epsilon": 9.0, "delta": 0.1}),
        (Guarantee.CERTIFIED, {"guarantee": "certified", "epsilon": 1.0, "delta": 1e-9}),
    ],
)
def test_training_that_keeps_the_promise_is_let_through(promised: Guarantee, trained: dict[str, object]) -> None:
    check_promise(Settings().replace(**trained), described(guarantee=promised.value))


@pytest.mark.parametrize(
    ("promised", "trained", "message"),
    [
        ("exact", {"guarantee": "certified"}, "guarantee = exact, the federation has guarantee = certified"),
        ("exact", {"guarantee": "empirical"}, "guarantee = exact, the federation has guarantee = empirical"),
        ("certified", {"guarantee": "empirical"}, "guarantee = certified, the federation has guarantee = empirical"),
        ("certified", {"guarantee": "certified", "epsilon": 3.5}, "at most epsilon = 3, .* has epsilon = 3.5"),
        ("certified", {"guarantee": "certified", "epsilon": math.inf}, "at most epsilon = 3, .* has epsilon = inf"),
        ("certified", {"guarantee": "certified", "delta": 1e-4}, "at most delta = 1e-05, .* has delta = 0.0001"),
    ],
)
def test_training_that_breaks_the_promise_is_refused(promised: str, trained: dict[str, object], message: str) -> None:
    with pytest.raises(KeyStoreError, match=message) as refused:
        check_promise(Settings().replace(**trained), described(guarantee=promised))

    assert "ask the patients and enrol their records into a new store" in str(refused.value)
    assert "\n" not in str(refused.value)
