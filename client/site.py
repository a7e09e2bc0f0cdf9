"""A site's folder: its key store, and the federation's secret that sites and officers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedmunkey.client.key_store import KeyStore, StoreDescription
from fedmunkey.client.key_store.on_disk.journal import Journal
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.errors import InvalidProof, InvalidSetting, KeyStoreError
from fedmunkey.common.identities import Identity
from fedmunkey.common.identities.identity import IDENTITY_FOLDER
from fedmunkey.common.identities.signed_card import CARDS_FOLDER
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKeys
from fedmunkey.common.settings.settings import ImagePath, Settings

# What only forgets needs no model, and importing torch would take it seconds.
if TYPE_CHECKING:
    from fedmunkey.common.model.encoders import Encoder
    from fedmunkey.common.model.model import ModelShape, Munkey

AGAIN = "again"
"""In the facts about the shared weights: they are those of an earlier run."""

_ASK = "train as promised, or ask the patients and enrol their records into a new store"


@dataclass(frozen=True)
class SiteFolder:
    """Where everything that a site keeps lies; nothing in it leaves the site."""

    path: Path

    @classmethod
    def locate(cls, node_config: Mapping[str, object], settings: Settings) -> SiteFolder:
        """Return the folder of the site that a Flower node stands for.

        A deployed SuperNode is started with `--node-config 'site-dir="/srv/fedmunkey"'`. A simulated node has a
        `partition-id`, which is its place among the folders hospital-1, hospital-2, ... in `sites-dir`. Raises
        `InvalidSetting` if the node has neither.
        """
        if "site-dir" in node_config:
            return cls(Path(str(node_config["site-dir"])))
        if "partition-id" in node_config:
            return cls(Path(settings.sites_dir) / hospital_name(int(str(node_config["partition-id"])) + 1))
        raise InvalidSetting("this node has no site-dir; start it with --node-config 'site-dir=\"FOLDER\"'")

    @property
    def key_store(self) -> Path:
        """The key store's file."""
        return self.path / "keystore.sqlite"

    @property
    def secret(self) -> Path:
        """The federation's secret."""
        return self.path / "federation.secret"

    @property
    def signing_key(self) -> Path:
        """The site's private key, with which it signs requests and receipts."""
        return self.path / "site-key.pem"

    @property
    def trust(self) -> Path:
        """The public keys that the site trusts, by which it checks orders."""
        return self.path / "trust.json"

    @property
    def contact_sheet(self) -> Path:
        """A page with pictures of patients that a dry run of an import has left."""
        return self.path / "contact-sheet.html"

    def remove_contact_sheet(self) -> None:
        """Remove what a dry run has left, if it has: no copy of a picture outlives a deletion."""
        self.contact_sheet.unlink(missing_ok=True)

    @property
    def cards(self) -> Path:
        """The folder of the federation cards that the site has taken over."""
        return self.path / CARDS_FOLDER

    @property
    def identity(self) -> Path:
        """The folder of the site's identity, which it shows to the deletion service."""
        return self.path / IDENTITY_FOLDER

    def find_identity(self) -> Identity | None:
        """Return the site's identity, or None if it has none; raises `InvalidIdentity` if it cannot be used."""
        return Identity.find(self.identity)

    def checks_orders(self) -> bool:
        """Return whether there are trusted keys, by which each order is checked.

        Raises `InvalidProof` if there are none although the site has joined a federation: it never becomes one that
        carries out what anybody asks for because a file was lost.
        """
        checks = self.trust.exists()
        if not checks and self.identity.exists():
            raise InvalidProof(
                f"{self.trust} is missing, and a site that has joined carries out no order without it; put its copy "
                "back, or trust officers and the log again with munkey-client trust add --in the site's folder"
            )
        return checks

    @property
    def shared_weights(self) -> Path:
        """The shared weights that the site has last taken over."""
        return self.path / "shared.safetensors"

    def write_shared_weights(self, model: Munkey, settings: Settings, *, again: bool = False) -> None:
        """Answer from some shared weights from now on; with `again` they are those of an earlier run.

        No exemplar token in the key store was trained with these then, unless some were kept for them.
        """
        from fedmunkey.common.model.checkpoints import Checkpoint, write_checkpoint

        about = {"guarantee": settings.guarantee.value, AGAIN: again}
        write_checkpoint(self.shared_weights, Checkpoint(model.state_dict(), model.shape, settings.encoder, about))

    def create(
        self,
        site: str,
        settings: Settings,
        encoder: Encoder,
        shape: ModelShape,
        *,
        noise_key: bytes | None = None,
        master_key: Path | None = None,
        earlier: Path | None = None,
    ) -> KeyStore:
        """Make the folder and an empty key store for a site, as `KeyStore.create`, which raises `KeyStoreError`."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)
        description = describe_store(site, settings, encoder, shape)
        return KeyStore.create(self.key_store, description, noise_key=noise_key, master_key=master_key, earlier=earlier)

    def open(self) -> KeyStore:
        """Open the site's key store; raises `KeyStoreError` if there is none or it cannot be used."""
        return KeyStore.open(self.key_store)

    def open_to_hear(self, *, insecure: bool = False, accept_log: bool = False) -> KeyStore:
        """Open the site's key store, as `open`, for a program that carries out orders.

        With `insecure` these are anybody's, which a site that has joined never carries out; with `accept_log` the log
        is taken as it is, where what the site had seen of it is lost. Raises `InvalidProof` where either is missing.
        """
        checks = self.checks_orders()
        if not checks and not insecure:
            raise InvalidProof(
                f"{self.path} has no trusted keys, so it would carry out anybody's orders; run munkey-client join, or "
                "for development add --insecure-orders (insecure-orders=true to a SuperNode's --node-config)"
            )
        store = self.open()
        try:
            if accept_log:
                store.journal.forget_lost_log()
            if checks:
                check_witness_state(store.journal, TrustedKeys.read(self.trust))
        except BaseException:
            store.close()
            raise
        return store

    def read_secret(self) -> FederationSecret:
        """Return the federation's secret; raises `InvalidInput` if the file is missing or damaged."""
        return FederationSecret.read(self.secret)


