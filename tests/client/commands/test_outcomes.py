"""Every outcome of a request has its own words and its own exit code, the same in each command that tells of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fedmunkey.client.commands import forget as forgetting
from fedmunkey.common.deletions.words import Outcome
from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.common.programs.command_line import INTERRUPTED
from fedmunkey.common.proofs.verify_certificate import main as verify_alone

from .conftest import OTHER, SITE, Federation, Run, catch_up

ROOT = Path(__file__).parents[3]
REMAINS = "guarantee exact: nothing"

Prepare = Callable[[Run, Federation], object]


def nothing(_run: Run, _federation: Federation) -> None:
    pass


def distrusted_by(*sites: str) -> Prepare:
    """Have sites no longer trust the officer."""

    def prepare(run: Run, federation: Federation) -> None:
        for site in sites:
            (federation.path / site / "trust.json").unlink()
            log = federation.path / "ledger.sqlite.log-key.pub"
            ended = run("trust", "add", "log", log, "--role", "log", "--in", federation.path / site)
            assert ended.code == 0, ended.err

    return prepare


def left(_: Run, federation: Federation) -> None:
    federation.ledger.ledger.remove(OTHER, "it has closed")


@pytest.mark.parametrize(
    ("prepare", "leaves", "patient", "outcome", "said", "certified", "title"),
    [
        (
            nothing, False, "scan-patient-2", Outcome.ERASED,
            "completed, 4 records erased", "4 records erased; every site", "Certificate of deletion",
        ),
        (
            nothing, False, "scan-patient-typo", Outcome.NOTHING_HELD,
            "completed, NOTHING ERASED", "NOTHING ERASED: no site", "Certificate that nothing was held",
        ),
        (
            nothing, False, "Scan-Patient-2", Outcome.NOTHING_HELD,
            "letter by letter", "NOTHING ERASED: no site", "Certificate that nothing was held",
        ),
        (
            distrusted_by(SITE, OTHER), False, "scan-patient-2", Outcome.REFUSED,
            "refused, NOTHING ERASED", "NOTHING ERASED: every site that was asked refused", "Certificate of a refusal",
        ),
        (
            distrusted_by(OTHER), False, "scan-patient-2", Outcome.PARTIAL,
            f"erased nothing: {OTHER} (refused)", f"2 records erased, NOT EVERYWHERE: {OTHER} refused",
            "not carried out everywhere",
        ),
        (
            nothing, True, "scan-patient-2", Outcome.PARTIAL,
            f"erased nothing: {OTHER} (left)", f"INCOMPLETE: the receipt of {OTHER} is missing. 2 records erased",
            "Incomplete certificate",
        ),
    ],
)  # fmt: skip
def test_outcome_has_its_words_and_its_exit_code_in_every_command(
    run: Run,
    federation: Federation,
    prepare: Prepare,
    leaves: bool,
    patient: str,
    outcome: Outcome,
    said: str,
    certified: str,
    title: str,
) -> None:
    words = [*federation.officer, "--subject", patient, "--request-id", "request-1"]
    output, page, keys = (federation.path / name for name in ("c.json", "c.html", "trust.json"))
    prepare(run, federation)

    pending = run(*words, "--wait", 0)
    catch_up(run, federation, *((SITE,) if leaves else (SITE, OTHER)))
    if leaves:
        left(run, federation)
    shown, document = run(*words), run(*words, "--json")
    made = run(
        "certificate", "request-1", "--service", federation.service,
        "--output", output, "--keys", keys, "--html", page,
    )  # fmt: skip
    checked = run("verify", output, "--keys", keys)
    required = run("verify", output, "--keys", keys, "--require-erased", "--json")

    assert (pending.code, shown.code, document.code) == (Outcome.PENDING, outcome, outcome)
    assert "request request-1 stands in the ledger" in pending.err
    assert f"pending at {SITE}, {OTHER}" in pending.out
    assert said in shown.out
    assert document.document["outcome"] == required.document["outcome"] == outcome.word
    # What remains is said of a deletion only, and once the last site has answered.
    assert "guarantee exact:" not in pending.out
    assert (REMAINS in shown.out) == (outcome is Outcome.ERASED)
    assert (document.document["remains"] is None) == (outcome is not Outcome.ERASED)
    # A certificate that lacks a receipt is nothing to go on with, whoever asks.
    assert (made.code, checked.code, required.code) == (0, outcome if leaves else 0, outcome)
    assert verify_alone([str(output), "--keys", str(keys)]) == checked.code
    assert verify_alone([str(output), "--keys", str(keys), "--require-erased"]) == outcome
    assert checked.out.startswith("The certificate holds. ")
    assert certified in checked.out.splitlines()[0]
    assert certified in made.out
    assert title in page.read_text().partition("<h1>")[2].partition("</h1>")[0]
    assert "erased 0 records" not in checked.out + page.read_text()


def test_subject_that_a_site_has_never_held_is_refused_before_anything_is_asked(
    run: Run, federation: Federation
) -> None:
    words = ["forget", "--site-dir", federation.path / SITE, "--service", federation.service, "--wait", 0]

    for typo in ("scan-patient-typo", "Scan-Patient-2", "2"):
        error = run(*words, "--subject", typo).error
        assert f"{SITE} holds no record of that subject" in error
        assert "patient-typo" not in error
    assert not federation.ledger.page().statuses

    assert run(*words, "--subject", "scan-patient-2", "--request-id", "one").code == Outcome.PENDING
    catch_up(run, federation)
    # Its tombstone knows it still.
    assert run(*words, "--subject", "scan-patient-2", "--request-id", "two").code == Outcome.PENDING


def test_interrupted_waiting_says_how_to_go_on(
    run: Run, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(forgetting, "await_answers", interrupt)
    ended = run(*federation.officer, "--subject", "scan-patient-2", "--request-id", "request-1")

    said, interrupted = (line for line in ended.err.splitlines() if line)
    assert ended.code == INTERRUPTED
    assert said.startswith("request request-1 stands in the ledger; waiting")
    assert "stands, and is carried out" in interrupted
    assert interrupted.endswith("ask again with --request-id request-1")
    assert federation.ledger.get("request-1").outcome is Outcome.PENDING


def test_exit_codes_are_distinct_and_in_one_table_of_the_handbook() -> None:
    _, _, rest = (ROOT / "docs" / "operations.md").read_text().partition("\n## Exit codes\n")
    rows = [line.split("|")[1:3] for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    table = {int(code): word.strip() for code, word in rows if code.strip().isdigit()}

    assert len({outcome.value for outcome in Outcome}) == len(Outcome)
    assert {code: table[code] for code in map(int, Outcome)} == {int(each): f"`{each.word}`" for each in Outcome}
    assert Outcome.INVALID == EXIT_CODE
    assert INTERRUPTED in table
