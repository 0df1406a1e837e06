import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import tzdata  # type: ignore[import-untyped] # a data package: it has neither stubs nor py.typed
from cronsim import CronSim

from backend.scheduling.recurrence import (
    TZDATA_VERSION,
    Cron,
    Due,
    Interval,
    Occurrence,
    Once,
    RecurrenceError,
    count_between,
    due,
    explain,
    next_after,
    parse_cron,
    preview,
    zone,
)

NEW_YORK, BERLIN, LORD_HOWE = "America/New_York", "Europe/Berlin", "Australia/Lord_Howe"
T0 = datetime(2027, 5, 3, 10, 0, tzinfo=UTC)


def on_day(expression: str, name: str, day: str) -> list[Occurrence]:
    """The occurrences of one local day."""
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(name))
    shown = preview(Cron(parse_cron(expression), name), start.astimezone(UTC) - timedelta(microseconds=1), 120)
    return [run for run in shown if run.local.date() == start.date()]


def walls(expression: str, name: str, day: str) -> list[str]:
    return [f"{run.local:%H:%M%z}" for run in on_day(expression, name, day)]


def faulty(expression: str) -> RecurrenceError:
    with pytest.raises(RecurrenceError) as caught:
        parse_cron(expression)
    assert caught.value.field == "cron_expression"
    return caught.value


# Days of change, in both zones of the comparison of cron engines: spring, then autumn.


@pytest.mark.parametrize(
    ("name", "day", "first", "offset"),
    [(NEW_YORK, "2027-03-14", "03:00", "-0400"), (BERLIN, "2027-03-28", "03:00", "+0200")],
)
def test_in_spring_a_fixed_time_that_does_not_exist_runs_once_right_after_the_jump(
    name: str, day: str, first: str, offset: str
) -> None:
    (run,) = on_day("30 2 * * *", name, day)
    assert f"{run.local:%H:%M%z}" == first + offset
    assert (run.dst, run.note) == ("shifted", f"02:30 does not exist on {day} in {name}; runs at 03:00")


@pytest.mark.parametrize(
    ("name", "day", "time", "offset"),
    [(NEW_YORK, "2027-11-07", "01:30", "-0400"), (BERLIN, "2027-10-31", "02:30", "+0200")],
)
def test_in_autumn_a_fixed_time_in_the_repeated_hour_runs_once_at_the_first(
    name: str, day: str, time: str, offset: str
) -> None:
    hour, minute = time.split(":")
    (run,) = on_day(f"{minute} {int(hour)} * * *", name, day)
    assert f"{run.local:%H:%M%z}" == time + offset
    assert (run.dst, run.note) == ("repeated", f"{time} happens twice on {day} in {name}; runs at the first")


@pytest.mark.parametrize(
    ("name", "day", "number"),
    [(NEW_YORK, "2027-03-14", 8), (BERLIN, "2027-03-28", 8), (NEW_YORK, "2027-11-07", 16), (BERLIN, "2027-10-31", 16)],
)
def test_every_15_minutes_from_1_to_3_keeps_the_real_interval(name: str, day: str, number: int) -> None:
    runs = on_day("*/15 1-3 * * *", name, day)
    assert len(runs) == number
    assert {later.at - run.at for run, later in itertools.pairwise(runs)} == {timedelta(minutes=15)}
    notes = [run.note for run in runs if run.dst == "repeated"]
    assert not any(run.dst == "shifted" for run in runs)
    if number == 16:
        hour = "01" if name == NEW_YORK else "02"
        passes = [
            f"{word} {hour}:{minute} of that day" for word in ("first", "second") for minute in ("00", "15", "30", "45")
        ]
        assert notes == passes


