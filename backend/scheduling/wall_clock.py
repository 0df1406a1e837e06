"""The instants of a cron expression in a time zone.

Cron keeps Debian cron's rule for changes of the clock (cron(8), "daylight saving time"):
- a fixed time (neither minute nor hour starts with `*`) that a forward change skips runs at the first instant after the
  gap, once even when several of its times fall into the gap; a fixed time that happens twice runs the first time only;
- a wildcard time follows the clock: it does not run in a gap, and runs in both passes of a repeated hour.
Two departures from Debian: changes of more than three hours (a zone crossing the date line) are treated alike, and fixed
times of one gap are one run, since a run is identified by its instant.

cronsim is given wall time without a zone, and the rule above is applied here. With a zone, cronsim 2.8 departs from it:
1. it steps hours and minutes in real time, so that changes of 30 minutes (Australia/Lord_Howe) lose wildcard runs, in spring
   and autumn: `45 * * * *` misses 02:45 after the spring change, and `* 3 * * *` begins at 03:30 that day;
2. on a day whose midnight is skipped (Africa/Cairo each April), a wildcard of that day of the week or month gets a run
   that is not due: `*/30 0 * * FRI` runs at 01:00;
3. asked from within the second pass of a repeated hour, it answers a fixed time with the first pass, which is over;
4. walking back, it finds other instants than forward in the cases 1 and 2, and misses a second pass before midnight.
"""

import copy
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from backend.scheduling.cron_text import EPOCH, parse_cron, zone

_SECOND = timedelta(seconds=1)


class Plan:
    """A parsed expression over wall time without a zone, shared between calls: walkers are copies of cronsim's state."""

    def __init__(self, expression: str) -> None:
        normal = parse_cron(expression)
        self._forward, self._backward = CronSim(normal, EPOCH), CronSim(normal, EPOCH, reverse=True)
        minute, hour, *_ = normal.split()
        self.fixed = not minute.startswith("*") and not hour.startswith("*")

    def walk(self, wall: datetime) -> Iterator[datetime]:
        """Matching wall times strictly after `wall`, ascending; ends when fifty years hold none."""
        walker = copy.copy(self._forward)
        walker.dt = wall
        return walker

    def walk_back(self, wall: datetime) -> Iterator[datetime]:
        """Matching wall times strictly before `wall`, descending."""
        walker = copy.copy(self._backward)
        walker.dt = wall
        return walker

    def within(self, start: datetime, end: datetime) -> list[datetime]:
        """Matching wall times in [start, end). Asks for the days first, since a search for a rare date takes long."""
        if not any(
            self._matches(start.date() + timedelta(days=n)) for n in range((end.date() - start.date()).days + 1)
        ):
            return []
        return list(itertools.takewhile(lambda wall: wall < end, self.walk(start - _SECOND)))

    def _matches(self, day: date) -> bool:
        return day.month in self._forward.months and self._forward.match_day(day)


@functools.lru_cache(maxsize=4096)
def plan_of(expression: str) -> Plan:
    return Plan(expression)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a zone's UTC offset: from `at` on it is `after`."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def walls(self) -> tuple[datetime, datetime]:
        """The wall times skipped (forward change) or repeated (backward change), as [start, end)."""
        before, after = _wall(self.at, self.before), _wall(self.at, self.after)
        return min(before, after), max(before, after)


def forward(expression: str, zone_name: str, after: datetime) -> Iterator[datetime]:
    """The instants strictly after `after`, ascending. The wall's walker runs on from change to change of the offset."""
    plan, info = plan_of(expression), zone(zone_name)
    reached = after.replace(microsecond=0)
    offset = _offset(info, reached)
    walker = plan.walk(_wall(reached, offset))
    wall = next(walker, None)
    while wall is not None:
        at = _instant(wall, offset)
        change = next_change(zone_name, reached, at)
        if change is None:
            if not (plan.fixed and _second_pass(info, wall, offset)):
                yield at
            reached, wall = at, next(walker, None)
            continue
        start, end = change.walls
        if change.after > change.before:
            shifted = plan.fixed and bool(plan.within(start, end))
            if shifted:
                yield change.at
            while wall is not None and (wall < end or (shifted and wall == end)):
                wall = next(walker, None)
        elif not plan.fixed:
            yield from (_instant(again, change.after) for again in plan.within(start, end))
        reached, offset = change.at, change.after


def backward(expression: str, zone_name: str, until: datetime) -> Iterator[datetime]:
    """The same instants from `until` (included) down."""
    plan, info = plan_of(expression), zone(zone_name)
    reached = until.replace(microsecond=0)
    offset = _offset(info, reached)
    walker = plan.walk_back(_wall(reached, offset) + _SECOND)
    wall = next(walker, None)
    last: datetime | None = None
    while wall is not None:
        at = _instant(wall, offset)
        change = _last_change(zone_name, at, reached)
        if change is None:
            if not (plan.fixed and _second_pass(info, wall, offset)):
                yield (last := at)
            wall = next(walker, None)
            continue
        start, end = change.walls
        if change.after > change.before:
            # The first instant after the gap may have been its own run already: `0 2,3 * * *`.
            if plan.fixed and last != change.at and plan.within(start, end):
                yield change.at
            while wall is not None and wall >= start:
                wall = next(walker, None)
        else:
            yield from (_instant(first, change.before) for first in reversed(plan.within(start, end)))
        reached, offset = change.at - _SECOND, change.before


def next_change(zone_name: str, after: datetime, until: datetime) -> Change | None:
    """The first change in (after, until]."""
    for year in range(after.year, until.year + 1):
        for change in _changes(zone_name, year):
            if change.at > after:
                return change if change.at <= until else None
    return None


def _last_change(zone_name: str, after: datetime, until: datetime) -> Change | None:
    """The last change in (after, until]."""
    for year in range(until.year, after.year - 1, -1):
        for change in reversed(_changes(zone_name, year)):
            if change.at <= until:
                return change if change.at > after else None
    return None


@functools.lru_cache(maxsize=16_384)
def _changes(zone_name: str, year: int) -> tuple[Change, ...]:
    """A zone's changes of offset in one UTC year, found by looking at each day: zoneinfo does not tell them."""
    info = zone(zone_name)
    found: list[Change] = []
    day = datetime(year, 1, 1, tzinfo=UTC) - _SECOND
    offset = _offset(info, day)
    while day.year <= year and (day + _SECOND).year <= year:
        low, high = day, day + timedelta(days=1)
        day = high
        if (later := _offset(info, high)) == offset:
            continue
        while high - low > _SECOND:
            middle = (low + (high - low) / 2).replace(microsecond=0)
            low, high = (middle, high) if _offset(info, middle) == offset else (low, middle)
        found.append(Change(high, offset, later))
        offset = later
    return tuple(found)


def _offset(info: ZoneInfo, at: datetime) -> timedelta:
    return at.astimezone(info).utcoffset() or timedelta(0)


def _second_pass(info: ZoneInfo, wall: datetime, offset: timedelta) -> bool:
    return wall.replace(tzinfo=info).utcoffset() != offset


def _wall(at: datetime, offset: timedelta) -> datetime:
    return (at + offset).replace(tzinfo=None)


def _instant(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=UTC)
