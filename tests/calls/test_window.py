"""The calling window in the customer's own zone."""

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.calls.window import effective, next_open
from backend.environment import Window

DAY = Window(time(10), time(19))
LIMIT = Window(time(9), time(21))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_inside_the_window_a_call_may_be_made_at_once() -> None:
    assert next_open(at("2026-11-21T04:30:00"), "Asia/Kolkata", DAY) == at("2026-11-21T04:30:00")


def test_before_the_window_the_call_waits_for_the_same_day() -> None:
    assert next_open(at("2026-11-21T04:29:59"), "Asia/Kolkata", DAY) == at("2026-11-21T04:30:00")


def test_the_windows_end_is_excluded() -> None:
    assert next_open(at("2026-11-21T13:30:00"), "Asia/Kolkata", DAY) == at("2026-11-22T04:30:00")


def test_an_opening_inside_a_gap_of_the_clock_comes_that_much_later() -> None:
    # New York, 2026-03-08: 02:00 to 03:00 does not exist.
    opens = next_open(at("2026-03-08T05:00:00"), "America/New_York", Window(time(2, 30), time(19)))
    assert opens.astimezone(ZoneInfo("America/New_York")).time() == time(3, 30)


def test_a_window_that_ends_at_midnight_is_open_until_then() -> None:
    whole = Window(time(0), time.max)
    assert next_open(at("2026-11-21T18:29:59"), "Asia/Kolkata", whole) == at("2026-11-21T18:29:59")


def test_the_hard_limit_cuts_the_customers_own_window() -> None:
    assert effective(DAY, LIMIT, Window(time(7), time(23))) == LIMIT
    assert effective(DAY, LIMIT, None) == DAY


def test_a_window_outside_the_limit_is_never_open() -> None:
    assert effective(DAY, LIMIT, Window(time(21), time(23))) is None


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe"])
@given(now=st.datetimes(min_value=datetime(2025, 1, 1), max_value=datetime(2028, 1, 1)))  # noqa: DTZ001 - made aware below
def test_the_next_opening_is_never_early_and_always_inside_the_window(zone: str, now: datetime) -> None:
    instant = now.replace(tzinfo=UTC)
    opens = next_open(instant, zone, DAY)
    assert opens >= instant
    assert DAY.start <= opens.astimezone(ZoneInfo(zone)).time() < DAY.end
    assert (opens - instant).total_seconds() <= 16 * 3600
