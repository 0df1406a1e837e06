"""What follows a finished call."""

from datetime import timedelta

import pytest

from backend.calls.attempts import decide, kind_of
from backend.calls.states import CallStatus


def verdict(
    kind: str, earlier: int = 0, counted: int = 0, max_attempts: int = 5, scale: float = 1.0
) -> tuple[str, timedelta | None]:
    decision = decide(kind, earlier, counted, max_attempts=max_attempts, scale=scale)
    return decision.status.value, decision.delay


def test_a_customer_who_was_reached_is_done() -> None:
    assert verdict("reached") == ("completed", None)


@pytest.mark.parametrize(
    ("kind", "delays"),
    [
        ("busy", [timedelta(minutes=20), timedelta(hours=1), timedelta(days=1), timedelta(days=1)]),
        ("declined", [timedelta(days=1)]),
        ("no_answer", [timedelta(hours=3), timedelta(days=1), timedelta(days=2), timedelta(days=2)]),
        ("voicemail", [timedelta(days=1)] * 2),
        ("dropped", [timedelta(hours=2)]),
        ("line", [timedelta(minutes=5), timedelta(minutes=15), timedelta(minutes=45), timedelta(minutes=45)]),
    ],
)
def test_each_way_of_ending_has_its_own_backoff_and_cap(kind: str, delays: list[timedelta]) -> None:
    counts = kind != "line"
    got = [verdict(kind, earlier, earlier if counts else 0) for earlier in range(len(delays) + 1)]
    assert got == [("pending", delay) for delay in delays] + [("exhausted", None)]


def test_the_lines_faults_use_up_nobodys_patience() -> None:
    assert not decide("line", 0, 4, max_attempts=5, scale=1).counts
    assert verdict("line", 0, counted=4) == ("pending", timedelta(minutes=5))


def test_attempts_of_different_kinds_share_one_limit() -> None:
    assert verdict("busy", 0, counted=4) == ("exhausted", None)


def test_a_number_that_does_not_exist_is_never_called_again() -> None:
    kind = kind_of(CallStatus.FAILED, "invalid_number", None, 10)
    assert (kind, *verdict(kind)) == ("never", "exhausted", None)


def test_the_scale_shortens_every_delay() -> None:
    assert verdict("busy", scale=0.001)[1] == timedelta(seconds=1.2)


@pytest.mark.parametrize(
    ("status", "reason", "talk", "kind"),
    [
        (CallStatus.COMPLETED, "hangup", 30.0, "reached"),
        (CallStatus.COMPLETED, "hangup", 2.0, "dropped"),
        (CallStatus.COMPLETED, "hangup", None, "reached"),
        (CallStatus.BUSY, "busy", None, "busy"),
        (CallStatus.BUSY, "declined", None, "declined"),
        (CallStatus.NO_ANSWER, "ring_timeout", None, "no_answer"),
        (CallStatus.VOICEMAIL, "machine-vm", 5.0, "voicemail"),
        (CallStatus.CANCELED, "api", None, "canceled"),
        (CallStatus.FAILED, "carrier_error", None, "line"),
        (CallStatus.FAILED, "trunk_rejected", None, "never"),
        (CallStatus.FAILED, "unknown", None, "no_answer"),
    ],
)
def test_an_ended_call_falls_under_one_rule(status: CallStatus, reason: str, talk: float | None, kind: str) -> None:
    assert kind_of(status, reason, talk, 10) == kind
