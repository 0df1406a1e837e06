"""When a schedule runs: cron in its own time zone, an interval, or one instant. Every instant returned is UTC.

Cron follows Debian cron on days when the clock changes: `wall_clock` has the rule.
"""

import functools
import itertools
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import tzdata  # type: ignore[import-untyped] # a data package: it has neither stubs nor py.typed

from backend.scheduling.cron_text import RecurrenceError, explain, parse_cron, zone
from backend.scheduling.wall_clock import backward, forward, next_change, plan_of

__all__ = [
    "TZDATA_VERSION",
    "Cron",
    "Due",
    "Interval",
    "Occurrence",
    "Once",
    "Recurrence",
    "RecurrenceError",
    "count_between",
    "due",
    "explain",
    "next_after",
    "parse_cron",
    "preview",
    "zone",
]

TZDATA_VERSION: str = tzdata.IANA_VERSION
MIN_INTERVAL_SECONDS = 1.0
MAX_INTERVAL_SECONDS = 10 * 365.25 * 86_400
MAX_COUNTED = 5_000
# Far enough from the ends of datetime's calendar for every sum made here.
YEARS = range(1970, 9001)

_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Cron:
    """`expression` as parse_cron() returns it; `zone` an IANA name. Both are checked when first used."""

    expression: str
    zone: str


@dataclass(frozen=True, slots=True)
class Interval:
    """The instants anchor + n * seconds for every integer n >= 0, exact to the microsecond; `anchor` becomes UTC."""

    seconds: float
    anchor: datetime

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and MIN_INTERVAL_SECONDS <= self.seconds <= MAX_INTERVAL_SECONDS):
            raise RecurrenceError(
                f"An interval of {self.seconds} seconds is out of range; use 1 second to 10 years.",
                field="interval_seconds",
            )
        object.__setattr__(self, "anchor", _utc(self.anchor, "anchor"))

    @property
    def step(self) -> timedelta:
        return timedelta(microseconds=round(self.seconds * 1_000_000))


@dataclass(frozen=True, slots=True)
class Once:
    """A single instant; `at` becomes UTC."""

    at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", _utc(self.at, "run_at"))


Recurrence = Cron | Interval | Once


@dataclass(frozen=True, slots=True)
class Due:
    """The newest instants, ascending, and the older ones as a range; `older_count` None: more than MAX_COUNTED."""

    instants: tuple[datetime, ...]
    older_first: datetime | None
    older_last: datetime | None
    older_count: int | None


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A coming run: `at` in UTC, `local` in the schedule's zone; `dst` 'shifted' | 'repeated', told by `note`."""

    at: datetime
    local: datetime
    dst: str | None
    note: str | None


