"""What holds for an import: what a person asks for, on top of what the site's first import has settled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from fedmunkey.client.importing.agreement import (
    check_classes_asked,
    check_conventions,
    classes_shown,
    own_settings,
)
from fedmunkey.client.importing.class_names import choose_classes, count_labels
from fedmunkey.client.importing.conventions import Conventions
from fedmunkey.client.importing.manifest import Manifest
from fedmunkey.client.importing.site_enrolment import fit_classes
from fedmunkey.client.importing.splits import SplitRule
from fedmunkey.client.records.medmnist_files import ArrayFile
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidDataset, InvalidInput
from fedmunkey.common.model.federation_card import FederationCard
from fedmunkey.common.settings.settings import ImagePath, ImageShape, Settings
from fedmunkey.common.settings.settings_text import ConfigValue

_SHAPE, _WEIGHTS = "image-shape", "encoder-weights"
_NOT_KEPT = frozenset({"guarantee", "epsilon", "delta", "num-classes", _SHAPE})
"""Settings that are kept elsewhere: the key store has what was promised to the patients."""


@dataclass(frozen=True)
class Asked:
    """What a person asks for; None, or nothing, leaves it as it is or takes the default."""

    classes: tuple[str, ...] = ()
    volume_slice: str | None = None
    seed: int | None = None
    val: float | None = None
    test: float | None = None
    settings: dict[str, ConfigValue] = field(default_factory=dict)
    frame: str | None = None
    bits: int | None = None


def settle(
    folder: SiteFolder, manifest: Manifest, held: Conventions | None, asked: Asked, card: FederationCard | None = None
) -> tuple[Conventions, Settings]:
    """Return conventions and settings of an import; nothing is written. What the federation card says need not be told.

    Raises `InvalidInput` if something is asked for that differs from what the site has settled, or cannot be, and
    `CardMismatch` if it, or what the site has settled, is not as the members have agreed.
    """
    if card is not None:
        check_conventions(card, held)
        if asked.classes:
            check_classes_asked(card, asked.classes, "--class")
        asked = replace(asked, classes=card.classes, settings={_SHAPE: card.image_shape, **asked.settings})
        card.check({_SHAPE: asked.settings[_SHAPE]}, "--image-shape", "leave it out")
    merged = _merged(held, asked.settings, card)
    labels = count_labels((row.number, row.label, row.subject_id) for row in manifest.rows)
    classes = choose_classes(asked.classes, held.classes if held else (), labels, str(manifest.path))
    settings = fit_classes({**merged, _SHAPE: _image_shape(folder, held, asked)}, len(classes), card)
    conventions = Conventions(
        image_shape=settings.image_shape,
        classes=classes,
        volume_slice=_kept("slice", held.volume_slice if held else "", asked.volume_slice),
        rule=_rule(held, asked),
        settings=_without_promises(merged),
        frame=_kept("frame", held.frame if held else "", asked.frame),
        bits=int(_kept("bits", str((held and held.bits) or ""), None if asked.bits is None else str(asked.bits)) or 0)
        or None,
    )
    _ = conventions.choices
    return conventions, settings


def settle_array_file(
    path: Path,
    found: ArrayFile,
    held: Conventions | None,
    given: dict[str, ConfigValue],
    card: FederationCard | None = None,
) -> Conventions | None:
    """Return the conventions of a site that takes in an array file: as they were, or with the names of its classes.

    A file without names is of the classes that the federation card or the site has. Raises `InvalidInput` if its names
    would give a number that the site has another meaning, `CardMismatch` if images or names are not as the members have
    agreed, and `InvalidDataset` if it has labels that the site has no class for.
    """
    if card is not None:
        check_conventions(card, held)
        found = _under(card, path, found)
        held = None if held is None else replace(held, classes=card.classes)
    if found.class_names is None:
        if held is None and int(found.dataset.labels.min()) > 0:
            raise InvalidDataset(
                f"{path}: the labels are numbers from {found.dataset.labels.min()}, but classes are numbered from 0; "
                "number them so, or add the array class_names"
            )
        if held is not None and found.dataset.num_classes > len(held.classes):
            raise InvalidDataset(
                f"{path}: there are {found.dataset.num_classes} classes, and the site has {', '.join(held.classes)}; "
                "add the array class_names, these first and in this order"
            )
        return held
    if held is not None:
        if found.class_names[: len(held.classes)] != held.classes and held.classes[: len(found.class_names)] != (
            found.class_names
        ):
            raise InvalidInput(
                f"{path}: its class_names are {', '.join(found.class_names)}, the site's classes are "
                f"{', '.join(held.classes)}; number its labels in that order"
            )
        return replace(held, classes=max(held.classes, found.class_names, key=len))
    settings = _without_promises(_merged(None, given, card))
    return Conventions(found.dataset.image_shape, found.class_names, "", SplitRule(), settings)


def _under(card: FederationCard, path: Path, found: ArrayFile) -> ArrayFile:
    """Return an array file with the names of the card's classes, which its own names and images must be of."""
    card.check({_SHAPE: str(found.dataset.image_shape)}, str(path), "bring the images to the card's shape")
    names = found.class_names
    if names is not None and names != card.classes[: len(names)]:
        check_classes_asked(card, names, f"class_names of {path}")
    if found.dataset.num_classes > len(card.classes):
        raise InvalidDataset(
            f"{path}: there are {found.dataset.num_classes} classes, and the federation card (version {card.version}) "
            f"has {classes_shown(card)}; number the labels so"
        )
    return replace(found, class_names=card.classes)