def test_several_fixed_times_in_one_gap_and_the_time_after_it_are_one_run() -> None:
    first, second = on_day("0,30 2,3 * * *", NEW_YORK, "2027-03-14")
    assert (f"{first.local:%H:%M}", f"{second.local:%H:%M}") == ("03:00", "03:30")
    assert first.note == "02:00 to 02:30 do not exist on 2027-03-14 in America/New_York; they run once, at 03:00"
    found = due(Cron("0,30 2,3 * * *", NEW_YORK), first.at, second.at, 10)
    assert found.instants == (first.at, second.at)
    assert count_between(Cron("0,30 2,3 * * *", NEW_YORK), first.at, second.at) == 2


def test_asked_in_the_second_pass_a_fixed_time_is_due_tomorrow() -> None:
    second_pass = datetime(2027, 11, 7, 6, 10, tzinfo=UTC)
    assert next_after(Cron("30 1 * * *", NEW_YORK), second_pass) == datetime(2027, 11, 8, 6, 30, tzinfo=UTC)


def test_changes_of_30_minutes_lose_no_run() -> None:
    assert walls("45 1-3 * * *", LORD_HOWE, "2027-10-03") == ["01:45+1030", "02:45+1100", "03:45+1100"]
    assert walls("45 */1 * * *", LORD_HOWE, "2027-10-03")[1:4] == ["01:45+1030", "02:45+1100", "03:45+1100"]
    assert walls("* 3 * * *", LORD_HOWE, "2027-10-03")[0] == "03:00+1100"
    assert walls("45 */1 * * *", LORD_HOWE, "2027-04-04")[1:4] == ["01:45+1100", "01:45+1030", "02:45+1030"]
    assert walls("15 2 * * *", LORD_HOWE, "2027-10-03") == ["02:30+1100"]


def test_a_day_without_midnight_runs_daily_jobs_at_its_first_instant_and_no_wildcard_of_the_lost_hour() -> None:
    assert walls("0 0 * * *", "Africa/Cairo", "2027-04-30") == ["01:00+0300"]
    assert walls("*/30 0 * * FRI", "Africa/Cairo", "2027-04-30") == []
    assert walls("0 0 * * *", "America/Sao_Paulo", "2018-11-04") == ["01:00-0200"]


def test_the_day_that_samoa_skipped_is_made_up_for_at_its_end() -> None:
    (run,) = on_day("30 9 30 12 *", "Pacific/Apia", "2011-12-31")
    assert (run.local.isoformat(), run.dst) == ("2011-12-31T00:00:00+14:00", "shifted")


@pytest.mark.parametrize(
    ("expression", "name", "after", "by_cronsim", "by_us"),
    [
        ("45 * * * *", LORD_HOWE, "2027-10-02T15:15", "2027-10-02T16:45", "2027-10-02T15:45"),
        ("* 3 * * *", LORD_HOWE, "2027-10-02T14:15", "2027-10-02T16:30", "2027-10-02T16:00"),
        ("45 * * * *", LORD_HOWE, "2027-04-03T14:45", "2027-04-03T16:15", "2027-04-03T15:15"),
        ("*/30 0 * * FRI", "Africa/Cairo", "2027-04-29T10:00", "2027-04-29T22:00", "2027-05-06T21:00"),
        ("30 1 * * *", NEW_YORK, "2027-11-07T06:10", "2027-11-07T05:30", "2027-11-08T06:30"),
    ],
)
def test_cronsim_with_a_zone_departs_from_debian_where_we_do_not(
    expression: str, name: str, after: str, by_cronsim: str, by_us: str
) -> None:
    """When this fails on cronsim's side, it was repaired: see whether wall_clock can become simpler."""
    moment = datetime.fromisoformat(f"{after}Z")
    theirs = next(CronSim(expression, moment.astimezone(ZoneInfo(name)))).astimezone(UTC)
    assert theirs == datetime.fromisoformat(f"{by_cronsim}Z")
    assert next_after(Cron(expression, name), moment) == datetime.fromisoformat(f"{by_us}Z")


