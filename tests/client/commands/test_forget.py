from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.progress import Progress

from fedmunkey.client.commands.forget import await_answers, show_answers
from fedmunkey.client.deletions import requester
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionRequest,
    Outcome,
    Records,
    RequestState,
    RequestStatus,
    SiteProgress,
    SiteState,
    Subject,
    WholeSite,
)
from fedmunkey.common.errors import EXIT_CODE, ServiceUnavailable
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.server.deletions.ledger_service import LedgerService

from .conftest import OTHER, SITE, Run, carry_out


@pytest.fixture
def officer(secret: Path, service: str) -> list[object]:
    """The words with which the officer asks."""
    return ["forget", "--as", "officer", "--secret", secret, "--service", service]


def test_site_forgets_its_own_subject(
    run: Run, folder: SiteFolder, ledger: LedgerService, service: str, secret: Path
) -> None:
    words = ["forget", "--subject", "scan-patient-3", "--site-dir", folder.path, "--service", service]

    run(*words, "--wait", 0, "--request-id", "request-1")
    run("catch-up", "--site-dir", folder.path, "--service", service)
    shown = run(*words, "--request-id", "request-1", "--json").json

    assert ledger.get("request-1").request == DeletionRequest(
        "request-1", SITE, Subject(FederationSecret.read(secret).reference("scan-patient-3"))
    )
    assert (shown["state"], shown["records"], shown["guarantee"]) == ("completed", 2, "exact")
    assert shown["remains"] == Guarantee.EXACT.remains
    assert [progress["site"] for progress in shown["sites"]] == [SITE]


def test_sites_records_are_addressed_to_itself(
    run: Run, folder: SiteFolder, ledger: LedgerService, service: str, secret: Path, tmp_path: Path
) -> None:
    reference = FederationSecret.read(secret).reference
    (tmp_path / "ids.txt").write_text("scan-3\nscan-test-1\n")
    asking = ["forget", "--site-dir", folder.path, "--service", service, "--wait", 0]

    run(*asking, "--record", "scan-1", "--record", "scan-2", "--request-id", "request-1")
    run(*asking, "--records-file", tmp_path / "ids.txt", "--request-id", "request-2")

    first, second = (ledger.get(name).request.target for name in ("request-1", "request-2"))
    assert first == Records(frozenset(map(reference, ["scan-1", "scan-2"])), SITE)
    assert second == Records(frozenset(map(reference, ["scan-3", "scan-test-1"])), SITE)


def test_ids_need_not_stand_on_the_command_line(
    run: Run, folder: SiteFolder, ledger: LedgerService, service: str, secret: Path, tmp_path: Path
) -> None:
    reference = FederationSecret.read(secret).reference
    (tmp_path / "patient.txt").write_text("\n scan-patient-3 \n")
    asking = ["forget", "--site-dir", folder.path, "--service", service, "--wait", 0]

    run(*asking, "--subject", "-", "--request-id", "request-1", stdin="scan-patient-2\n")
    run(*asking, "--subject-file", tmp_path / "patient.txt", "--request-id", "request-2")
    run(*asking, "--record", "-", "--request-id", "request-3", stdin="scan-1\nscan-2\n")

    targets = [ledger.get(f"request-{number}").request.target for number in (1, 2, 3)]
    assert targets == [
        Subject(reference("scan-patient-2")),
        Subject(reference("scan-patient-3")),
        Records(frozenset(map(reference, ["scan-1", "scan-2"])), SITE),
    ]


@pytest.mark.parametrize(
    ("words", "stdin", "error"),
    [
        (["--subject", "-"], "", "standard input holds no id"),
        (["--subject", "-"], "patient-1\npatient-2\n", "standard input holds 2 ids"),
        (["--subject-file", "none.txt"], "", "none.txt cannot be read"),
        (["--subject", "a", "--subject-file", "none.txt"], "", "by one of"),
        (["--record", "-", "--record", "a"], "b\n", "leave the others out"),
    ],
)
def test_what_is_read_is_what_is_meant_or_nothing_is_asked_for(
    run: Run, officer: list[object], ledger: LedgerService, words: list[str], stdin: str, error: str
) -> None:
    assert error in run(*officer, *words, stdin=stdin).error
    assert list(ledger.requests()) == []


