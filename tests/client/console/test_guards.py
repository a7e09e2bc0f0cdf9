"""What stands before the officer's console: sessions, hosts, forms of other pages, and what a browser may do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from fedmunkey.common.console.guard import LARGEST_BODY
from fedmunkey.common.console.session import MOST_TRIES
from tests.console_case import ConsoleCase, csrf_of, forms, running_console


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleCase]:
    with running_console(tmp_path_factory.mktemp("console")) as running:
        running.ask("request-1")
        running.answer()
        yield running


@pytest.fixture
def browser(case: ConsoleCase) -> Iterator[httpx.Client]:
    with case.client() as client:
        yield client


def paths(case: ConsoleCase, method: str) -> list[str]:
    routes = [
        route for route in case.face.app.routes if isinstance(route, APIRoute) and method in (route.methods or ())
    ]
    filled = [re.sub(r"{[^}]+}", "request-1", route.path) for route in routes]
    return [path for path in filled if path not in ("/open", "/events")]


def test_nothing_is_shown_or_done_without_a_session(case: ConsoleCase) -> None:
    with case.stranger() as stranger:
        shown = {path: stranger.get(path) for path in [*paths(case, "GET"), "/events"]}
        done = {path: stranger.post(path, data={"request": "request-1"}) for path in paths(case, "POST")}

    assert len(shown) > 10
    assert len(done) > 5
    for path, answer in (shown | done).items():
        assert answer.status_code == 401, path
        assert "request-1" not in answer.text


def test_forms_of_other_pages_do_nothing(case: ConsoleCase, browser: httpx.Client) -> None:
    token = csrf_of(browser)
    for path in paths(case, "POST"):
        assert browser.post(path, data={"csrf": "guessed"}).status_code == 403, path
        assert browser.post(path, content=b"").status_code == 403, path
        elsewhere = browser.post(path, data={"csrf": token}, headers={"sec-fetch-site": "cross-site"})
        assert elsewhere.status_code == 403, path

    assert browser.get("/requests").status_code == 200


def test_every_form_carries_the_token_and_no_page_a_script_of_its_own(case: ConsoleCase, browser: httpx.Client) -> None:
    token = csrf_of(browser)
    for path in paths(case, "GET"):
        page = browser.get(path).text
        assert forms(page, token), path
        assert not re.findall(r"<script(?! src=\"/static/)|\son[a-z]+=|<style|\sstyle=|https?://", page), path


def test_page_elsewhere_whose_name_points_here_is_sent_away(case: ConsoleCase, browser: httpx.Client) -> None:
    for host in ("hospital.example", f"hospital.example:{case.address.rpartition(':')[2]}", "127.0.0.1:1", ""):
        assert browser.get("/requests", headers={"host": host}).status_code == 421


def test_cookie_is_for_this_console_and_no_script(case: ConsoleCase) -> None:
    with httpx.Client(base_url=case.url) as client:
        answer = client.get(case.face.entrance.address(case.address))
    cookie = answer.headers["set-cookie"].lower()

    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    assert cookie.startswith(f"munkey-console-{case.address.rpartition(':')[2]}=")
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_answers_say_what_a_browser_may_do_and_are_kept_nowhere(browser: httpx.Client) -> None:
    for path in ("/requests", "/requests/none", "/static/console.js"):
        headers = browser.get(path).headers
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert (headers["cache-control"] == "no-store") == (not path.startswith("/static"))
        assert "server" not in headers


def test_link_opens_once_and_guessing_is_stopped(tmp_path: Path) -> None:
    with running_console(tmp_path) as case, case.stranger() as one, case.stranger() as other:
        link = case.face.entrance.address(case.address)
        assert one.get(link).status_code == 200
        assert other.get(link).status_code == 403
        for number in range(MOST_TRIES):
            last = other.get(f"/open?token=wrong-{number}").status_code
        assert last == 429
        # Nobody who is in is put out by that.
        assert one.get("/requests").status_code == 200


def test_session_that_was_ended_sees_nothing_any_more(tmp_path: Path) -> None:
    ended: list[int] = []
    with running_console(tmp_path, on_closed=lambda: ended.append(1)) as case, case.client() as client:
        cookies = dict(client.cookies)
        assert client.post("/end", data={"csrf": csrf_of(client)}).status_code == 200
        client.cookies.update(cookies)

        assert client.get("/requests").status_code == 401
        assert ended == [1]


def test_form_that_is_too_large_is_not_read(browser: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(LARGEST_BODY // 2**20 + 1):
            yield bytes(2**20)

    assert browser.post("/new", content=b"x" * (LARGEST_BODY + 1)).status_code == 413
    assert browser.post("/new", content=endless()).status_code == 413