# Instants


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("10:00:00", "10:01"),
        ("10:00:00.000001", "10:01"),
        ("10:00:00.500000", "10:01"),
        ("09:59:59.900000", "10:00"),
        ("09:59:59.999999", "10:00"),
    ],
)
def test_next_is_strictly_after_and_skips_no_minute_for_microseconds(after: str, expected: str) -> None:
    moment = datetime.fromisoformat(f"2027-05-03T{after}+00:00")
    assert next_after(Cron("* * * * *", BERLIN), moment) == datetime.fromisoformat(f"2027-05-03T{expected}:00+00:00")


def test_after_may_be_in_any_zone_and_the_answer_is_utc() -> None:
    after = datetime(2027, 5, 3, 12, 0, tzinfo=ZoneInfo("Asia/Kathmandu"))
    at = next_after(Cron("0 9 * * *", BERLIN), after)
    assert at == datetime(2027, 5, 3, 7, 0, tzinfo=UTC)
    assert at.tzinfo is UTC


@pytest.mark.parametrize(
    ("expression", "years"),
    [("0 0 29 2 *", [2096, 2104, 2108]), ("0 0 29 2 */7", [2128, 2156, 2184])],
)
def test_leap_days_are_found_across_2100(expression: str, years: list[int]) -> None:
    runs = preview(Cron(expression, NEW_YORK), datetime(2092, 3, 1, tzinfo=UTC), 3)
    assert [run.local.year for run in runs] == years


@pytest.mark.parametrize("moment", [datetime.max.replace(tzinfo=ZoneInfo(NEW_YORK)), datetime.min.replace(tzinfo=UTC)])
def test_moments_at_the_ends_of_the_calendar_are_refused(moment: datetime) -> None:
    with pytest.raises(RecurrenceError, match="use 1970 to 9000") as caught:
        Once(moment)
    assert caught.value.field == "run_at"
    with pytest.raises(RecurrenceError, match="use 1970 to 9000"):
        next_after(Cron("0 0 1 1 *", NEW_YORK), moment)


