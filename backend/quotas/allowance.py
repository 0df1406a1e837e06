"""What somebody may use today, what is left of it, and the refusal where that is too little. A day is a UTC day."""

import math
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, ClassVar
from uuid import UUID

from backend.core.errors import TooMany

# The plan of whoever has no other, and its limits until an admin sets some.
STANDARD = "standard"
STANDARD_MINUTES, STANDARD_FILES = 600, 100

# No recording is longer than a year; a header may say anything.
_LONGEST_SECONDS = 366 * 86_400.0
# Of a minute, in milliseconds.
_TENTH = 6_000


@dataclass(frozen=True, slots=True)
class Standing:
    """How somebody stands on `day`. A limit of None is none, and so is what is left of it.

    Limits count what was given for that day alone; `reset_in` is seconds from the database's now to `reset_at`, the next midnight.
    """

    user_id: UUID
    username: str
    plan: str
    day: date
    reset_at: datetime
    reset_in: float
    limit_ms: int | None
    limit_files: int | None
    used_ms: int
    used_files: int
    reserved_ms: int
    reserved_files: int
    extra_minutes: int
    extra_files: int

    @property
    def left_ms(self) -> int | None:
        """Below nothing where a limit was lowered since."""
        return None if self.limit_ms is None else self.limit_ms - self.used_ms - self.reserved_ms

    @property
    def limit_seconds(self) -> float | None:
        return None if self.limit_ms is None else self.limit_ms / 1000

    @property
    def used_seconds(self) -> float:
        return self.used_ms / 1000

    @property
    def reserved_seconds(self) -> float:
        return self.reserved_ms / 1000

    @property
    def left_seconds(self) -> float | None:
        return None if self.left_ms is None else max(0, self.left_ms) / 1000

    @property
    def left_files(self) -> int | None:
        return None if self.limit_files is None else max(0, self.limit_files - self.used_files - self.reserved_files)


class QuotaExceeded(TooMany):
    """429 with when the next day begins, what is left of this one and the limits. `why` is the reason alone.

    `in_vain`: the next day changes nothing, another limit does.
    """

    code: ClassVar[str] = "quota_exceeded"

    def __init__(self, why: str, standing: Standing, *, in_vain: bool = False) -> None:
        then = "an administrator may raise it" if in_vain else f"the next day begins at {_instant(standing.reset_at)}"
        super().__init__(f"{why}; {then}", **_members(standing))
        self.why, self.in_vain = why, in_vain


def _instant(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _members(standing: Standing) -> dict[str, Any]:
    return {
        "retry_after": standing.reset_in,
        "reset_at": _instant(standing.reset_at),
        "left_seconds": standing.left_seconds,
        "left_files": standing.left_files,
        "limit_seconds": standing.limit_seconds,
        "limit_files": standing.limit_files,
        "plan": standing.plan,
    }


def milliseconds(seconds: float) -> int:
    """ValueError for what is no length; more than a year counts as a year."""
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"{seconds} is no length in seconds")
    return round(min(seconds, _LONGEST_SECONDS) * 1000)


def check(standing: Standing, ms: int, files: int) -> None:
    """QuotaExceeded unless this much is left. An unknown length, 0, needs something to be left."""
    if standing.left_files is not None and files > standing.left_files:
        raise _reached("file", standing.limit_files or 0, standing)
    if standing.limit_ms is None or standing.left_ms is None or max(ms, min(files, 1)) <= standing.left_ms:
        return
    minutes, left = standing.limit_ms // 60_000, max(0, standing.left_ms) // _TENTH / 10
    # What it takes is rounded up and what is left down: so the one is never told to be as much as the other.
    takes, day = f"this recording takes {_counted(math.ceil(ms / _TENTH) / 10, 'minute')}", _counted(minutes, "minute")
    if ms > standing.limit_ms > 0:
        raise QuotaExceeded(f"{takes}, longer than a whole day's limit of {day}", standing, in_vain=True)
    if not left:
        raise _reached("minute", minutes, standing)
    raise QuotaExceeded(f"{takes}; left of today's {day}: {_plain(left)}", standing)


def _reached(name: str, limit: int, standing: Standing) -> QuotaExceeded:
    if not limit:
        return QuotaExceeded(f"the limit of {name}s a day is 0", standing, in_vain=True)
    return QuotaExceeded(f"today's limit of {name}s is reached: {_counted(limit, name)}", standing)


def refusal(standing: Standing) -> QuotaExceeded | None:
    """What an upload would be told that is neither known by its content nor by its length."""
    try:
        check(standing, 0, 1)
    except QuotaExceeded as fault:
        return fault
    return None


def _counted(number: float, name: str) -> str:
    return f"{_plain(number)} {name}{'' if number == 1 else 's'}"


def _plain(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