def next_after(recurrence: Recurrence, after: datetime) -> datetime | None:
    """The first instant strictly after `after` (aware, or ValueError), in UTC; None when there is none.

    None for cron means none within 50 years. Raises RecurrenceError for an expression or a zone that is not valid.
    """
    after = _utc(after, "after")
    if isinstance(recurrence, Once):
        return recurrence.at if recurrence.at > after else None
    if isinstance(recurrence, Cron):
        return _next_cron(recurrence.expression, recurrence.zone, after.replace(microsecond=0))
    step = recurrence.step
    return recurrence.anchor + max(0, (after - recurrence.anchor) // step + 1) * step


@functools.lru_cache(maxsize=16_384)
def _next_cron(expression: str, zone_name: str, after: datetime) -> datetime | None:
    return next(forward(expression, zone_name, after), None)


def due(recurrence: Recurrence, first: datetime, now: datetime, limit: int) -> Due:
    """All instants in [first, now]: the newest `limit` one by one, the older ones as a range with their exact number.

    Cheap for any gap: an interval is arithmetic; cron walks back `limit` steps and counts older ones up to MAX_COUNTED.
    `first` is an instant; if the zone's rules changed since it was stored, only instants of today's rules are returned.
    """
    first, now = _utc(first, "first"), _utc(now, "now")
    if limit < 0:
        raise ValueError("limit must not be negative")
    if isinstance(recurrence, Cron):
        return _due_cron(recurrence, first, now, limit)
    if isinstance(recurrence, Once):
        step, low, high = _SECOND, 0, 0 if first <= recurrence.at <= now else -1
        anchor = recurrence.at
    else:
        step, anchor = recurrence.step, recurrence.anchor
        low, high = max(0, -((anchor - first) // step)), (now - anchor) // step
    split = max(low, high + 1 - limit)
    instants = tuple(anchor + n * step for n in range(split, high + 1))
    if split == low:
        return Due(instants, None, None, 0)
    return Due(instants, anchor + low * step, anchor + (split - 1) * step, split - low)


def _due_cron(cron: Cron, first: datetime, now: datetime, limit: int) -> Due:
    newest_first = itertools.takewhile(lambda at: at >= first, backward(cron.expression, cron.zone, now))
    newest = list(itertools.islice(newest_first, limit))
    older_last = next(newest_first, None)
    instants = tuple(reversed(newest))
    if older_last is None:
        return Due(instants, None, None, 0)
    older = itertools.takewhile(lambda at: at <= older_last, forward(cron.expression, cron.zone, first - _MICROSECOND))
    older_first = next(older)
    count = 1 + sum(1 for _ in itertools.islice(older, MAX_COUNTED))
    return Due(instants, older_first, older_last, count if count <= MAX_COUNTED else None)


def count_between(recurrence: Recurrence, first: datetime, last: datetime) -> int:
    """How many instants lie in [first, last], exactly; cron costs some microseconds for each."""
    first, last = _utc(first, "first"), _utc(last, "last")
    if isinstance(recurrence, Cron):
        walk = forward(recurrence.expression, recurrence.zone, first - _MICROSECOND)
        return sum(1 for _ in itertools.takewhile(lambda at: at <= last, walk))
    found = due(recurrence, first, last, 0)
    return found.older_count or 0


def preview(recurrence: Recurrence, after: datetime, count: int, zone_name: str = "UTC") -> list[Occurrence]:
    """The next `count` instants after `after`; `zone_name` is for intervals and single runs, cron has its own."""
    after = _utc(after, "after")
    cron = recurrence if isinstance(recurrence, Cron) else None
    shown: list[Occurrence] = []
    while len(shown) < count and (at := next_after(recurrence, after)) is not None:
        shown.append(_occurrence(at, cron, cron.zone if cron else zone_name))
        after = at
    return shown


def _occurrence(at: datetime, cron: Cron | None, zone_name: str) -> Occurrence:
    local = at.astimezone(zone(zone_name))
    fixed = cron is not None and plan_of(cron.expression).fixed
    change = next_change(zone_name, at - _SECOND, at)
    if cron and fixed and change and (lost := plan_of(cron.expression).within(*change.walls)):
        first, last = f"{lost[0]:%H:%M}", f"{lost[-1]:%H:%M}"
        subject = f"{first} does not exist" if len(lost) == 1 else f"{first} to {last} do not exist"
        verb = "runs" if len(lost) == 1 else "they run once,"
        return Occurrence(
            at, local, "shifted", f"{subject} on {lost[0]:%Y-%m-%d} in {zone_name}; {verb} at {local:%H:%M}"
        )
    if local.replace(fold=0).utcoffset() == local.replace(fold=1).utcoffset():
        return Occurrence(at, local, None, None)
    if fixed:
        note = f"{local:%H:%M} happens twice on {local:%Y-%m-%d} in {zone_name}; runs at the first"
    else:
        note = f"{'second' if local.fold else 'first'} {local:%H:%M} of that day"
    return Occurrence(at, local, "repeated", note)


def _utc(moment: datetime, name: str) -> datetime:
    if moment.utcoffset() is None:
        raise RecurrenceError(f"{name} has no time zone; give an aware datetime.", field=name)
    if moment.year not in YEARS:
        raise RecurrenceError(f"{name} is in the year {moment.year}; use {YEARS[0]} to {YEARS[-1]}.", field=name)
    return moment.astimezone(UTC)