def _merged(
    held: Conventions | None, given: dict[str, ConfigValue], card: FederationCard | None = None
) -> dict[str, ConfigValue]:
    merged = {**own_settings(held, card), **given}
    if merged.get(_WEIGHTS):
        # The file must be found again from wherever a later command is typed.
        merged[_WEIGHTS] = str(Path(str(merged[_WEIGHTS])).resolve())
    return merged


def _without_promises(settings: dict[str, ConfigValue]) -> dict[str, ConfigValue]:
    return {name: value for name, value in settings.items() if name not in _NOT_KEPT}


def _image_shape(folder: SiteFolder, held: Conventions | None, asked: Asked) -> str:
    given = asked.settings.get(_SHAPE)
    if held is not None:
        if given is not None and str(given).lower() != str(held.image_shape):
            raise InvalidInput(
                f"the site's images are {held.image_shape}, not {given}; leave --image-shape out, or choose another "
                "--site-dir"
            )
        return str(held.image_shape)
    if given is not None:
        return str(given)
    if folder.key_store.exists():
        with folder.open() as store:
            if store.description.image_path is ImagePath.PATCHES:
                channels, height, width = store.description.input_shape
                return str(ImageShape((channels, height, width)))
    raise InvalidInput("say what the federation's images are with --image-shape, such as --image-shape 1x28x28")


def _kept(option: str, before: str, asked: str | None) -> str:
    """Return what holds of an option that decides how files are read; raises `InvalidInput` if it would change."""
    if asked is None:
        return before
    if before and asked != before:
        raise InvalidInput(f"the site takes --{option} {before} for its pictures; leave --{option} out")
    return asked


def _rule(held: Conventions | None, asked: Asked) -> SplitRule:
    before = held.rule if held else None
    start = before or SplitRule()
    wanted = SplitRule(
        start.seed if asked.seed is None else asked.seed,
        start.val if asked.val is None else asked.val,
        start.test if asked.test is None else asked.test,
    )
    if before is not None and wanted != before:
        raise InvalidInput(
            f"the site divides its subjects with --split-seed {before.seed} --val-share {before.val:g} --test-share "
            f"{before.test:g}; leave these out"
        )
    return wanted
