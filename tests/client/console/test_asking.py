"""Asking from the console, and what people complain about elsewhere: each complaint is a test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fedmunkey.common.deletions.states import SiteState
from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, Records, Subject, WholeSite
from tests.console_case import ConsoleCase, csrf_of, running_console
from tests.proof_case import SECRET, SITES

PATIENT = "patient-4711"


@pytest.fixture
def case(tmp_path: Path) -> Iterator[ConsoleCase]:
    with running_console(tmp_path) as running:
        yield running


@pytest.fixture
def browser(case: ConsoleCase) -> Iterator[httpx.Client]:
    with case.client() as client:
        yield client


def prepare(browser: httpx.Client, ids: str = PATIENT, **fields: str) -> httpx.Response:
    given = {"kind": "subject", "ids": ids, "ground": "17-1-b", "reason": "by letter", **fields}
    return browser.post("/new", data={"csrf": csrf_of(browser), **given})


def send(browser: httpx.Client, draft: httpx.Response, word: str = "forget", what: str = "send") -> httpx.Response:
    return browser.post(f"{draft.url.path}/{what}", data={"csrf": csrf_of(browser), "word": word})


def asked(case: ConsoleCase) -> list[DeletionRequest]:
    return [status.request for status in case.service.requests()]


def test_patient_is_asked_for_by_a_signed_reference(case: ConsoleCase, browser: httpx.Client) -> None:
    draft = prepare(browser)
    shown = send(browser, draft)

    (request,) = asked(case)
    assert (request.requester, request.target) == (OFFICER, Subject(SECRET.reference(PATIENT)))
    assert request.signature
    assert shown.url.path == f"/requests/{request.request_id}"
    assert "1 request stands in the ledger" in shown.text
    assert "by letter" in shown.text
    assert PATIENT not in draft.text + shown.text
    kept = case.office.notes.find(request.request_id)
    assert kept is not None
    assert (kept.ground, kept.reason) == ("17-1-b", "by letter")
    assert PATIENT not in case.office.notes.path.read_text()
    assert case.office.notes.path.stat().st_mode & 0o077 == 0


def test_preview_names_the_sites_and_sends_nothing(case: ConsoleCase, browser: httpx.Client) -> None:
    shown = prepare(browser)

    assert shown.url.path.startswith("/drafts/")
    assert "2 sites are asked" in shown.text
    assert all(site in shown.text for site in SITES)
    assert asked(case) == []


@pytest.mark.parametrize("word", ["", "forge", "FORGET", "vergessen"])
def test_nothing_is_asked_without_the_word(case: ConsoleCase, browser: httpx.Client, word: str) -> None:
    draft = prepare(browser)
    shown = send(browser, draft, word)

    assert shown.url.path == draft.url.path
    assert "Not confirmed, so nothing was asked for: type forget." in shown.text
    assert asked(case) == []
    assert send(browser, draft).url.path.startswith("/requests/")


def test_draft_is_sent_once_however_often_it_is_confirmed(case: ConsoleCase, browser: httpx.Client) -> None:
    draft = prepare(browser)

    first, second = send(browser, draft), send(browser, draft)

    assert len(asked(case)) == 1
    assert first.url.path != second.url.path
    assert "was sent already" in second.text


def test_draft_can_be_cancelled_and_is_gone(case: ConsoleCase, browser: httpx.Client) -> None:
    draft = prepare(browser)

    shown = send(browser, draft, what="cancel")
    late = send(browser, draft)

    assert "nothing was asked for" in shown.text
    assert "cancelled" in late.text
    assert asked(case) == []


def test_request_says_that_it_cannot_be_taken_back(browser: httpx.Client) -> None:
    shown = send(browser, prepare(browser))

    assert "cannot be taken back" in shown.text


def test_message_is_shown_once(browser: httpx.Client) -> None:
    shown = send(browser, prepare(browser))
    again = browser.get(shown.url.path)

    assert "stands in the ledger." in shown.text
    assert "stands in the ledger." not in again.text


def test_page_that_looks_again_by_itself_takes_no_message_away(browser: httpx.Client) -> None:
    draft = prepare(browser)
    browser.post(f"{draft.url.path}/send", data={"csrf": csrf_of(browser), "word": "forget"}, follow_redirects=False)
    browser.get("/requests", headers={"hx-request": "true"})

    assert "stands in the ledger." in browser.get("/requests").text


def test_what_was_added_is_in_the_list(case: ConsoleCase, browser: httpx.Client) -> None:
    request_id = send(browser, prepare(browser)).url.path.removeprefix("/requests/")

    assert request_id in browser.get("/requests").text
    case.answer()
    assert request_id in browser.get("/requests?state=completed").text


def test_same_patient_again_is_said_and_every_check_is_made_anew(case: ConsoleCase, browser: httpx.Client) -> None:
    first = send(browser, prepare(browser)).url.path.removeprefix("/requests/")
    case.answer()

    draft = prepare(browser)
    unconfirmed = send(browser, draft, "")
    second = send(browser, draft)

    assert "The same was asked for before, once." in draft.text
    assert first in draft.text
    assert unconfirmed.url.path == draft.url.path
    assert second.url.path.startswith("/requests/")
    requests = asked(case)
    assert [request.target for request in requests] == [Subject(SECRET.reference(PATIENT))] * 2
    assert len({request.signature for request in requests}) == 2
    # Each is a request of its own to every site, which checks its signature.
    for site in SITES:
        assert len(list(case.service.watch(site, 0))) == 2


def test_pages_past_the_first_are_there_and_hold_every_request_once(case: ConsoleCase, browser: httpx.Client) -> None:
    for number in range(120):
        case.ask(f"request-{number:03d}")
    seen: list[str] = []
    for page in (1, 2, 3):
        shown = browser.get(f"/requests?page={page}").text
        assert f"Page {page} of 3" in shown
        seen += re.findall(r'data-request="([^"]+)"', shown)

    assert sorted(seen) == [f"request-{number:03d}" for number in range(120)]
    assert "Page 3 of 3" in browser.get("/requests?page=99").text
    assert "Page 1 of 3" in browser.get("/requests?page=nonsense").text


def test_list_of_patients_is_a_request_for_each(case: ConsoleCase, browser: httpx.Client) -> None:
    draft = prepare(browser, "date;patient_id\r\n2026-01-01;one\r\n2026-01-02;two\r\n2026-01-03;one\r\n")
    shown = send(browser, draft)

    assert "2 patients are to be forgotten" in draft.text
    assert shown.url.path == "/requests"
    assert {request.target for request in asked(case)} == {Subject(SECRET.reference(name)) for name in ("one", "two")}


@pytest.mark.parametrize(
    ("ids", "fields", "fault"),
    [
        ("", {}, "name a patient"),
        ("one,two\nthree,four", {}, "which column holds the ids? name it subject_id"),
        ("x,subject_id\none", {}, "a line has fewer columns"),
        (PATIENT, {"ground": ""}, "choose a legal ground"),
        (PATIENT, {"reason": "x" * 501}, "at most 500"),
        (PATIENT, {"kind": "everything"}, "say what is to be forgotten"),
        ("", {"kind": "records"}, "name records"),
        ("", {"kind": "site"}, "choose the site"),
    ],
)
def test_what_cannot_be_asked_is_said_and_no_id_shown(
    case: ConsoleCase, browser: httpx.Client, ids: str, fields: dict[str, str], fault: str
) -> None:
    shown = prepare(browser, ids, **fields)

    assert shown.status_code == 400
    assert fault in shown.text.replace("&#39;", "'")
    assert not ids or ids not in shown.text
    assert asked(case) == []


def test_records_at_one_site_are_asked_there(case: ConsoleCase, browser: httpx.Client) -> None:
    draft = prepare(browser, "scan-1\nscan-2", kind="records", site=SITES[1])
    send(browser, draft)

    (request,) = asked(case)
    assert request.target == Records(frozenset(map(SECRET.reference, ("scan-1", "scan-2"))), SITES[1])
    assert "1 site is asked" in draft.text
    assert SITES[0] not in draft.text


def test_whole_site_is_confirmed_by_its_name(case: ConsoleCase, browser: httpx.Client) -> None:
    draft = prepare(browser, "", kind="site", site=SITES[0])

    assert "Not confirmed" in send(browser, draft).text
    send(browser, draft, SITES[0])
    assert [request.target for request in asked(case)] == [WholeSite(SITES[0])]


def test_refused_request_is_asked_again_as_another(case: ConsoleCase, browser: httpx.Client) -> None:
    case.ask("request-1")
    case.answer(state=SiteState.REFUSED, reason="untrusted: the key is not known")

    draft = browser.post("/again", data={"csrf": csrf_of(browser), "request": "request-1"})
    send(browser, draft)

    first, second = asked(case)
    assert first.target == second.target
    assert first.request_id != second.request_id


def test_many_are_selected_and_asked_again_together(case: ConsoleCase, browser: httpx.Client) -> None:
    for name in ("one", "two", "three"):
        case.ask(name, Subject(SECRET.reference(name)))

    draft = browser.post("/again", data={"csrf": csrf_of(browser), "request": ["one", "three"]})
    send(browser, draft)

    wanted = [Subject(SECRET.reference(name)) for name in ("one", "two", "three", "one", "three")]
    assert [request.target for request in asked(case)] == wanted


def test_several_officers_sign_for_a_whole_site(tmp_path: Path) -> None:
    with running_console(tmp_path, officers=2) as case, case.client() as browser:
        draft = prepare(browser, "", kind="site", site=SITES[0])
        refused = send(browser, draft, SITES[0])
        saved = send(browser, draft, SITES[0], "save")

        assert "2 officers must sign" in draft.text
        assert refused.status_code == 400
        assert asked(case) == []
        assert saved.headers["content-disposition"].startswith("attachment")
        # Whoever has signed it does not sign it twice.
        shown = browser.post("/countersign", data={"csrf": csrf_of(browser), "saved": saved.text})
        assert "is to forget everything" in shown.text
        assert "Your key has signed this already" in shown.text


def test_request_that_the_service_did_not_hear_can_be_sent_as_it_was(
    case: ConsoleCase, browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = prepare(browser, "one\ntwo")
    submit = case.channel.submit
    heard: list[str] = []

    def lose_the_second_answer(request: DeletionRequest) -> object:
        heard.append(request.request_id)
        status = submit(request)
        if len(heard) == 2:
            from fedmunkey.common.errors import ServiceUnavailable

            raise ServiceUnavailable("the answer was lost")
        return status

    monkeypatch.setattr(case.channel, "submit", lose_the_second_answer)
    shown = send(browser, draft)
    assert "the answer was lost" in shown.text
    send(browser, shown)

    assert heard[1] == heard[2]
    assert len(asked(case)) == 2
