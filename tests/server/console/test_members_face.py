"""What members see of the coordinator in a browser: what the service gives each over gRPC, and nothing to do."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from fedmunkey.common.clock import utc_now
from fedmunkey.common.console.face import CLICKS, Face
from fedmunkey.common.deletions.words import Subject, WholeSite
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.identities import Identity
from fedmunkey.server.members import renewal
from fedmunkey.server.members.authority import CertificateAuthority
from tests.console_case import csrf_of, forms
from tests.coordinator import FIRST_OFFICER, make_identity
from tests.coordinators_console_case import CoordinatorsConsole, coordinators_console
from tests.proof_case import SECRET, SITES

ONE, OTHER = SITES
SCREENS = ("/", "/requests", "/sites", "/overview", "/log", "/evidence")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordinatorsConsole]:
    with coordinators_console(tmp_path_factory.mktemp("coordinator")) as running:
        running.ask("officers", Subject(SECRET.reference("one")))
        running.ask("of-one", WholeSite(ONE), requester=ONE)
        running.ask("of-other", WholeSite(OTHER), requester=OTHER)
        running.answer()
        yield running


def listed(browser: httpx.Client) -> set[str]:
    return set(re.findall(r'data-request="([^"]+)"', browser.get("/requests").text))


def test_each_member_sees_what_the_service_gives_it(case: CoordinatorsConsole) -> None:
    seen = {ONE: {"officers", "of-one"}, OTHER: {"officers", "of-other"}, FIRST_OFFICER: {"officers"}}
    for name, expected in seen.items():
        with case.member(name) as browser, case.coordinator.channel(case.identities[name]) as channel:
            assert listed(browser) == expected
            for request_id in ("officers", "of-one", "of-other"):
                for path in (f"/requests/{request_id}", f"/evidence/{request_id}"):
                    answer = browser.get(path)
                    assert answer.status_code == (200 if request_id in expected else 403), (name, path)
                if request_id not in expected:
                    with pytest.raises(InvalidDeletion, match="neither asked for this request nor is addressed by it"):
                        channel.get(request_id)
                    assert "neither asked for this request nor is addressed by it" in answer.text


def test_site_sees_itself_and_an_officer_all_sites(case: CoordinatorsConsole) -> None:
    with case.member(ONE) as site, case.member(FIRST_OFFICER) as officer:
        assert OTHER not in site.get("/sites").text
        assert all(name in officer.get("/sites").text for name in SITES)


def test_certificates_are_for_whom_they_are(case: CoordinatorsConsole) -> None:
    with case.member(OTHER) as browser:
        token = csrf_of(browser)
        own = browser.post("/certificate", data={"csrf": token, "request": "of-other", "as": "file"})
        foreign = browser.post("/certificate", data={"csrf": token, "request": "of-one", "as": "file"})

    assert own.status_code == 200
    assert b"receipt" in own.content
    assert foreign.status_code == 403


def test_nothing_is_shown_without_a_session_and_the_door_says_whom_it_sees(case: CoordinatorsConsole) -> None:
    with case.browser_of(case.identities[ONE]) as browser:
        for path in (*SCREENS, "/requests/of-one", "/evidence/of-one", "/events"):
            answer = browser.get(path)
            assert answer.status_code == 401, path
            assert "of-one" not in answer.text
        assert f"certificate of site {ONE}" in browser.get("/").text


def test_who_shows_no_certificate_of_the_federation_is_not_heard(case: CoordinatorsConsole, tmp_path: Path) -> None:
    stranger = CertificateAuthority.make("another federation", utc_now())
    forged = Identity.read(make_identity(stranger, tmp_path / "forged", name=ONE))
    for identity in (None, forged):
        with case.browser_of(identity) as browser, pytest.raises((httpx.TransportError, ssl.SSLError)):
            browser.get("/")


def test_certificate_that_is_in_no_register_opens_nothing(case: CoordinatorsConsole, tmp_path: Path) -> None:
    unknown = Identity.read(make_identity(case.coordinator.authority, tmp_path / "unknown", name=ONE))
    with case.browser_of(unknown) as browser:
        answer = browser.post("/open")

        assert answer.status_code == 403
        assert "in no register of this federation" in answer.text
        assert browser.get("/requests").status_code == 401


def test_session_belongs_to_the_certificate_that_began_it(case: CoordinatorsConsole) -> None:
    with case.member(ONE) as one, case.browser_of(case.identities[OTHER]) as other:
        other.cookies.update(dict(one.cookies))
        answer = other.get("/requests")

        assert answer.status_code == 401
        assert "another certificate" in answer.text


def test_no_page_elsewhere_opens_a_session(case: CoordinatorsConsole) -> None:
    with case.browser_of(case.identities[ONE]) as browser:
        answer = browser.post("/open", headers={"sec-fetch-site": "cross-site"})

        assert answer.status_code == 403
        assert not browser.cookies


def test_cookie_is_for_this_host_over_tls_alone(case: CoordinatorsConsole) -> None:
    with case.browser_of(case.identities[ONE]) as browser:
        said = browser.post("/open", follow_redirects=False).headers["set-cookie"].lower()

    port = case.members_address.rpartition(":")[2]
    assert said.startswith(f"__host-munkey-console-{port}=")
    assert all(word in said for word in ("httponly", "samesite=strict", "secure", "path=/"))
    assert "domain" not in said


def test_session_that_was_ended_sees_nothing_any_more(case: CoordinatorsConsole) -> None:
    with case.member(ONE) as browser:
        cookies = dict(browser.cookies)
        assert browser.post("/end", data={"csrf": csrf_of(browser)}).status_code == 200
        browser.cookies.update(cookies)

        assert browser.get("/requests").status_code == 401


def test_members_face_has_nothing_to_do(case: CoordinatorsConsole) -> None:
    def paths(face: Face) -> set[str]:
        routes = face.app.routes
        return {route.path for route in routes if isinstance(route, APIRoute) and "POST" in (route.methods or ())}

    actions = paths(case.operators) - paths(case.members)
    assert actions == {"/extend", "/sites/add", "/sites/remove", "/members/invite", "/members/revoke"}
    with case.member(FIRST_OFFICER) as browser:
        token = csrf_of(browser)
        for path in actions:
            answer = browser.post(path, data={"csrf": token, "request": "officers", "days": "5", "reason": "x"})
            assert answer.status_code in (404, 405), path
        assert browser.get("/members").status_code == 404


def test_every_form_carries_the_token_and_forms_of_other_pages_do_nothing(case: CoordinatorsConsole) -> None:
    with case.member(ONE) as browser:
        token = csrf_of(browser)
        for path in (*SCREENS, "/requests/of-one"):
            page = browser.get(path).text
            assert forms(page, token), path
            assert not re.findall(r"<script(?! src=\"/static/)|\son[a-z]+=|<style|\sstyle=|https?://", page), path
        for path in ("/end", "/language", "/evidence", "/certificate"):
            assert browser.post(path, data={"csrf": "guessed"}).status_code == 403, path


def test_other_host_names_are_not_answered(case: CoordinatorsConsole) -> None:
    with case.member(ONE) as browser:
        assert browser.get("/requests", headers={"host": "hospital.example"}).status_code == 421


def test_revoked_member_is_put_out_and_told_why(tmp_path: Path) -> None:
    with coordinators_console(tmp_path) as case, case.member(ONE) as browser, case.member(OTHER) as other:
        assert browser.get("/requests").status_code == 200
        with browser.stream("GET", "/events") as events:
            lines = events.iter_lines()
            assert next(lines) == "event: connection"
            case.coordinator.register.revoke(ONE, "its laptop was stolen")
            case.ask("moves")
            told = [line for line in lines if line.startswith("data:")]

        answer = browser.get("/requests")
        assert not any("moves" in line for line in told)
        assert answer.status_code == 401
        assert "its laptop was stolen" in answer.text
        assert browser.post("/open").status_code == 403
        assert other.get("/requests").status_code == 200


def test_flood_of_one_member_leaves_the_others_alone(tmp_path: Path) -> None:
    with coordinators_console(tmp_path) as case, case.member(ONE) as browser, case.member(OTHER) as other:
        answers: list[int] = []
        while 429 not in answers and len(answers) < 10 * CLICKS.at_once:
            answers.append(browser.get("/requests/none").status_code)

        assert answers[-1] == 429
        assert other.get("/requests").status_code == 200


def test_renewed_certificate_is_shown_from_the_next_connection_on(tmp_path: Path) -> None:
    with coordinators_console(tmp_path) as case:
        before = _shown(case)
        renewal.renew(case.coordinator.folder, case.coordinator.register, ())
        after = _shown(case)

        assert before != after
        with case.member(ONE) as browser:
            assert browser.get("/requests").status_code == 200


def _shown(case: CoordinatorsConsole) -> bytes:
    """Return the certificate that a member's browser is shown."""
    identity = case.identities[ONE]
    trusted = ssl.create_default_context(cafile=identity.ca_file)
    trusted.load_cert_chain(identity.certificate_file, identity.key_file)
    host, _, port = case.members_address.rpartition(":")
    with socket.create_connection((host, int(port))) as plain, trusted.wrap_socket(plain, server_hostname=host) as tls:
        return tls.getpeercert(binary_form=True) or b""
