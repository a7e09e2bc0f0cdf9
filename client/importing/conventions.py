"""How a site turns picture files into records, kept in its folder so that every later file is treated alike."""

from __future__ import annotations

import json
from dataclasses import dataclass

from fedmunkey.client.importing.pictures import Choices
from fedmunkey.client.importing.splits import SplitRule
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidInput, KeyStoreError
from fedmunkey.common.private_files import replace_file
from fedmunkey.common.settings.settings import ImageShape
from fedmunkey.common.settings.settings_text import ConfigValue

FILE = "pictures.json"
_FORMAT = 1


@dataclass(frozen=True)
class Conventions:
    """What the first import has settled.

    Attributes
    ----------
    image_shape : ImageShape
        What every picture is brought to.
    classes : tuple of str
        In the order of their numbers.
    volume_slice : str
        What was chosen of volumes, as it was typed; empty if nothing was.
    rule : SplitRule
        How subjects are divided into splits.
    settings : dict
        The federation's settings that were given, under their kebab-case names.
    frame : str
        What was chosen of files with several frames, as it was typed; empty if nothing was.
    bits : int, optional
        How many of a PNG's 16 bits hold grey values.
    """

    image_shape: ImageShape
    classes: tuple[str, ...]
    volume_slice: str
    rule: SplitRule
    settings: dict[str, ConfigValue]
    frame: str = ""
    bits: int | None = None

    @property
    def choices(self) -> Choices:
        """What is taken of files that hold more than one picture, or do not say how deep it is."""
        return Choices.parse(self.volume_slice, self.frame, self.bits)


def read_conventions(folder: SiteFolder) -> Conventions | None:
    """Return what a site's first import has settled, None before it; raises `KeyStoreError` if it is damaged."""
    path = folder.path / FILE
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != _FORMAT:
            raise ValueError("another format")
        found = Conventions(
            image_shape=ImageShape.parse(content["image_shape"]),
            classes=tuple(str(name) for name in content["classes"]),
            volume_slice=str(content["slice"]),
            rule=SplitRule(**content["splits"]),
            settings=dict(content["settings"]),
            frame=str(content.get("frame", "")),
            bits=content.get("bits"),
        )
        # Read once here, so that a damaged file is told from what a person types.
        _ = found.choices
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (KeyError, TypeError, ValueError, InvalidInput):
        raise KeyStoreError(f"{path} is damaged; restore it, or remove it and give its settings again") from None
    return found


def write_conventions(folder: SiteFolder, conventions: Conventions) -> None:
    """Keep what an import has settled; a reader finds the old file or the new one, never half."""
    path = folder.path / FILE
    content = {
        "format": _FORMAT,
        "image_shape": str(conventions.image_shape),
        "classes": list(conventions.classes),
        "slice": conventions.volume_slice,
        "splits": {"seed": conventions.rule.seed, "val": conventions.rule.val, "test": conventions.rule.test},
        "settings": conventions.settings,
        "frame": conventions.frame,
        "bits": conventions.bits,
    }
    replace_file(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode(), 0o600)