def test_deleted_record_may_be_named_again(run: Run, folder: SiteFolder, service: str) -> None:
    words = ["forget", "--record", "scan-1", "--site-dir", folder.path, "--service", service, "--json"]

    first = run(*words, "--wait", 0).document
    run("catch-up", "--site-dir", folder.path, "--service", service)
    second = run(*words, "--wait", 0).document

    assert first["request_id"] != second["request_id"]
    assert second["state"] == "dispatched"


def test_unknown_record_is_one_line_without_its_id(
    run: Run, folder: SiteFolder, ledger: LedgerService, service: str
) -> None:
    error = run(
        "forget", "--record", "scan-1", "--record", "stranger", "--site-dir", folder.path, "--service", service
    ).error

    assert "1 of the 2 records" in error
    assert "number 2" in error
    assert "stranger" not in error
    assert not ledger.page().statuses


def test_site_forgets_everything_after_a_question(
    run: Run, folder: SiteFolder, ledger: LedgerService, service: str
) -> None:
    words = ["forget", "--everything", "--site-dir", folder.path, "--service", service, "--wait", 0]

    declined = run(*words, stdin="n\n")
    unanswered = run(*words, stdin="")
    nothing_yet = ledger.page().statuses
    agreed = run(*words, stdin="y\n")

    assert (declined.code, unanswered.code, agreed.code) == (EXIT_CODE, EXIT_CODE, Outcome.PENDING)
    assert SITE in declined.err
    assert "--yes" in unanswered.err
    assert not nothing_yet
    assert ledger.page().statuses[0].request.target == WholeSite(SITE)


def test_officer_asks_every_site_about_a_subject(run: Run, ledger: LedgerService, officer: list[object]) -> None:
    asked = threading.Thread(target=answer_when_asked, args=(ledger, "request-1"))
    asked.start()

    ended = run(*officer, "--subject", "patient-1", "--request-id", "request-1")
    asked.join()

    assert ended.code == 0
    assert "request request-1: completed, 3 records erased" in ended.out
    rows = [line.split() for line in ended.out.splitlines() if line.startswith("hospital-")]
    assert rows == [
        [SITE, "erased", "empirical", "1", "3", "3", "0.250"],
        [OTHER, "nothing-held", "empirical", "1", "0", "0", "0.250"],
    ]
    assert f"guarantee empirical: {Guarantee.EMPIRICAL.remains}" in ended.out
    assert ledger.get("request-1").request.requester == OFFICER


def test_officer_reads_what_certified_sites_leave_together(
    run: Run, ledger: LedgerService, officer: list[object]
) -> None:
    words = [*officer, "--subject", "patient-1", "--request-id", "request-1", "--wait", "0.01"]
    run(*words)
    for site, losses in ((SITE, (1.0, 2.0)), (OTHER, (0.5, 0.5))):
        record, subject = losses
        bounds = (PrivacyLoss(record, 1e-5), PrivacyLoss(subject, 1e-5, 1 if record == subject else 2))
        counts = (SiteState.ERASED, 1, 1, Guarantee.CERTIFIED, 0.25, "")
        ledger.acknowledge(Acknowledgement(1, site, "request-1", *counts, *bounds))

    shown = run(*words)
    document = run(*words, "--json").json

    rows = [" ".join(line.split()) for line in shown.out.splitlines() if line.startswith("hospital-")]
    assert rows == [
        f"{SITE} erased certified 1.00 a record, 2.00 for 2 records 1 1 1 0.250",
        f"{OTHER} erased certified 0.50 a record 1 1 1 0.250",
    ]
    assert f"guarantee certified: {Guarantee.CERTIFIED.remains}" in shown.out
    assert "epsilon 2.50 for 3 records of one subject, delta 2e-05" in shown.out
    assert document["subject_loss"] == {"epsilon": 2.5, "delta": 2e-5, "records": 3}


