"""Quiet hours and digests by the user's clock, on days when it changes, too."""

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest

from backend.notifications.hours import Hours, moment, next_digest, quiet_until
from backend.notifications.states import Digest

BERLIN = "Europe/Berlin"
NIGHT = (time(22), time(7))


def local(zone: str, text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("now", "end"),
    [
        ("2026-11-20 21:59:59", None),
        ("2026-11-20 22:00", "2026-11-21 07:00"),
        ("2026-11-20 23:59", "2026-11-21 07:00"),
        ("2026-11-21 00:00", "2026-11-21 07:00"),
        ("2026-11-21 06:59:59", "2026-11-21 07:00"),
        ("2026-11-21 07:00", None),
        ("2026-11-21 12:00", None),
    ],
)
def test_quiet_hours_span_midnight(now: str, end: str | None) -> None:
    hours = Hours("Asia/Kolkata", NIGHT)
    expected = None if end is None else local("Asia/Kolkata", end)
    assert quiet_until(hours, local("Asia/Kolkata", now)) == expected


def test_quiet_hours_within_a_day_end_on_that_day() -> None:
    hours = Hours("Asia/Kolkata", (time(13), time(14, 30)))
    assert quiet_until(hours, local("Asia/Kolkata", "2026-11-20 13:10")) == local("Asia/Kolkata", "2026-11-20 14:30")
    assert quiet_until(hours, local("Asia/Kolkata", "2026-11-20 14:30")) is None


def test_a_night_in_which_the_clock_goes_forward_is_an_hour_shorter() -> None:
    start, end = local(BERLIN, "2026-03-28 22:00"), quiet_until(Hours(BERLIN, NIGHT), local(BERLIN, "2026-03-28 22:00"))
    assert end == local(BERLIN, "2026-03-29 07:00")
    assert (end - start).total_seconds() == 8 * 3600


def test_a_night_in_which_the_clock_goes_back_is_an_hour_longer() -> None:
    start, end = local(BERLIN, "2026-10-24 22:00"), quiet_until(Hours(BERLIN, NIGHT), local(BERLIN, "2026-10-24 22:00"))
    assert end == local(BERLIN, "2026-10-25 07:00")
    assert (end - start).total_seconds() == 10 * 3600


def test_an_end_that_the_clock_skips_is_where_it_jumps_to() -> None:
    hours = Hours(BERLIN, (time(22), time(2, 30)))
    # 02:00 becomes 03:00 at 01:00 UTC.
    assert quiet_until(hours, local(BERLIN, "2026-03-28 23:00")) == datetime(2026, 3, 29, 1, tzinfo=UTC)


def test_a_clock_set_back_into_quiet_hours_makes_it_quiet_again() -> None:
    hours = Hours(BERLIN, (time(22), time(2, 30)))
    first, second = local(BERLIN, "2026-10-25 02:30"), local(BERLIN, "2026-10-25 02:30", fold=1)
    assert quiet_until(hours, local(BERLIN, "2026-10-25 01:00")) == first
    assert quiet_until(hours, local(BERLIN, "2026-10-25 02:45")) is None
    assert quiet_until(hours, local(BERLIN, "2026-10-25 02:10", fold=1)) == second
    assert quiet_until(hours, second) is None


def test_nothing_is_ever_told_while_it_is_quiet_around_a_change_of_the_clock() -> None:
    for day, quiet in (("2026-03-29", (time(1, 30), time(2, 30))), ("2026-10-25", (time(2, 15), time(2, 45)))):
        hours = Hours(BERLIN, quiet)
        midnight = local(BERLIN, f"{day} 00:00").timestamp()
        for minute in range(0, 6 * 60, 5):
            now = datetime.fromtimestamp(midnight + minute * 60, UTC)
            told = quiet_until(hours, now) or now
            wall = told.astimezone(ZoneInfo(BERLIN)).time()
            assert not quiet[0] <= wall < quiet[1]
            assert now <= told
            assert (told - now).total_seconds() <= 3600


def test_the_daily_digest_goes_out_at_its_local_time() -> None:
    hours = Hours(BERLIN, digest=Digest.DAILY, digest_at=time(8, 15))
    assert next_digest(hours, local(BERLIN, "2026-03-28 08:14:59")) == local(BERLIN, "2026-03-28 08:15")
    # The one after is only 23 hours later.
    assert next_digest(hours, local(BERLIN, "2026-03-28 08:15")) == local(BERLIN, "2026-03-29 08:15")


def test_a_day_that_skips_the_time_of_the_digest_or_has_it_twice_has_one_digest() -> None:
    hours = Hours(BERLIN, digest=Digest.DAILY, digest_at=time(2, 30))
    assert next_digest(hours, local(BERLIN, "2026-03-28 12:00")) == datetime(2026, 3, 29, 1, tzinfo=UTC)
    once = next_digest(hours, local(BERLIN, "2026-10-24 12:00"))
    assert once == local(BERLIN, "2026-10-25 02:30")
    assert next_digest(hours, once) == local(BERLIN, "2026-10-26 02:30")


def test_hourly_digests_go_out_at_the_users_full_hours() -> None:
    hours = Hours("Asia/Kolkata", digest=Digest.HOURLY)
    assert next_digest(hours, datetime(2026, 11, 20, 10, tzinfo=UTC)) == datetime(2026, 11, 20, 10, 30, tzinfo=UTC)


def test_urgent_waits_for_nothing_and_a_digest_for_quiet_hours_alone() -> None:
    hours = Hours("UTC", NIGHT, Digest.DAILY, time(9))
    night, morning = datetime(2026, 11, 20, 23, tzinfo=UTC), datetime(2026, 11, 21, 7, tzinfo=UTC)
    assert moment(hours, night, urgent=True).due_at == night
    assert moment(hours, night).digest_for == datetime(2026, 11, 21, 9, tzinfo=UTC)
    assert moment(hours, night, gather=False) == moment(Hours("UTC", NIGHT), night)
    assert moment(hours, night, gather=False).due_at == morning
    assert moment(None, night).due_at == night
