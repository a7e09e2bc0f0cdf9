"""`munkey-client enrol`: records from a file into a site's key store, which is made if there is none."""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import Progress, TaskID

from client.commands.display import plain_table, progress_bars
from client.commands.faults import faults_explained
from client.commands.options import JsonOption, SiteDirOption, read_ids
from client.dataset import Consent, Dataset, Split
from client.enrolment import encode
from client.enrolment import enrol as enrol_batches
from client.exact_state import read_shared_model, refresh_tokens
from client.key_store import Enrolled, KeyStore, StoreDescription
from client.key_store.key_file import clear_unused_keys, key_file_of, master_key_of
from client.medmnist_files import read_npz
from client.neighbour_index import list_arrivals
from client.site import SiteFolder, describe_store, model_shape
from common import command_line
from common.deletion import DATA_PROTECTION_OFFICER
from common.encoders import Encoder
from common.errors import BankChanged, InvalidDataset, InvalidInput, InvalidSetting, KeyStoreError
from common.guarantees import Guarantee
from common.model import ModelShape
from common.model_choice import choose_encoder, choose_shape
from common.references import FederationSecret
from common.settings import ConfigValue, Settings, parse_assignments

_FEWEST_CLASSES = 2
"""A site may hold one class only, a federation has at least two."""