def answer_when_asked(ledger: LedgerService, request_id: str) -> None:
    for order in ledger.watch(SITE, 0, follow=True):
        assert order.request.request_id == request_id
        break
    carry_out(ledger, SITE, records=3)
    carry_out(ledger, OTHER, state=SiteState.NOTHING_HELD, records=0)


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (["--everything", "--yes", "--site", OTHER], WholeSite(OTHER)),
        (["--record", "scan-1", "--site", OTHER, "--secret", "{secret}"], OTHER),
        (["--record", "scan-1", "--secret", "{secret}"], ""),
    ],
)
def test_officer_asks_one_site_or_all(
    run: Run, ledger: LedgerService, service: str, secret: Path, words: list[str], target: WholeSite | str
) -> None:
    officer = ["--as", "officer", "--service", service, "--wait", "0"]
    expected = (
        Records(frozenset([FederationSecret.read(secret).reference("scan-1")]), target)
        if isinstance(target, str)
        else target
    )

    ended = run("forget", *(word.format(secret=secret) for word in words), *officer)

    assert ended.code == Outcome.PENDING
    assert ledger.page().statuses[0].request.target == expected


def test_request_that_is_not_answered_in_time_can_be_looked_up(run: Run, service: str, officer: list[object]) -> None:
    ended = run(*officer, "--subject", "patient-1", "--request-id", "request-1", "--wait", "0.01")
    document = run(*officer, "--subject", "patient-1", "--wait", 0, "--json").document

    assert ended.code == Outcome.PENDING
    assert f"pending at {SITE}, {OTHER}" in ended.out
    assert f"munkey-server request request-1 --service {service}" in ended.out
    assert "guarantee empirical" not in ended.out
    assert (document["state"], document["remains"]) == ("dispatched", None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--record, --records-file, --subject, --subject-file and --everything"),
        (["--record", "a", "--subject", "b"], "by one of"),
        (["--subject", ""], "an id is empty"),
        (["--record", "a", "--record", ""], "an id is empty"),
        (["--subject", "a"], "say who asks"),
        (["--subject", "a", "--secret", "{secret}"], "say who asks"),
        (["--subject", "a", "--as", "coordinator"], "name its --signing-key"),
        (["--subject", "a", "--as", "officer"], "--secret"),
        (["--subject", "a", "--as", "officer", "--site", OTHER], "leave --site out"),
        (["--record", "a", "--as", "officer", "--site", ""], "--site is empty"),
        (["--everything", "--as", "officer"], "name it with --site"),
        (["--subject", "a", "--site-dir", "{tmp}", "--secret", "{secret}"], "leave --as"),
        (["--subject", "a", "--site-dir", "{tmp}"], "munkey-client enrol"),
        (["--subject", "a", "--as", "officer", "--secret", "{tmp}/none"], "cannot be read"),
        (
            ["--everything", "--site", OTHER, "--as", "officer", "--key", "{tmp}/key.pem", "--yes"],
            "names its federation",
        ),
        (["--records-file", "{tmp}/none"], "cannot be read"),
        (["--subject", "a", "--service", "nowhere"], "host:port"),
    ],
)
def test_mistake_in_a_request_is_one_line(
    run: Run, tmp_path: Path, secret: Path, words: list[str], message: str
) -> None:
    SigningKey.generate().write(tmp_path / "key.pem")

    assert message in run("forget", *(word.format(tmp=tmp_path, secret=secret) for word in words)).error