def test_the_last_year_still_has_a_next_run() -> None:
    last = datetime(9000, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert next_after(Cron("0 0 1 1 *", NEW_YORK), last) == datetime(9001, 1, 1, 5, 0, tzinfo=UTC)
    assert next_after(Interval(60, T0), last) == datetime(9001, 1, 1, tzinfo=UTC)


def test_an_interval_does_not_drift_over_a_million_steps() -> None:
    tenth = Interval(1.1, T0)
    assert next_after(tenth, T0 + timedelta(seconds=1_099_999)) == T0 + timedelta(seconds=1_100_000)
    assert next_after(tenth, T0 + timedelta(seconds=1_100_000)) == T0 + timedelta(seconds=1_100_001, milliseconds=100)


def test_an_interval_begins_with_its_anchor() -> None:
    assert next_after(Interval(60, T0), T0 - timedelta(days=9)) == T0
    assert next_after(Interval(60, T0), T0) == T0 + timedelta(minutes=1)
    assert count_between(Interval(60, T0), T0 - timedelta(days=9), T0 + timedelta(minutes=2)) == 3
    assert count_between(Interval(60, T0), T0 + timedelta(seconds=1), T0 + timedelta(minutes=2)) == 2


@pytest.mark.parametrize("seconds", [0.999, 0, -5, 10 * 366 * 86_400, float("nan"), float("inf")])
def test_an_interval_has_bounds(seconds: float) -> None:
    with pytest.raises(RecurrenceError, match=r"use 1 second to 10 years") as caught:
        Interval(seconds, T0)
    assert caught.value.field == "interval_seconds"


def test_naive_times_are_refused() -> None:
    naive = T0.replace(tzinfo=None)
    with pytest.raises(ValueError, match="anchor has no time zone"):
        Interval(60, naive)
    with pytest.raises(ValueError, match="run_at has no time zone"):
        Once(naive)
    with pytest.raises(ValueError, match="after has no time zone"):
        next_after(Cron("* * * * *", "UTC"), naive)
    with pytest.raises(ValueError, match="now has no time zone"):
        due(Once(T0), T0, naive, 1)


# Due


def test_due_after_a_year_counts_an_interval_by_arithmetic() -> None:
    now = T0 + timedelta(days=365, seconds=30)
    minutes = 365 * 1440 + 1
    assert due(Interval(60, T0), T0, now, 2) == Due(
        (now - timedelta(seconds=90), now - timedelta(seconds=30)), T0, now - timedelta(seconds=150), minutes - 2
    )


def test_due_counts_5000_older_cron_runs_and_no_more() -> None:
    every_minute = Cron("* * * * *", NEW_YORK)
    exact = due(every_minute, T0, T0 + timedelta(minutes=5_009), 10)
    assert (exact.older_count, exact.older_first, exact.older_last) == (5_000, T0, T0 + timedelta(minutes=4_999))
    assert exact.instants[-1] == T0 + timedelta(minutes=5_009)
    assert due(every_minute, T0, T0 + timedelta(minutes=5_010), 10).older_count is None
    assert count_between(every_minute, T0, T0 + timedelta(minutes=5_010)) == 5_011


def test_due_with_nothing_due_is_empty() -> None:
    empty = Due((), None, None, 0)
    assert due(Cron("0 0 * * *", "UTC"), T0, T0 + timedelta(hours=1), 5) == empty
    assert due(Interval(60, T0), T0, T0 - timedelta(seconds=1), 5) == empty
    assert due(Once(T0), T0, T0 - timedelta(seconds=1), 5) == empty
    assert due(Once(T0), T0, T0, 0) == Due((), T0, T0, 1)


def test_due_leaves_out_a_stored_instant_that_the_rules_of_the_zone_no_longer_have() -> None:
    stored = datetime(2027, 5, 3, 8, 0, tzinfo=UTC)
    found = due(Cron("0 9 * * *", BERLIN), stored, stored + timedelta(days=1), 5)
    assert found.instants == (datetime(2027, 5, 4, 7, 0, tzinfo=UTC),)


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        due(Once(T0), T0, T0, -1)


# Preview


def test_intervals_are_shown_in_a_chosen_zone_with_the_pass_of_a_repeated_hour() -> None:
    anchor = datetime(2027, 11, 7, 5, 30, tzinfo=UTC)
    runs = preview(Interval(3600, anchor), anchor - timedelta(seconds=1), 3, NEW_YORK)
    assert [f"{run.local:%H:%M%z}" for run in runs] == ["01:30-0400", "01:30-0500", "02:30-0500"]
    assert [run.note for run in runs] == ["first 01:30 of that day", "second 01:30 of that day", None]
    assert preview(Once(T0), T0, 3) == []
    assert preview(Once(T0), T0 - timedelta(days=1), 3) == [Occurrence(T0, T0, None, None)]


# Expressions


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("  0   9\t* jan-mar  mon ", "0 9 * JAN-MAR MON"),
        ("@hourly", "0 * * * *"),
        ("@Daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        (" @weekly ", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("0 0 L * 5l", "0 0 L * 5L"),
        ("0 0 * * mon#2", "0 0 * * MON#2"),
        ("0 0 30 2 1", "0 0 30 2 1"),
        ("*/60 */24 */31 */12 */7", "*/60 */24 */31 */12 */7"),
    ],
)
def test_expressions_are_normalised(written: str, normal: str) -> None:
    assert parse_cron(written) == normal


