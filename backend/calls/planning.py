"""Planning: which policies ask for a call, and which calls are due now."""

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from backend.calls.repository.plan import Hours, PlanRepository
from backend.calls.schemas import PendingCustomer, PlanRead
from backend.config import Config
from backend.core.clock import utc_now
from backend.core.db import Session


async def plan(
    session: Session, *, config: Config, day: date | None = None, horizon_days: int | None = None
) -> PlanRead:
    """Schedule a call for each policy that expires from `day` (default: today in the customer's zone) within the horizon.

    Planning twice inserts nothing: a policy has one scheduled call per expiry date. Numbers on the do-not-call list get a
    row too, skipped with its reason, so that people see why nobody was called.
    """
    rows = PlanRepository(session)
    now = utc_now()
    await close_gates(session)
    today = {zone: day or _local(now, zone).date() for zone in await rows.zones()}
    added = await rows.plan(today, config.calls_horizon_days if horizon_days is None else horizon_days)
    planned = sum(row["calls"] for row in added if row["status"] == "pending")
    return PlanRead(
        planned=planned, skipped={row["reason"]: row["calls"] for row in added if row["status"] == "skipped"}
    )


async def pending(session: Session, *, config: Config, limit: int, claim: bool) -> list[PendingCustomer]:
    """The calls that pass every gate now, longest due first.

    With `claim` nobody else gets them for CALLS_CLAIM_SECONDS, and no more are given than the trunk has free lines: what
    cannot be dialed soon waits here, where it is seen, and not in a queue.
    """
    rows = PlanRepository(session)
    if claim:
        limit = min(limit, config.calls_max_concurrent - await rows.count_taken())
        if limit <= 0:
            return []
    now = utc_now()
    clocks: dict[str, time] = {zone: _local(now, zone).time() for zone in await rows.zones()}
    hours = Hours(config.calls_window, config.calls_window_limit)
    lease = timedelta(seconds=config.calls_claim_seconds) if claim else None
    due = await rows.due(clocks, hours, limit, lease)
    return [PendingCustomer.model_validate(dict(row)) for row in due]


async def close_gates(session: Session) -> int:
    """Skip waiting calls that no attempt may follow: do-not-call, invalid number, policy renewed or long expired."""
    # Two days, so that it is over in every zone.
    return await PlanRepository(session).close_gates((utc_now() - timedelta(days=2)).date())


async def release_expired(session: Session) -> int:
    """Take back claims whose holder did not come back."""
    return await PlanRepository(session).release_expired()


def _local(now: datetime, zone: str) -> datetime:
    return now.astimezone(ZoneInfo(zone))