def check_witness_state(journal: Journal, trust: TrustedKeys) -> None:
    """Check that a site still has what a witness needs: the head of the log that it saw last, and the log's key.

    Whoever begins again with whatever the coordinator shows is no witness of what was before. Raises `InvalidProof`.
    """
    seen, trusted = journal.has_seen_log(), bool(trust.of(Role.LOG))
    if seen and not trusted:
        raise InvalidProof(
            "trust.json has no key of the coordinator's log any more, which the site has seen; put its copy back, or "
            "munkey-client trust add coordinator KEY --role log --in the site's folder"
        )
    if seen is None and trusted:
        raise InvalidProof(
            "what the site has seen of the coordinator's log is lost; put keystore.journal back from its disk's "
            "mirror, or compare the log with what others see and then run munkey-client catch-up --accept-log"
        )


def hospital_name(number: int) -> str:
    """Return the name of a simulated site, numbered from 1."""
    return f"hospital-{number}"


def describe_store(site: str, settings: Settings, encoder: Encoder, shape: ModelShape) -> StoreDescription:
    """Return what a key store for these settings must look like."""
    from fedmunkey.client.key_store.on_disk.contents import SLACK
    from fedmunkey.common.model.recipe import Recipe

    return StoreDescription(
        site=site,
        encoder=encoder.fingerprint,
        key_size=encoder.key_size,
        image_path=shape.image_path,
        input_shape=shape.input_shape,
        exemplar_size=shape.exemplar_size,
        list_length=Recipe.of(settings).neighbours + SLACK,
        guarantee=settings.guarantee,
        epsilon=settings.epsilon,
        delta=settings.delta,
    )


def check_promise(settings: Settings, description: StoreDescription) -> None:
    """Check that training as the settings say keeps what the site has promised its patients.

    Raises `KeyStoreError` if the federation's guarantee is weaker than the site's, or both are `CERTIFIED` and its
    budget is larger.
    """
    held = description.guarantee
    if Guarantee.weakest([held, settings.guarantee]) is not held:
        raise KeyStoreError(
            f"the site has promised its patients guarantee = {held}, the federation has guarantee = "
            f"{settings.guarantee}, which is weaker; {_ASK}"
        )
    if held is not Guarantee.CERTIFIED or settings.guarantee is not Guarantee.CERTIFIED:
        return
    for name, promised, wanted in (
        ("epsilon", description.epsilon, settings.epsilon),
        ("delta", description.delta, settings.delta),
    ):
        if wanted > promised:
            raise KeyStoreError(
                f"the site has promised its patients at most {name} = {promised:g}, the federation has {name} = "
                f"{wanted:g}, which is more; {_ASK}"
            )


def model_shape(settings: Settings, description: StoreDescription) -> ModelShape:
    """Return the shape of the model that the settings ask for, on what this site's key store holds.

    Raises `KeyStoreError` if the store was made for other settings.
    """
    from fedmunkey.common.model.model import ModelShape
    from fedmunkey.common.model.recipe import Recipe

    patches = description.image_path is ImagePath.PATCHES
    if patches and tuple(settings.image_shape) != description.input_shape:
        held = "x".join(str(size) for size in description.input_shape)
        raise KeyStoreError(
            f"the key store holds images of {held}, the federation has image-shape = {settings.image_shape}"
        )
    if settings.exemplar_size != description.exemplar_size:
        raise KeyStoreError(
            f"the key store has exemplar tokens of {description.exemplar_size} numbers, the federation has "
            f"exemplar-size = {settings.exemplar_size}; enrol the records into a new store"
        )
    recipe = Recipe.of(settings)
    # Where weights are solved for, nothing reads the lists.
    if not recipe.route.solved and (neighbours := recipe.neighbours) > description.list_length:
        raise KeyStoreError(
            f"the key store keeps {description.list_length} neighbours of a record, the federation has "
            f"neighbours = {neighbours}; enrol the records into a new store"
        )
    features = (0, 0) if patches else (description.input_shape[0], description.input_shape[1])
    return ModelShape.of(Recipe.of(settings.replace(image_path=description.image_path.value)), features)