def test_more_records_than_a_request_may_name_are_asked_for_in_several(
    run: Run,
    ledger: LedgerService,
    service: str,
    officer: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requester, "MAXIMUM_REFERENCES", 2)
    (tmp_path / "ids.txt").write_text("scan-1\nscan-2\nscan-3\n")
    words = [*officer, "--records-file", tmp_path / "ids.txt", "--request-id", "large", "--wait", 0]

    asked = run(*words)
    carry_out(ledger, SITE, records=1)
    half = run(*words, "--json").document
    carry_out(ledger, OTHER, state=SiteState.NOTHING_HELD, records=0)
    whole = run(*words, "--json").json
    shown = run(*words).out

    parts = [ledger.get(name).request.target for name in ("large.1", "large.2")]
    assert "request large: dispatched, nothing erased yet\nasked for in 2 requests, large.1 to large.2" in asked.out
    assert f"pending at {SITE}, {OTHER}:" in asked.out
    assert f"munkey-server request large.1 --service {service}" in asked.out
    assert [len(part.references) for part in parts if isinstance(part, Records)] == [2, 1]
    assert (half["state"], half["records"]) == ("dispatched", 2)
    assert (whole["request_id"], whole["parts"]) == ("large", ["large.1", "large.2"])
    assert (whole["state"], whole["records"], len(whole["target"]["references"])) == ("completed", 2, 3)
    assert [part["order"] for part in whole["sites"]] == [1, 1, 2, 2]
    assert len([line for line in shown.splitlines() if line.startswith("hospital-")]) == 4


def test_request_in_several_is_late_where_one_of_them_is() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    request = DeletionRequest("large", SITE, Records(frozenset({bytes(32)}), SITE))
    statuses = [
        RequestStatus(request, at, recorded=state, due_at=at)
        for state in (RequestState.COMPLETED, RequestState.OVERDUE, RequestState.VERIFIED)
    ]

    assert requester.together(request, statuses).state is RequestState.OVERDUE
    assert requester.together(request, statuses[:1] + statuses[2:]).state is RequestState.DISPATCHED


def test_refusal_of_the_service_is_one_line(run: Run, officer: list[object]) -> None:
    error = run(*officer, "--everything", "--site", "hospital-9", "--yes").error

    assert "'hospital-9' is not registered" in error


def test_request_that_may_have_been_lost_is_asked_again_by_its_id(run: Run, officer: list[object]) -> None:
    error = run(*officer, "--subject", "a", "--request-id", "request-1", "--service", "127.0.0.1:1").error

    assert "cannot be reached" in error
    assert "--request-id request-1" in error


def test_waiting_outlasts_a_service_that_is_away(
    ledger: LedgerService, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = ledger.submit(DeletionRequest("request-1", SITE, WholeSite(SITE)))
    now = 0.0
    pauses: list[float] = []
    seen: list[RequestStatus] = []

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)
        if len(pauses) == 3:
            carry_out(ledger, SITE)

    with DeletionChannel(service) as channel:
        get = channel.get
        away = iter([ServiceUnavailable("away")])

        def get_or_fail(request_id: str) -> RequestStatus:
            for error in away:
                raise error
            return get(request_id)

        monkeypatch.setattr(channel, "get", get_or_fail)
        (answered,) = await_answers(
            channel, [status], 60, lambda statuses: seen.extend(statuses), clock=lambda: now, pause=pause
        )

    assert answered.state is RequestState.COMPLETED
    assert pauses == pytest.approx([0.1, 0.2, 0.4])
    assert [status.state for status in seen] == [RequestState.DISPATCHED] * 2 + [RequestState.COMPLETED]


def test_answers_that_come_together_are_counted_down(capsys: pytest.CaptureFixture[str]) -> None:
    request = DeletionRequest("request-1", OFFICER, Subject(bytes(32)))
    waiting, done = (
        RequestStatus(
            request,
            datetime(2026, 1, 1, tzinfo=UTC),
            tuple(SiteProgress(f"hospital-{number}", number, state) for number in (1, 2, 3)),
        )
        for state in (SiteState.PENDING, SiteState.NOTHING_HELD)
    )
    with Progress(disable=True) as bars:
        show = show_answers(bars)
        show([waiting])
        show([done])
        show([done])

    assert capsys.readouterr().err.splitlines() == [
        "hospital-1 has answered, 2 to come",
        "hospital-2 has answered, 1 to come",
        "hospital-3 has answered, 0 to come",
    ]
