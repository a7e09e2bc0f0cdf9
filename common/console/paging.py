"""Pages of a list that is too long for one: which is shown, and where the others are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fedmunkey.common.console.pages import address

PAGE_SIZE = 50
"""Rows on a page."""

_LARGEST = 10**9
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Paging:
    """One page of a list.

    Attributes
    ----------
    asked : int
        The page that was asked for, from 1 on.
    size, total : int
        Rows on a page, and on all together.
    path : str
        Where the list is.
    filters : mapping
        What else an address of it says.
    name : str
        What an address calls the page.
    """

    asked: int
    size: int
    total: int
    path: str
    filters: Mapping[str, object]
    name: str = "page"

    @property
    def pages(self) -> int:
        """How many there are, one at least."""
        return max(1, -(-self.total // self.size))

    @property
    def page(self) -> int:
        """Which one is shown: of one that was there a moment ago, or never, the last."""
        return min(self.asked, self.pages)

    def link(self, page: int | None = None) -> str:
        """Return the address of a page, by default of the one that is shown."""
        number = page or self.page
        return address(self.path, **self.filters, **{self.name: number if number > 1 else None})

    def cut(self, rows: Sequence[_Row]) -> Sequence[_Row]:
        """Return the rows of the page that is shown."""
        return rows[self.size * (self.page - 1) :][: self.size]


def page_number(said: str) -> int:
    """Return the page that an address names, the first where it names none."""
    return int(said) if said.isascii() and said.isdigit() and 0 < int(said) < _LARGEST else 1
