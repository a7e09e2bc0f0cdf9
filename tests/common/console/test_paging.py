"""Pages of a list: none is lost past the first, and what an address names wrongly is still a page."""

from __future__ import annotations

import pytest

from fedmunkey.common.console.paging import Paging, page_number


@pytest.mark.parametrize(("total", "pages"), [(0, 1), (1, 1), (50, 1), (51, 2), (1000, 20)])
def test_pages_together_hold_every_row_once(total: int, pages: int) -> None:
    rows = list(range(total))
    shown = [Paging(page, 50, total, "/sites", {}) for page in range(1, pages + 1)]

    assert {paging.pages for paging in shown} == {pages}
    assert [row for paging in shown for row in paging.cut(rows)] == rows


def test_page_behind_the_last_is_the_last() -> None:
    paging = Paging(99, 50, 120, "/sites", {})

    assert (paging.page, list(paging.cut(range(120)))) == (3, list(range(100, 120)))


def test_link_keeps_what_was_chosen_and_the_first_page_has_no_number() -> None:
    paging = Paging(2, 50, 120, "/requests", {"state": ["overdue", "erased"], "site": ""}, "moves")

    assert paging.link() == "/requests?state=overdue&state=erased&moves=2"
    assert paging.link(1) == "/requests?state=overdue&state=erased"


@pytest.mark.parametrize("said", ["", "0", "-1", "x", "1.5", "\u0663", "9" * 30])
def test_what_is_no_page_is_the_first(said: str) -> None:
    assert page_number(said) == 1
