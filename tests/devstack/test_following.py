from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from devstack.following import lacks_outcome, waits_for

HORIZON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def row(**fields: Any) -> dict[str, Any]:
    return {
        "status": "completed",
        "reason": None,
        "attempts": 1,
        "next_attempt_at": "2026-11-21T11:00:00Z",
        "recording_state": "ready",
        "transcript_state": "ready",
        "outcome": "renew_interested",
    } | fields


@pytest.mark.parametrize(
    ("fields", "waits"),
    [
        ({}, None),
        ({"transcript_state": "failed"}, None),
        ({"transcript_state": "transcribing"}, "the transcript"),
        ({"recording_state": "pending", "transcript_state": None}, "the transcript"),
        ({"recording_state": "failed", "transcript_state": None}, None),
        ({"recording_state": "none", "transcript_state": None}, None),
        ({"status": "exhausted", "transcript_state": "transcribing"}, None),
        ({"status": "skipped", "recording_state": None, "transcript_state": None}, None),
        ({"status": "claimed", "attempts": 0}, "the call"),
        ({"status": "in_progress"}, "the call"),
        ({"status": "pending", "attempts": 0}, "the call"),
        ({"status": "pending"}, "another attempt"),
        ({"status": "pending", "reason": "callback"}, "another attempt"),
    ],
)
def test_a_row_waits_until_its_call_is_final_and_transcribed(fields: dict[str, Any], waits: str | None) -> None:
    assert waits_for(row(**fields), HORIZON) == waits


def test_a_call_promised_for_another_day_is_not_waited_for() -> None:
    tomorrow = (HORIZON + timedelta(days=1)).isoformat()
    assert waits_for(row(status="pending", reason="callback", next_attempt_at=tomorrow), HORIZON) is None


def test_an_outcome_is_waited_for_only_after_a_transcript() -> None:
    assert lacks_outcome(row(outcome=None))
    assert not lacks_outcome(row())
    assert not lacks_outcome(row(outcome=None, transcript_state="failed"))
