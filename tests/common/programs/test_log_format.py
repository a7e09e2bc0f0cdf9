from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime

import pytest

from fedmunkey.common.programs.log_format import FIELDS, LogFormat, log_lines, said_in_json
from fedmunkey.common.programs.supervision import print_line

FORGED = "a path\n2026-11-27 INFO all is well\x1b[2J\u202e\x9b"


def written(form: LogFormat) -> list[str]:
    """Return the lines of a record whose message, field and error hold what would forge lines."""
    stream, spoken = io.StringIO(), logging.getLogger("tests.log_format")
    with log_lines(logging.StreamHandler(stream), form, spoken):
        try:
            raise ValueError(FORGED)
        except ValueError:
            spoken.error("refused %s", FORGED, exc_info=True, extra={FIELDS: {"said": FORGED}})
    return stream.getvalue().splitlines()


def test_foreign_text_begins_no_line_of_a_log_for_people() -> None:
    first, *others = written(LogFormat.TEXT)

    assert first.endswith(r"refused a path\n2026-11-27 INFO all is well\x1b[2J\u202e\x9b")
    assert all(line.startswith("    ") and line.isprintable() for line in others)
    assert any(line == r"    2026-11-27 INFO all is well\x1b[2J\u202e\x9b" for line in others)


def test_foreign_text_is_printable_in_a_log_for_programs() -> None:
    (line,) = written(LogFormat.JSON)

    assert line.isprintable()
    assert json.loads(line)["said"] == FORGED
    assert json.loads(line)["message"] == r"refused a path\n2026-11-27 INFO all is well\x1b[2J\u202e\x9b"


@pytest.mark.parametrize(("line", "shown"), [("\x1b[2Jx", "child | \\x1b[2Jx\n"), ("{\x1b[2J}", "{\\x1b[2J}\n")])
def test_what_a_child_prints_moves_no_cursor(capsys: pytest.CaptureFixture[str], line: str, shown: str) -> None:
    print_line("child", line)

    assert capsys.readouterr().err == shown


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ("plain words", "info", "plain words"),
        ("WARNING :   Connection attempt failed", "warning", "Connection attempt failed"),
        ("2026-11-27 10:17:52,013 ERROR ALARM: no", "error", "ALARM: no"),
        ("{not JSON\x1b[2J", "info", r"{not JSON\x1b[2J"),
        ("[1]", "info", "[1]"),
    ],
)
def test_whatever_a_child_prints_is_an_object_in_a_log_for_programs(line: str, level: str, message: str) -> None:
    written = said_in_json("child", line, datetime(2026, 11, 27, tzinfo=UTC))

    assert written.isprintable()
    assert json.loads(written) == {
        "time": "2026-11-27T00:00:00.000+00:00",
        "level": level,
        "logger": "child",
        "message": message,
    }
    # One that is an object already stays what it is.
    assert said_in_json("other", written, datetime(2027, 1, 1, tzinfo=UTC)) == written
    assert json.loads(said_in_json("child", '{"a": "\u202e"}', datetime(2027, 1, 1, tzinfo=UTC))) == {"a": "\u202e"}
