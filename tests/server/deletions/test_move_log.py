from __future__ import annotations

import io
import json
import logging

import pytest

from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, Records
from fedmunkey.common.programs.log_format import LogFormat
from fedmunkey.server.deletions.move_log import logging_to
from fedmunkey.server.ledger.ledger import Ledger
from tests.server.ledger.ledger_contract import ANSWER, REQUEST, references


def test_every_move_is_a_line_of_json(ledger: Ledger) -> None:
    stream = io.StringIO()
    with logging_to(stream, LogFormat.JSON, ledger):
        ledger.enter(REQUEST, ["hospital-1"])
        ledger.acknowledge(ANSWER)
        ledger.remove("hospital-1")

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line.get("request"), line.get("site"), line["before"], line["after"]) for line in lines] == [
        (1, None, "", "received"),
        (1, None, "received", "verified"),
        (1, None, "verified", "dispatched"),
        (1, "hospital-1", "pending", "erased"),
        (1, None, "dispatched", "completed"),
        (None, "hospital-1", "registered", "left"),
    ]
    assert {line["level"] for line in lines} == {"info"}
    assert lines[4]["seconds"] >= 0
    assert "time" in lines[0]


@pytest.mark.parametrize("form", LogFormat)
def test_no_line_holds_what_might_name_a_patient(ledger: Ledger, form: LogFormat) -> None:
    stream = io.StringIO()
    asked = references(3)
    with logging_to(stream, form, ledger):
        ledger.enter(DeletionRequest("patient-17", OFFICER, Records(asked)))
        ledger.extend("patient-17", 10, "patient-17 asked twice")
        ledger.remove("hospital-1", "patient-17 has moved")

    assert "request 1: dispatched" in stream.getvalue()
    assert "patient-17" not in stream.getvalue()
    assert not [reference for reference in asked if reference.hex() in stream.getvalue()]


def test_fault_is_one_line_of_json_with_its_traceback(ledger: Ledger) -> None:
    stream = io.StringIO()
    with logging_to(stream, LogFormat.JSON, ledger):
        try:
            raise RuntimeError("a fault")
        except RuntimeError:
            logging.getLogger("fedmunkey.server.deletions.calls").exception("a call failed")

    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["level"], line["message"]) == ("error", "a call failed")
    assert "RuntimeError: a fault" in line["error"]


def test_nothing_is_logged_after_the_context(ledger: Ledger) -> None:
    stream = io.StringIO()
    with logging_to(stream, LogFormat.TEXT, ledger):
        pass

    ledger.enter(REQUEST)

    assert stream.getvalue() == ""


def test_lines_of_one_transaction_are_one_write(ledger: Ledger) -> None:
    class Counting(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            return super().write(text)

    stream = Counting()
    with logging_to(stream, LogFormat.JSON, ledger):
        ledger.enter(REQUEST)

    assert len(stream.getvalue().splitlines()) == 3
    assert stream.writes == 1
