"""The calling window: when a customer may be called, by the customer's own clock."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from backend.environment import Window


def effective(agency: Window, limit: Window, customer: Window | None) -> Window | None:
    """The hours that the agency's window (or the customer's own, where set) and the hard limit share; None if none are."""
    wish = customer or agency
    start, end = max(wish.start, limit.start), min(wish.end, limit.end)
    return Window(start, end) if start < end else None


def next_open(at: datetime, zone: str, window: Window) -> datetime:
    """The first instant not before `at` at which `window` is open in `zone`; `at` itself when it is open now. UTC in, UTC out.

    A start inside a gap of the clock opens that much later by the new clock: 02:30 in a gap from 02:00 to 03:00 is 03:30.
    """
    local = at.astimezone(ZoneInfo(zone))
    if window.start <= local.time() < window.end:
        return at
    day = local.date() if local.time() < window.start else local.date() + timedelta(days=1)
    # A wall time inside a gap has fold 0: Python reads it with the offset before the gap, which lands just after it.
    return datetime.combine(day, window.start, ZoneInfo(zone)).astimezone(UTC)
