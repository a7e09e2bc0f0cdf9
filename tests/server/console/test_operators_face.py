"""What the operator sees and does in a browser: all requests, and what the commands do, through the same functions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from fedmunkey.common.console.face import PAINS
from fedmunkey.common.deletions.states import SiteState
from fedmunkey.common.deletions.words import Subject, WholeSite
from fedmunkey.common.identities import MemberRole
from fedmunkey.common.identities.invitation import Invitation
from fedmunkey.server.ledger.due import LONGEST_EXTENSION_DAYS
from tests.console_case import csrf_of, forms
from tests.coordinators_console_case import CoordinatorsConsole, coordinators_console
from tests.proof_case import SECRET, SITES

ONE, OTHER = SITES
SCREENS = (
    "/",
    "/requests",
    "/requests/waits",
    "/evidence/done",
    "/sites",
    "/members",
    "/overview",
    "/log",
    "/evidence",
)


@pytest.fixture
def case(tmp_path: Path) -> Iterator[CoordinatorsConsole]:
    with coordinators_console(tmp_path) as running:
        running.ask("done", Subject(SECRET.reference("one")))
        running.answer()
        running.ask("waits", WholeSite(ONE), requester=ONE)
        yield running


@pytest.fixture
def browser(case: CoordinatorsConsole) -> Iterator[httpx.Client]:
    with case.operator() as client:
        yield client


def post(browser: httpx.Client, path: str, **fields: str) -> httpx.Response:
    return browser.post(path, data={"csrf": csrf_of(browser), **fields})


def test_operator_sees_every_request_and_who_asked(browser: httpx.Client) -> None:
    shown = browser.get("/requests").text

    assert set(re.findall(r'data-request="([^"]+)"', shown)) == {"done", "waits"}
    assert f"by {ONE}" in shown
    assert "by officer" in shown


def test_every_screen_is_there_and_nothing_is_without_a_link(case: CoordinatorsConsole, browser: httpx.Client) -> None:
    token = csrf_of(browser)
    with httpx.Client(base_url=case.url) as stranger:
        for path in SCREENS:
            page = browser.get(path)
            assert page.status_code == 200, path
            assert forms(page.text, token), path
            assert stranger.get(path).status_code == 401, path


def test_certificate_is_checked_while_one_looks(browser: httpx.Client) -> None:
    assert "The certificate holds." in browser.get("/evidence/done").text
    assert "There is no certificate yet." in browser.get("/evidence/waits").text


def test_certificate_is_given_as_file_page_and_pdf(browser: httpx.Client) -> None:
    given = {kind: post(browser, "/certificate", request="done", **{"as": kind}) for kind in ("file", "html", "pdf")}

    assert json.loads(given["file"].content)
    assert given["html"].text.startswith("<!doctype html>")
    pdf = given["pdf"]
    # Without the extra, it is named.
    assert pdf.content.startswith(b"%PDF-") if pdf.status_code == 200 else "fedmunkey[pdf]" in pdf.text


def test_what_takes_pains_is_counted(browser: httpx.Client) -> None:
    token = csrf_of(browser)
    asked = {"csrf": token, "from": "2000-01-01", "to": "2000-01-02"}
    answers = [browser.post("/evidence", data=asked).status_code for _ in range(int(PAINS.at_once) + 2)]

    assert 429 in answers
    assert browser.get("/requests").status_code == 200


def test_log_is_checked_and_seen_to_grow(case: CoordinatorsConsole, browser: httpx.Client) -> None:
    assert "seen for the first time" in browser.get("/log").text
    case.ask("more")

    shown = browser.get("/log").text
    assert "extends the one of" in shown
    assert "coordinator" in shown


def test_request_is_given_more_time_once(case: CoordinatorsConsole, browser: httpx.Client) -> None:
    before = case.coordinator.ledger.status("waits").due_at
    assert before is not None
    assert "More time, once" in browser.get("/requests/waits").text

    shown = post(browser, "/extend", request="waits", days="10", reason="the site is moved")
    again = post(browser, "/extend", request="waits", days="10", reason="and again")

    status = case.coordinator.ledger.status("waits")
    assert (status.due_at, status.extension) == (before + timedelta(days=10), "the site is moved")
    assert f"due on {status.due_at:%Y-%m-%d}" in shown.text
    assert "More time, once" not in shown.text
    assert "cannot be extended twice" in again.text


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"days": "0", "reason": "x"}, f"extend by 1 to {LONGEST_EXTENSION_DAYS} days"),
        ({"days": "many", "reason": "x"}, f"extend by 1 to {LONGEST_EXTENSION_DAYS} days"),
        ({"days": "5", "reason": ""}, "needs a reason"),
        ({"days": "5", "reason": "x", "request": "done"}, "there is nothing to give it time for"),
    ],
)
def test_what_cannot_be_extended_is_said(
    case: CoordinatorsConsole, browser: httpx.Client, fields: dict[str, str], fault: str
) -> None:
    assert fault in post(browser, "/extend", **({"request": "waits"} | fields)).text
    assert case.coordinator.ledger.status("waits").extension == ""


def test_site_joins_leaves_and_comes_back(case: CoordinatorsConsole, browser: httpx.Client) -> None:
    assert "hospital-3 is in the federation" in post(browser, "/sites/add", site="hospital-3").text
    assert "hospital-3" in case.coordinator.ledger.site_names()

    unconfirmed = post(browser, "/sites/remove", site=ONE, reason="it has closed", word="hospital")
    assert "Not confirmed" in unconfirmed.text
    assert ONE in case.coordinator.ledger.site_names()

    left = post(browser, "/sites/remove", site=ONE, reason="it has closed", word=ONE)
    assert "1 order was not answered" in left.text
    assert ONE not in case.coordinator.ledger.site_names()
    assert case.coordinator.ledger.status("waits").sites[0].state is SiteState.LEFT
    assert "left the federation already" in post(browser, "/sites/remove", site=ONE, word=ONE).text

    post(browser, "/sites/add", site=ONE)
    assert ONE in case.coordinator.ledger.site_names()
    assert "cannot be a site" in post(browser, "/sites/add", site="officer").text


def test_member_is_invited_by_a_file_that_lets_it_join_once(
    case: CoordinatorsConsole, browser: httpx.Client, tmp_path: Path
) -> None:
    given = post(browser, "/members/invite", member="hospital-3", role="site")
    file = tmp_path / "invitation.json"
    file.write_bytes(given.content)
    file.chmod(0o600)
    invitation = Invitation.read(file)

    assert 'filename="invitation-hospital-3.json"' in given.headers["content-disposition"]
    assert (invitation.name, invitation.role, invitation.address) == (
        "hospital-3",
        MemberRole.SITE,
        case.coordinator.joining.address,
    )
    case.coordinator.register.check_invitation(invitation.token, "hospital-3", MemberRole.SITE)
    assert "is a member already" in post(browser, "/members/invite", member=ONE, role="site").text
    assert "nobody who is invited" in post(browser, "/members/invite", member="x", role="coordinator").text
    assert json.loads(given.content)["token"] not in browser.get("/members").text


def test_member_is_shut_out_once_its_name_is_typed_twice(case: CoordinatorsConsole, browser: httpx.Client) -> None:
    unconfirmed = post(browser, "/members/revoke", member=ONE, reason="stolen", word="")
    assert "Not confirmed" in unconfirmed.text
    assert "needs" not in unconfirmed.text
    assert "in use" in browser.get(f"/members?name={ONE}").text

    assert "and not empty" in post(browser, "/members/revoke", member=ONE, reason="", word=ONE).text
    shown = post(browser, "/members/revoke", member=ONE, reason="its server was stolen", word=ONE)
    assert "1 certificate was revoked" in shown.text
    assert "its server was stolen" in browser.get(f"/members?name={ONE}").text
    with case.browser_of(case.identities[ONE]) as member:
        assert member.post("/open").status_code == 403


def test_forms_of_other_pages_do_nothing(case: CoordinatorsConsole, browser: httpx.Client) -> None:
    for path in ("/extend", "/sites/add", "/sites/remove", "/members/invite", "/members/revoke"):
        fields = {"csrf": "guessed", "request": "waits", "site": ONE, "member": ONE, "word": ONE, "reason": "x"}
        assert browser.post(path, data=fields).status_code == 403, path

    assert ONE in case.coordinator.ledger.site_names()
    assert case.coordinator.ledger.status("waits").extension == ""


def test_sites_and_members_of_a_large_federation_come_in_pages(
    case: CoordinatorsConsole, browser: httpx.Client
) -> None:
    names = [f"clinic-{number:03d}" for number in range(120)]
    for name in names:
        case.coordinator.ledger.register(name)

    seen = [
        found
        for page in (1, 2, 3)
        for found in re.findall(r'<th scope="row">([^<]+)</th>', browser.get(f"/sites?page={page}").text)
    ]
    assert seen == sorted([*names, *SITES])
    assert "Page 3 of 3" in browser.get("/sites?page=99").text
    chosen = browser.get("/sites?name=clinic-11&page=1").text
    assert re.findall(r'<th scope="row">([^<]+)</th>', chosen) == [f"clinic-11{digit}" for digit in range(10)]


def test_request_to_many_sites_comes_in_pages_with_those_that_have_not_answered_first(
    case: CoordinatorsConsole, browser: httpx.Client
) -> None:
    for number in range(120):
        case.coordinator.ledger.register(f"clinic-{number:03d}")
    case.ask("everyone", Subject(SECRET.reference("two")))
    case.answer(ONE)

    pages = [browser.get(f"/requests/everyone?page={page}").text for page in (1, 2, 3)]
    seen = [found for page in pages for found in re.findall(r'<th scope="row">([^<]+)</th>', page)]
    assert len(seen) == len(set(seen)) == 122
    assert seen[-1] == ONE
    assert "111 more sites have not answered" in pages[0]