@pytest.mark.parametrize(
    ("expression", "position", "says"),
    [
        ("", 1, "There are 0 fields; write five"),
        ("0 9 * *  ", 8, "There are 4 fields; write five"),
        ("0 0 9 * * *", 11, "There are 6 fields; write five, without seconds"),
        ("60 * * * *", 1, "Minute: 60 is outside 0-59"),
        ("1,2,61 * * * *", 5, "Minute: 61 is outside 0-59"),
        ("  0 24 * * *", 5, "Hour: 24 is outside 0-23"),
        ("0 0 0 * *", 5, "Day-of-month: 0 is outside 1-31"),
        ("0 0 1 13 *", 7, "Month: 13 is outside 1-12"),
        ("0 0 1 foo *", 7, "Month: 'FOO' is not understood; use *, 1-12 (or names)"),
        ("0 0 * * 8", 9, "Day-of-week: 8 is outside 0-7"),
        ("0 0 * * fri-sun", 9, "(Sunday last is 7)"),
        ("30-10 * * * *", 1, "'30-10' is not a range from low to high"),
        ("*/0 * * * *", 1, "'*/0' has no valid step"),
        ("*/x * * * *", 1, "'*/X' has no valid step"),
        ("*/90 * * * *", 1, "step 90 is longer than the field's 60 values"),
        ("0 0 * * */8", 9, "step 8 is longer than the field's 7 values"),
        ("5-5/10 * * * *", 1, "a range of one value with a step"),
        ("0 0 * * mon-1/2", 9, "a range of one value with a step"),
        ("0 0 1,,3 * *", 7, "an item of the list is empty"),
        ("H * * * *", 1, "'H' is not understood"),
        ("0 0 ? * *", 5, "'?' is not understood"),
        ("0 0 L/2 * *", 5, "'L/2' has no valid step"),
        ("0 0 * * mon#6", 9, "'MON#6' is not understood"),
        ("² * * * *", 1, "'²' is not understood"),
        ("0 0 30 2 *", 5, "never meet"),
        ("0  0 31  4,jun *", 6, "never meet"),
        ("0 0 */31 * mon#2", 5, "never meet"),
        (" @reboot", 2, "@reboot is not a time"),
        ("@fortnightly", 1, "@fortnightly is not known; use one of @hourly"),
        ("@daily  9", 9, "@daily stands alone"),
        ("0 " * 200, 256, "longer than 255 characters"),
    ],
)
def test_a_faulty_expression_is_refused_with_its_column_and_the_repair(
    expression: str, position: int, says: str
) -> None:
    fault = faulty(expression)
    assert says in str(fault)
    assert fault.position == position


def test_an_unchecked_expression_is_checked_when_used() -> None:
    with pytest.raises(RecurrenceError, match="without seconds"):
        next_after(Cron("0 0 9 * * *", "UTC"), T0)


def test_the_explanation_says_that_two_day_fields_mean_or() -> None:
    assert explain("@daily") == "At 00:00 every day."
    either = explain("0 0 13 * fri")
    assert either.startswith("At 00:00 on the 13th day of month and on Friday.")
    assert either.endswith("together mean OR: it runs on days that match either.")
    assert "OR" not in explain("0 0 */2 * fri")


# Zones


def test_zones_come_from_the_packaged_data_only() -> None:
    assert tzdata.IANA_VERSION == TZDATA_VERSION
    assert zone("Asia/Kathmandu") is zone("Asia/Kathmandu")
    assert zone("UTC").key == "UTC"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Europe/Berln", "did you mean Europe/Berlin"),
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("New York", "did you mean America/New_York?"),
        ("utc", "did you mean UTC?"),
        ("EST", "EST is an abbreviation"),
        ("IST", "IST is an abbreviation"),
        ("EST5EDT", "EST5EDT is an abbreviation"),
        ("GMT+2", "GMT+2 is an abbreviation"),
        ("", "use an IANA name such as Europe/Berlin"),
        ("../etc/passwd", "is not a time zone"),
    ],
)
def test_an_unknown_zone_is_refused_with_close_matches(name: str, says: str) -> None:
    with pytest.raises(RecurrenceError) as caught:
        zone(name)
    assert says in str(caught.value)
    assert (caught.value.field, caught.value.position) == ("timezone", None)
