"""What was checked is kept for a minute, for whoever looked, and for few requests."""

from __future__ import annotations

from datetime import UTC, datetime

from fedmunkey.common.console.evidence_kept import KEPT_SECONDS, MOST_KEPT, Checked, EvidenceKept

CHECKED = Checked({"title": "Certificate of deletion"}, datetime(2026, 3, 1, tzinfo=UTC))


def test_it_is_kept_for_a_minute_and_for_nobody_else() -> None:
    now = [100.0]
    kept = EvidenceKept(clock=lambda: now[0])
    kept.keep("site hospital-1", "request-1", CHECKED)

    assert kept.find("site hospital-1", "request-1") is CHECKED
    assert kept.find("site hospital-2", "request-1") is None
    assert kept.find("site hospital-1", "request-2") is None
    now[0] += KEPT_SECONDS
    assert kept.find("site hospital-1", "request-1") is None


def test_the_oldest_makes_room() -> None:
    kept = EvidenceKept(clock=lambda: 0.0)
    for number in range(MOST_KEPT + 1):
        kept.keep("officer", f"request-{number}", CHECKED)

    assert kept.find("officer", "request-0") is None
    assert all(kept.find("officer", f"request-{number}") for number in range(1, MOST_KEPT + 1))
