"""`recurrence` against Debian cron acted out minute by minute, around changes of the clock of every kind."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from backend.scheduling.recurrence import (
    Cron,
    Due,
    Interval,
    Once,
    Recurrence,
    RecurrenceError,
    count_between,
    due,
    explain,
    next_after,
    parse_cron,
    preview,
)
from tests.scheduling.minute_by_minute import Run, runs

# Days (of UTC) on which the clock changes: an hour, half an hour, at midnight, in Ramadan, two hours, 15 minutes, a day.
CHANGES = (
    ("America/New_York", "2027-03-14"),
    ("America/New_York", "2027-11-07"),
    ("Europe/Berlin", "2027-03-28"),
    ("Europe/Berlin", "2027-10-31"),
    ("Australia/Lord_Howe", "2027-04-03"),
    ("Australia/Lord_Howe", "2027-10-02"),
    ("America/Sao_Paulo", "2017-10-15"),
    ("America/Sao_Paulo", "2018-02-18"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("Africa/Cairo", "2027-04-29"),
    ("Africa/Cairo", "2027-10-28"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Africa/Casablanca", "2026-03-22"),
    ("America/Havana", "2027-03-14"),
    ("America/Havana", "2027-11-07"),
    ("Antarctica/Troll", "2027-03-28"),
    ("Antarctica/Troll", "2027-10-31"),
    ("Asia/Kathmandu", "1985-12-31"),
    ("Asia/Kathmandu", "2027-06-01"),
    ("Pacific/Apia", "2011-12-30"),
    ("UTC", "2027-06-01"),
)
BEFORE, AFTER = timedelta(hours=6), timedelta(hours=30)

# hypothesis takes its bounds without a zone.
EARLIEST, LATEST = (datetime(year, 1, 1, tzinfo=UTC).replace(tzinfo=None) for year in (2020, 2030))

tuned = settings(max_examples=200, deadline=None)


def items(low: int, high: int, usual: st.SearchStrategy[int]) -> st.SearchStrategy[str]:
    """One field: a star, a step, numbers, ranges and lists of them; `usual` numbers lie near changes of the clock."""
    number = st.one_of(usual, st.integers(low, high))
    bounds = st.tuples(number, number).map(sorted)
    steps = st.integers(1, high - low)
    item = st.one_of(
        number.map(str),
        bounds.map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.tuples(bounds.filter(lambda pair: pair[0] < pair[1]), steps).map(
            lambda drawn: f"{drawn[0][0]}-{drawn[0][1]}/{drawn[1]}"
        ),
        st.tuples(number, steps).map(lambda drawn: f"{drawn[0]}/{drawn[1]}"),
    )
    return st.one_of(
        st.just("*"), steps.map(lambda step: f"*/{step}"), st.lists(item, min_size=1, max_size=3).map(",".join)
    )


expressions = st.builds(
    lambda minute, hour, days: f"{minute} {hour} {days}",
    items(0, 59, st.sampled_from((0, 15, 30, 45, 59))),
    items(0, 23, st.integers(0, 4)),
    st.one_of(
        st.just("* * *"),
        items(0, 7, st.sampled_from((0, 6, 7))).map(lambda days: f"* * {days}"),
        st.sampled_from(("* * SUN", "1,15,31 * *", "13-15 * sat", "*/2 * 0", "* 2-11/2 *")),
    ),
)
sparse = st.sampled_from(
    ("30 1-2 * * *", "*/30 1-3 * * 0", "0 */4 * * *", "0 0 1,15 * *", "15,45 * * * *", "59 23 L * *", "0 2 * * 7#1")
)
offsets = st.integers(0, int((BEFORE + AFTER).total_seconds()) * 2).map(lambda half: timedelta(seconds=half / 2))


def day_of(change: tuple[str, str]) -> datetime:
    return datetime.fromisoformat(change[1]).replace(tzinfo=UTC)


def chain(recurrence: Recurrence, after: datetime, end: datetime) -> list[datetime]:
    found: list[datetime] = []
    while (at := next_after(recurrence, found[-1] if found else after)) is not None and at <= end:
        found.append(at)
    return found


def expected(expression: str, change: tuple[str, str]) -> list[Run]:
    day = day_of(change)
    return runs(expression, change[0], day - BEFORE, day + AFTER)


@tuned
@given(expressions, st.sampled_from(CHANGES), offsets)
def test_next_after_gives_the_runs_of_the_minute_by_minute_walk_from_any_moment(
    expression: str, change: tuple[str, str], offset: timedelta
) -> None:
    after = day_of(change) - BEFORE + offset
    due_then = [run.at for run in expected(expression, change) if run.at > after]
    assert chain(Cron(parse_cron(expression), change[0]), after, day_of(change) + AFTER) == due_then


@tuned
@given(expressions, st.sampled_from(CHANGES), offsets, st.integers(0, 40), st.integers(0, 10_000))
def test_due_splits_the_runs_of_the_minute_by_minute_walk(
    expression: str, change: tuple[str, str], offset: timedelta, limit: int, chosen: int
) -> None:
    cron = Cron(parse_cron(expression), change[0])
    now = day_of(change) - BEFORE + offset
    walked = [run.at for run in expected(expression, change) if run.at <= now]
    if not walked:
        return
    walked = walked[chosen % len(walked) :]
    newest = walked[len(walked) - min(limit, len(walked)) :]
    older = walked[: len(walked) - len(newest)]
    split = Due(tuple(newest), older[0] if older else None, older[-1] if older else None, len(older))
    assert due(cron, walked[0], now, limit) == split
    assert count_between(cron, walked[0], now) == len(walked)


@tuned
@given(expressions, st.sampled_from(CHANGES))
def test_preview_tells_shifted_and_repeated_runs_of_the_minute_by_minute_walk(
    expression: str, change: tuple[str, str]
) -> None:
    walked = expected(expression, change)
    shown = preview(
        Cron(parse_cron(expression), change[0]), day_of(change) - BEFORE - timedelta(microseconds=1), len(walked)
    )
    kinds = ["shifted" if run.lost else "repeated" if run.twice else None for run in walked]
    assert [(run.at, run.local.replace(tzinfo=None, fold=0), run.dst) for run in shown] == [
        (run.at, run.wall, kind) for run, kind in zip(walked, kinds, strict=True)
    ]
    assert all((run.note is None) == (run.dst is None) for run in shown)
    assert all(
        f"{lost:%H:%M}" in (run.note or "") for run, was in zip(shown, walked, strict=True) for lost in was.lost[:1]
    )


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([change[0] for change in CHANGES]),
    st.integers(2000, 2060),
    st.sampled_from(("0 0 29 2 *", "30 2 28,29 feb *", "59 23 28-29 2 mon", "*/20 1-2 1 mar *", "0 0 */2 2 7")),
)
def test_leap_days_follow_the_minute_by_minute_walk(zone: str, year: int, expression: str) -> None:
    start, end = datetime(year, 2, 27, tzinfo=UTC), datetime(year, 3, 2, tzinfo=UTC)
    walked = [run.at for run in runs(expression, zone, start, end)]
    assert chain(Cron(parse_cron(expression), zone), start - timedelta(seconds=1), end) == walked


@settings(max_examples=60, deadline=None)
@given(
    sparse,
    st.sampled_from([change[0] for change in CHANGES]),
    st.integers(0, 60),
    st.integers(1, 200),
    st.integers(1, 50),
)
def test_due_after_a_gap_of_months_agrees_with_chained_next_after(
    expression: str, zone: str, month: int, days: int, limit: int
) -> None:
    cron = Cron(parse_cron(expression), zone)
    first = next_after(cron, datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=31 * month))
    assert first is not None
    now = first + timedelta(days=days)
    found = due(cron, first, now, limit)
    everything = chain(cron, first - timedelta(seconds=1), now)
    older = everything[:-limit]
    assert list(found.instants) == everything[-limit:]
    assert (found.older_first, found.older_last) == ((older[0], older[-1]) if older else (None, None))
    assert found.older_count == (len(older) if len(older) <= 5_000 else None)


@tuned
@given(
    st.integers(1_000_000, 10**13).map(lambda micros: micros / 1_000_000),
    st.datetimes(EARLIEST, LATEST, timezones=st.just(UTC)),
    st.integers(0, 10**6),
    st.integers(0, 60),
    st.integers(0, 30),
    st.floats(0, 0.999),
)
def test_an_interval_hits_its_grid_and_splits_it(
    seconds: float, anchor: datetime, number: int, more: int, limit: int, part: float
) -> None:
    micros = round(seconds * 1_000_000)
    number %= 10**15 // micros + 1
    grid = [anchor + timedelta(microseconds=(number + n) * micros) for n in range(more + 1)]
    every = Interval(seconds, anchor)
    now = grid[-1] + timedelta(microseconds=int(micros * part))
    assert chain(every, grid[0] - timedelta(microseconds=1), now) == grid
    newest = grid[len(grid) - min(limit, len(grid)) :]
    older = grid[: len(grid) - len(newest)]
    split = Due(tuple(newest), older[0] if older else None, older[-1] if older else None, len(older))
    assert due(every, grid[0], now, limit) == split
    assert count_between(every, grid[0], now) == len(grid)


@tuned
@given(st.datetimes(EARLIEST, LATEST, timezones=st.just(UTC)), st.datetimes(EARLIEST, LATEST, timezones=st.just(UTC)))
def test_a_single_run_is_next_before_it_and_never_again(at: datetime, moment: datetime) -> None:
    assert next_after(Once(at), moment) == (at if at > moment else None)
    assert due(Once(at), at, moment, 3).instants == ((at,) if at <= moment else ())


@tuned
@given(st.one_of(st.text(max_size=30), st.text("0123456789*/,-@LW# ?abcjJANmonMON", max_size=30)))
def test_any_text_is_either_a_schedule_that_runs_and_can_be_explained_or_a_fault_with_its_column(text: str) -> None:
    normal, position = "", None
    try:
        normal = parse_cron(text)
    except RecurrenceError as fault:
        position = fault.position
    if not normal:
        assert position is not None
        assert 1 <= position <= len(text) + 1
        return
    assert parse_cron(normal) == normal
    assert explain(text)
    assert next_after(Cron(normal, "UTC"), datetime(2026, 1, 1, tzinfo=UTC)) is not None


@tuned
@given(expressions)
def test_valid_expressions_are_kept_and_explained(expression: str) -> None:
    assert parse_cron(f"  {expression.lower()} ") == expression.upper()
    assert explain(expression).endswith(".")
