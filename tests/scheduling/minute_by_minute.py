"""Debian cron acted out minute by minute: what `recurrence` is compared with. It shares no code with it, nor with cronsim.

Like Debian's cron, it keeps the furthest wall minute reached. A fixed time runs when the wall clock passes it for the first
time, be it by a jump; a wildcard time runs in each minute that the wall clock shows.
"""

import functools
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_MINUTE = timedelta(minutes=1)
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_NAMES = {
    name: number
    for names, start in (("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC", 1), ("SUN MON TUE WED THU FRI SAT", 0))
    for number, name in enumerate(names.split(), start)
}


@dataclass(frozen=True)
class Run:
    """One run: `lost` are the wall minutes it stands for that do not exist; `twice`: its wall minute comes twice."""

    at: datetime
    wall: datetime
    lost: tuple[datetime, ...]
    twice: bool


class Matcher:
    """Five fields of numbers, names, ranges, lists and steps."""

    def __init__(self, expression: str) -> None:
        parts = expression.upper().split()
        self.fixed = not parts[0].startswith("*") and not parts[1].startswith("*")
        self._either_day = not parts[2].startswith("*") and not parts[4].startswith("*")
        sets = [_values(part, *bounds) for part, bounds in zip(parts, _BOUNDS, strict=True)]
        self._minutes, self._hours, self._days, self._months, weekdays = sets
        self._weekdays = {number % 7 for number in weekdays}

    def matches(self, wall: datetime) -> bool:
        if wall.minute not in self._minutes or wall.hour not in self._hours or wall.month not in self._months:
            return False
        day, weekday = wall.day in self._days, wall.isoweekday() % 7 in self._weekdays
        return day or weekday if self._either_day else day and weekday


def _values(field: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for item in field.split(","):
        body, _, step = item.partition("/")
        start, dash, end = body.partition("-")
        first = low if start == "*" else _number(start)
        last = high if start == "*" or (step and not dash) else _number(end) if dash else first
        found.update(range(first, last + 1, int(step or 1)))
    return found


def _number(text: str) -> int:
    return _NAMES[text] if text in _NAMES else int(text)


def runs(expression: str, zone: str, start: datetime, end: datetime) -> list[Run]:
    """The runs in [start, end]; both UTC and whole minutes. The walk begins 26 hours earlier, to know what is repeated."""
    matcher = Matcher(expression)
    clock = _clock(zone, start - timedelta(hours=26), end + timedelta(hours=26))
    shown = Counter(wall for _, wall in clock)
    found: list[Run] = []
    furthest = clock[0][1]
    for at, wall in clock[1:]:
        passed = [furthest + n * _MINUTE for n in range(1, (wall - furthest) // _MINUTE + 1)]
        furthest = max(furthest, wall)
        candidates = passed if matcher.fixed else [wall]
        hits = [minute for minute in candidates if matcher.matches(minute)]
        if hits and start <= at <= end:
            found.append(Run(at, wall, tuple(hit for hit in hits if hit != wall), shown[wall] > 1))
    return found


@functools.lru_cache(maxsize=128)
def _clock(zone: str, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """(UTC, wall) of every minute."""
    info = ZoneInfo(zone)
    minutes = [start.astimezone(UTC) + n * _MINUTE for n in range((end - start) // _MINUTE + 1)]
    return [(at, at.astimezone(info).replace(tzinfo=None, fold=0)) for at in minutes]
