"""When a user may be told: quiet hours and the instants of digests, by the user's own clock. Instants are UTC."""

from dataclasses import dataclass
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

from backend.notifications.states import Digest
from backend.scheduling.recurrence import Cron, next_after


@dataclass(frozen=True, slots=True)
class Hours:
    """What a user wants. Times are whole minutes of the wall clock in `zone`; quiet hours may span midnight, their end excluded."""

    zone: str
    quiet: tuple[time, time] | None = None
    digest: Digest = Digest.OFF
    digest_at: time = time(9)


@dataclass(frozen=True, slots=True)
class Moment:
    """When to tell: not before `due_at`, or, where `digest_for` stands, in the digest of that instant."""

    due_at: datetime
    digest_for: datetime | None = None


def moment(hours: Hours | None, now: datetime, *, urgent: bool = False, gather: bool = True) -> Moment:
    """Nothing delays what is urgent; `gather` off is for digests themselves, which quiet hours delay alone."""
    if hours is None or urgent:
        return Moment(now)
    if gather and hours.digest != Digest.OFF:
        window = next_digest(hours, now)
        return Moment(window, digest_for=window)
    return Moment(quiet_until(hours, now) or now)


def next_digest(hours: Hours, after: datetime) -> datetime:
    """The first digest strictly after: each full hour, or each day at `digest_at`. A day whose clock skips that time has its digest
    when the clock has changed, a day that has it twice at the first."""
    at = hours.digest_at
    expression = "0 * * * *" if hours.digest == Digest.HOURLY else f"{at.minute} {at.hour} * * *"
    return _next(expression, hours.zone, after)


def quiet_until(hours: Hours, now: datetime) -> datetime | None:
    """The end of the quiet hours that `now` lies in; None when it lies in none.

    It is quiet whenever the clock shows a quiet time: an end that the clock skips is where it jumps to, and a clock set back into
    the quiet hours makes it quiet again.
    """
    if hours.quiet is None or not _is_quiet(hours, now):
        return None
    zone, end = ZoneInfo(hours.zone), hours.quiet[1]
    again = datetime.combine(now.astimezone(zone).date(), end, zone).replace(fold=1).astimezone(UTC)
    usual = _next(f"{end.minute} {end.hour} * * *", hours.zone, now)
    return min(at for at in (usual, again) if at > now and not _is_quiet(hours, at))


def _is_quiet(hours: Hours, at: datetime) -> bool:
    if hours.quiet is None:
        return False
    start, end = hours.quiet
    wall = at.astimezone(ZoneInfo(hours.zone)).time()
    return start <= wall < end if start < end else wall >= start or wall < end


def _next(expression: str, zone: str, after: datetime) -> datetime:
    found = next_after(Cron(expression, zone), after)
    if found is None:
        raise RuntimeError(f"the clock of {zone} never shows {expression}")
    return found