@faults_explained()
def enrol(
    site_dir: SiteDirOption,
    site: Annotated[str, typer.Option(help="The site's name, as the coordinator knows it.")],
    data: Annotated[Path, typer.Option(help="Records in the MedMNIST layout (.npz).")],
    secret: Annotated[
        Path | None,
        typer.Option(help="The federation secret; needed the first time, the site's folder keeps a copy."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="A setting of the federation as key=value, see docs/settings.md. Repeatable."),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Short for --set encoder=NAME.")] = None,
    weights: Annotated[str | None, typer.Option(help="Short for --set encoder-weights=FILE.")] = None,
    guarantee: Annotated[
        Guarantee | None,
        typer.Option(help="What the site promises its patients a deletion means; short for --set guarantee=NAME."),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="With certified, the promised budget; short for --set epsilon=NUMBER.")
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="With certified, how often it may fail; short for --set delta=NUMBER.")
    ] = None,
    consent: Annotated[
        Consent, typer.Option(help="Consent of the records of this file, unless the file says it for each of them.")
    ] = Consent.REVOCABLE,
    new_consent: Annotated[
        Path | None,
        typer.Option(help="Record ids, one a line, that were deleted and for which consent was given anew."),
    ] = None,
    master_key: Annotated[
        Path | None,
        typer.Option(help="Where the master key of a site that is made is kept; beside the key store by default."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add records to a site's key store, and make the site's folder the first time.

    Give the settings that the federation trains with; image shape and number of classes come from the data.
    Guarantee, epsilon and delta are promised to the patients the first time, and cannot be changed later.
    If it is interrupted, run it again: it goes on where it was.

    Example: munkey-client enrol --site-dir hospital-1 --site hospital-1 --data scans.npz --secret federation.secret
    """
    _check_site(site)
    dataset = read_npz(data, consent=consent)
    consents = _read_consents(new_consent, dataset, data)
    overrides = parse_assignments(setting or [])
    shorthands = {
        "encoder": encoder,
        "encoder-weights": weights,
        "guarantee": guarantee,
        "epsilon": epsilon,
        "delta": delta,
    }
    overrides |= {
        name: value.value if isinstance(value, StrEnum) else value
        for name, value in shorthands.items()
        if value is not None
    }
    settings = _fit_to_data(overrides, dataset)
    folder = SiteFolder(site_dir)
    shared = _read_secret(folder, secret)
    shape = choose_shape(settings)
    enrolment = _Enrolment(
        folder, site, settings, choose_encoder(settings), shape, shared, frozenset(overrides), master_key
    )
    enrolment.check()
    with enrolment.open() as store, progress_bars(quiet=as_json) as bars:
        enrolled = enrolment.add(store, dataset, consents, bars)
        _list_neighbours(store, bars)
        _compute_tokens(folder, store, bars)
        totals = {split.value: store.count(split) for split in Split}
    _show(site, enrolled, totals, as_json)


@dataclass(frozen=True)
class _Enrolment:
    """Everything that was chosen for an enrolment but the records; `asked` names the settings that a person gave."""

    folder: SiteFolder
    site: str
    settings: Settings
    encoder: Encoder
    shape: ModelShape
    secret: FederationSecret
    asked: frozenset[str]
    master_key: Path | None

    def check(self) -> None:
        """Check that what is to be enrolled fits the key store, if there is one.

        Raises
        ------
        KeyStoreError
            If the store is another site's, or was made for other settings or with another secret.
        """
        if not self.folder.key_store.exists():
            return
        wanted = describe_store(self.site, self.settings, self.encoder, self.shape)
        with self.folder.open() as store:
            held = store.description
            if held.site != wanted.site:
                raise KeyStoreError(
                    f"{self.folder.path} belongs to site {held.site!r}, not {wanted.site!r}; choose another --site-dir"
                )
            if held.encoder != wanted.encoder:
                raise KeyStoreError(
                    f"the key store's keys are of encoder {held.encoder}, these would be of {wanted.encoder}; "
                    "give the same --encoder and --weights, or choose another --site-dir"
                )
            if held.image_path is not wanted.image_path:
                raise KeyStoreError(
                    f"the key store was made for image-path = {held.image_path}, not {wanted.image_path}; "
                    f"add --set image-path={held.image_path}, or choose another --site-dir"
                )
            model_shape(self.settings, held)
            self._check_promise(held)
            if not store.agrees_with(self.secret):
                raise KeyStoreError(
                    f"the records in {self.folder.path} were enrolled with another federation secret; give that one"
                )

    def _check_promise(self, held: StoreDescription) -> None:
        """Check that no other promise was asked for than the one that the store's patients were given."""
        for name, promised, wanted in (
            ("guarantee", held.guarantee, self.settings.guarantee),
            ("epsilon", held.epsilon, self.settings.epsilon),
            ("delta", held.delta, self.settings.delta),
        ):
            if name in self.asked and wanted != promised:
                raise KeyStoreError(
                    f"the site has promised its patients {name} = {promised}, not {wanted}; leave --{name} out to add "
                    "records under that promise, or choose another --site-dir"
                )

    def open(self) -> KeyStore:
        """Open the site's key store, making what the site's folder lacks.

        Each file is made aside and appears complete or not at all, so that an interrupted enrolment can go on.
        """
        if not (self.folder.key_store.exists() and self.folder.secret.exists()):
            self.folder.path.mkdir(parents=True, exist_ok=True)
            self.folder.path.chmod(0o700)
            with tempfile.TemporaryDirectory(prefix=".enrolling-", dir=self.folder.path) as aside:
                making = SiteFolder(Path(aside))
                if not self.folder.secret.exists():
                    self.secret.write(making.secret)
                    os.link(making.secret, self.folder.secret)
                if not self.folder.key_store.exists():
                    made, kept = making.key_store, self.folder.key_store
                    clear_unused_keys(kept)
                    making.create(
                        self.site, self.settings, self.encoder, self.shape, master_key=self.master_key
                    ).close()
                    # The store last: without its keys it would be of no use.
                    if self.master_key is None:
                        os.link(master_key_of(made), master_key_of(kept))
                    os.link(key_file_of(made), key_file_of(kept))
                    os.link(made, kept)
        return self.folder.open()

    def add(self, store: KeyStore, dataset: Dataset, new_consent: frozenset[str], bars: Progress) -> Enrolled:
        """Encode and add the records that the store does not hold yet."""
        held = np.array([store.holds(self.secret.reference(record)) for record in dataset.record_ids], dtype=np.bool_)
        known = int(held.sum())
        task = bars.add_task("encoding images", total=len(dataset), completed=known)
        return Enrolled(known=known) + enrol_batches(
            store,
            encode(self.encoder, dataset.select(~held)),
            self.secret,
            new_consent=new_consent,
            progress=lambda more: bars.update(task, advance=more),
        )


def _check_site(site: str) -> None:
    if not site or not site.isprintable() or site != site.strip():
        raise InvalidInput(f"--site {site!r} cannot be a site's name: use printable characters")
    if site == DATA_PROTECTION_OFFICER:
        raise InvalidInput(f"--site {site!r} cannot be a site's name: its holder may ask for everything")


def _read_consents(path: Path | None, dataset: Dataset, data: Path) -> frozenset[str]:
    if path is None:
        return frozenset()
    ids = frozenset(read_ids(path))
    unknown = len(ids.difference(dataset.record_ids.tolist()))
    if unknown:
        raise InvalidDataset(f"{unknown} of the {len(ids)} record ids in {path} are not in {data}; correct them")
    return ids


def _fit_to_data(overrides: dict[str, ConfigValue], dataset: Dataset) -> Settings:
    found = {"image-shape": str(dataset.image_shape), "num-classes": max(dataset.num_classes, _FEWEST_CLASSES)}
    settings = Settings.parse({**found, **overrides})
    if settings.image_shape != dataset.image_shape:
        raise InvalidSetting(
            f"image-shape = {settings.image_shape}: the images are {dataset.image_shape}; leave the setting out"
        )
    if settings.num_classes < dataset.num_classes:
        raise InvalidSetting(
            f"num-classes = {settings.num_classes}: the data have {dataset.num_classes} classes; "
            "give at least as many, or leave the setting out"
        )
    return settings


def _read_secret(folder: SiteFolder, path: Path | None) -> FederationSecret:
    if path is None:
        if not folder.secret.exists():
            raise InvalidInput(
                f"{folder.path} has no federation secret yet; name it with --secret (munkey-client secret makes one)"
            )
        return folder.read_secret()
    given = FederationSecret.read(path)
    if folder.secret.exists() and folder.read_secret().reference("") != given.reference(""):
        raise InvalidInput(f"{path} is another secret than the one in {folder.path}; leave --secret out")
    return given


def _list_neighbours(store: KeyStore, bars: Progress) -> None:
    tasks: dict[str, TaskID] = {}

    def show(what: str, done: int, total: int) -> None:
        task = tasks.get(what)
        if task is None:
            task = tasks[what] = bars.add_task(what)
        bars.update(task, completed=done, total=total)

    while True:
        try:
            return list_arrivals(store, show)
        except BankChanged:
            # The site's agent carried out a deletion meanwhile; what is left to list is listed without it.
            continue


def _compute_tokens(folder: SiteFolder, store: KeyStore, bars: Progress) -> None:
    """Give arrivals the tokens that follow from the site's shared weights, where tokens are not trained."""
    model = read_shared_model(folder)
    if model is not None and store.description.guarantee is not Guarantee.EMPIRICAL:
        task = bars.add_task("computing exemplar tokens", total=store.count(Split.TRAIN))
        refresh_tokens(store, model, lambda more: bars.update(task, advance=more))


def _show(site: str, enrolled: Enrolled, totals: dict[str, int], as_json: bool) -> None:
    if as_json:
        command_line.print_json({"site": site, **asdict(enrolled), "records": totals})
        return
    table = plain_table("site", numbers=("added", "known", "refused", *totals))
    table.add_row(site, *map(str, (enrolled.added, enrolled.known, enrolled.refused, *totals.values())))
    command_line.print_table(table)
    if enrolled.refused:
        typer.echo(
            f"{enrolled.refused} refused: they or their subjects were deleted; "
            "list those with new consent in a file for --new-consent"
        )
