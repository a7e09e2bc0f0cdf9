"""A page of what the model will see, by class: pictures as they are brought to the federation's shape, and their greys.

It shows patients. So it is written into the site's folder only, for its owner alone to read, and goes with the next
import and with the next deletion; what it shows can be read from it again, so that a check of an erasure finds it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import count_of
from fedmunkey.common.private_files import make_private_folder, replace_file

_MARK = "<!-- fedmunkey contact sheet: pictures of patients -->"
_SHOWN = 24
"""Pictures of a class that are shown; the histogram is of all."""

_BINS, _BAR, _HIGH = 64, 4, 60
_PICTURE = re.compile(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"')
_STYLE = (
    "body{font:14px/1.5 sans-serif;margin:2em;max-width:70em}"
    "figure{display:inline-block;margin:4px;text-align:center}"
    "img{width:96px;image-rendering:pixelated;background:#888}"
    "figcaption{font-size:11px;color:#555}svg{display:block;background:#eee}"
    ".warning{border:2px solid #a00;padding:.5em 1em}"
)


@dataclass
class _OfClass:
    """A class's pictures: how many, how often each grey level comes, those of one level, and some to show."""

    pictures: int = 0
    flat: int = 0
    levels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    shown: list[tuple[bytes, int, NDArray[np.uint8]]] = field(default_factory=list)


class ContactSheet:
    """Collects pictures and writes the page; which of a class's pictures are shown is a draw by their rows."""

    def __init__(self, site: str, classes: tuple[str, ...]) -> None:
        self._site = site
        self._classes = {name: _OfClass() for name in classes}
        self._names = classes

    def add(self, row: int, label: int, image: NDArray[np.uint8]) -> None:
        """Take in a (C, H, W) picture that stands in a row of the manifest."""
        of_class = self._classes[self._names[label]]
        of_class.pictures += 1
        of_class.flat += int(image.min() == image.max())
        of_class.levels += np.bincount(image.ravel(), minlength=256)
        of_class.shown.append((hashlib.sha256(str(row).encode()).digest(), row, image.copy()))
        if len(of_class.shown) > _SHOWN:
            of_class.shown.remove(max(of_class.shown, key=lambda each: each[0]))

    def write(self, folder: SiteFolder) -> Path:
        """Write the page into a site's folder, which is made if there is none; return where it is."""
        make_private_folder(folder.path)
        replace_file(folder.contact_sheet, self._page().encode(), 0o600)
        return folder.contact_sheet

    def _page(self) -> str:
        site = html.escape(self._site)
        parts = [
            f'<!doctype html>\n{_MARK}\n<html lang="en"><meta charset="utf-8"><title>Contact sheet of {site}</title>',
            f"<style>{_STYLE}</style><h1>Contact sheet of {site}</h1>",
            '<p class="warning">These are pictures of patients, as the model will see them. Do not copy this file or '
            "send it on: it stays in the site's folder, and the next import and every deletion remove it.</p>",
        ]
        parts += [_section(name, of_class) for name, of_class in self._classes.items()]
        return "\n".join([*parts, "</html>\n"])


def deleted_pictures(store: KeyStore, folders: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    """Yield contact sheets below some folders that show pictures of deleted records, and how many."""
    for path in sorted({path for folder in folders for path in folder.rglob("*.html")}):
        text = path.read_text(errors="replace") if path.is_file() and not path.is_symlink() else ""
        if _MARK in text:
            pictures = (_decoded(found[1]) for found in _PICTURE.finditer(text))
            count = sum(store.records.has_deleted_image(picture) for picture in pictures)
            if count:
                yield path, count


def _section(name: str, of_class: _OfClass) -> str:
    flat = f", {of_class.flat} of a single grey level" if of_class.flat else ""
    figures = "".join(
        f'<figure><img src="data:image/png;base64,{_encoded(image)}" alt=""><figcaption>row {row}</figcaption></figure>'
        for _, row, image in sorted(of_class.shown, key=lambda each: each[1])
    )
    counts = f"{count_of(of_class.pictures, 'picture')}{flat}; {len(of_class.shown)} shown"
    heading = f"<h2>{html.escape(name)}</h2><p>{counts}</p>"
    return f"{heading}{_histogram(of_class.levels)}<div>{figures}</div>"


def _histogram(levels: NDArray[np.int64]) -> str:
    """Draw how many values there are of each grey level, black at the left, as high as the most frequent."""
    bins = levels.reshape(_BINS, -1).sum(axis=1)
    heights = np.rint(bins / max(int(bins.max()), 1) * _HIGH).astype(int).tolist()
    bars = "".join(
        f'<rect x="{place * _BAR}" y="{_HIGH - height}" width="{_BAR}" height="{height}"/>'
        for place, height in enumerate(heights)
    )
    return f'<svg width="{_BINS * _BAR}" height="{_HIGH}" role="img" aria-label="histogram of grey levels">{bars}</svg>'


def _encoded(image: NDArray[np.uint8]) -> str:
    # A page is made by one command of many.
    from PIL import Image

    content = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode()


def _decoded(text: str) -> NDArray[np.uint8]:
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
