"""SQL of the plan: which policies ask for a call, which calls are due now, who has claimed them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlmodel import col, select

from backend.calls.models import Call, Customer, Policy, ScheduledCall
from backend.core.db import Session
from backend.core.paging import Position
from backend.environment import Window

_PLAN = """
with zone(name, today) as (select * from unnest(cast(:zones as text[]), cast(:days as date[]))),
planned as (
    insert into scheduled_calls (id, policy_id, customer_id, cycle_key, status, reason, attempt_no, counted_attempts,
                                 next_attempt_at, created_at, updated_at)
    select gen_random_uuid(), p.id, c.id, p.expiry_date::text,
           case when d.id is not null or c.phone_status <> 'ok' then 'skipped' else 'pending' end,
           case when d.id is not null then 'do_not_call' when c.phone_status <> 'ok' then 'invalid_phone' end,
           0, 0, now(), now(), now()
    from policies p
    join customers c on c.id = p.customer_id
    join zone z on z.name = c.timezone
    left join do_not_call d on d.phone_e164 = c.phone_e164 and d.revoked_at is null
    where p.status = 'active' and p.expiry_date between z.today and z.today + cast(:horizon as int)
    on conflict (policy_id, cycle_key) do nothing
    returning status, reason
)
select status, reason, count(*) as calls from planned group by status, reason
"""

# The gates that close for good while a row waits: they are looked at before every claim.
_CLOSE = """
with closing as (
    select s.id,
           case when exists (select 1 from do_not_call d where d.phone_e164 = c.phone_e164 and d.revoked_at is null)
                     then 'do_not_call'
                when c.phone_status <> 'ok' then 'invalid_phone'
                when p.status <> 'active' or p.expiry_date::text <> s.cycle_key or p.customer_id <> s.customer_id
                     then 'policy_not_active'
                when p.expiry_date < :yesterday then 'policy_expired' end as reason
    from scheduled_calls s join customers c on c.id = s.customer_id join policies p on p.id = s.policy_id
    where s.status = 'pending'
)
update scheduled_calls s set status = 'skipped', reason = closing.reason, updated_at = now()
from closing where closing.id = s.id and closing.reason is not null and s.status = 'pending'
"""

_DUE = """
from scheduled_calls s
join customers c on c.id = s.customer_id
join policies p on p.id = s.policy_id
join zone z on z.name = c.timezone
where s.status = 'pending' and s.next_attempt_at <= now()
  and p.status = 'active' and c.phone_status = 'ok'
  and z.local_time >= greatest(coalesce(c.window_start, cast(:opens as time)), cast(:earliest as time))
  and z.local_time < least(coalesce(c.window_end, cast(:closes as time)), cast(:latest as time))
  and not exists (select 1 from do_not_call d where d.phone_e164 = c.phone_e164 and d.revoked_at is null)
  and not exists (select 1 from calls k where k.customer_id = c.id and k.status in ('queued','dialing','ringing','answered'))
order by s.next_attempt_at, s.id
limit :limit
"""
_ZONES = "with zone(name, local_time) as (select * from unnest(cast(:zones as text[]), cast(:times as time[])))"
_FIELDS = "s.id as scheduled_call_id, s.customer_id, s.attempt_no + 1 as attempt_no, s.next_attempt_at as due_at"

# ruff: noqa: S608 - put together from the constants above, never from values
_PENDING = f"{_ZONES} select {_FIELDS} {_DUE}"
_CLAIM = f"""
{_ZONES}, due as (select s.id {_DUE} for update of s skip locked)
update scheduled_calls s set status = 'claimed', claimed_until = now() + :lease, updated_at = now()
from due where s.id = due.id
returning {_FIELDS}
"""

_TAKEN = """
select (select count(*) from scheduled_calls where status = 'claimed' and claimed_until >= now())
     + (select count(*) from calls where status in ('queued','dialing','ringing','answered'))
"""

_RELEASE = """
update scheduled_calls set status = 'pending', claimed_until = null, updated_at = now()
where status = 'claimed' and claimed_until < now()
"""

_ROWS = """
select s.id, s.status, s.reason, s.attempt_no as attempts, s.next_attempt_at, s.outcome, s.created_at,
       c.full_name as customer_name, c.timezone, p.policy_number, p.expiry_date,
       k.id as call_id, k.status as call_status, k.end_reason, k.recording_state, k.answered_at,
       extract(epoch from k.left_at - k.answered_at) as talk_seconds, k.outcome as call_outcome
from scheduled_calls s
join customers c on c.id = s.customer_id
join policies p on p.id = s.policy_id
left join calls k on k.scheduled_call_id = s.id and k.attempt_no = s.attempt_no
where (cast(:status as text) is null or s.status = :status)
  and (cast(:before_at as timestamptz) is null or (s.created_at, s.id) < (:before_at, cast(:before_id as uuid)))
order by s.created_at desc, s.id desc
limit :limit
"""


@dataclass(frozen=True, slots=True)
class Hours:
    """The agency's window and the hard limit around every customer's own."""

    window: Window
    limit: Window


class PlanRepository:
    """Scheduled calls."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def zones(self) -> list[str]:
        return list((await self._session.exec(select(Customer.timezone).distinct())).all())

    async def plan(self, today: Mapping[str, date], horizon_days: int) -> list[RowMapping]:
        """Insert what is missing for policies that expire within the horizon; counts by status and reason."""
        values = {"zones": list(today), "days": list(today.values()), "horizon": horizon_days}
        return list((await self._execute(_PLAN, values)).mappings())

    async def close_gates(self, yesterday: date) -> int:
        """Skip waiting rows that no attempt may ever follow; how many."""
        return _count(await self._execute(_CLOSE, {"yesterday": yesterday}))

    async def due(
        self, clocks: Mapping[str, time], hours: Hours, limit: int, lease: timedelta | None
    ) -> Sequence[RowMapping]:
        """Rows that pass every gate now; with a lease they are claimed for that long."""
        values: dict[str, Any] = {
            "zones": list(clocks),
            "times": list(clocks.values()),
            "opens": hours.window.start,
            "closes": hours.window.end,
            "earliest": hours.limit.start,
            "latest": hours.limit.end,
            "limit": limit,
        }
        if lease is not None:
            values["lease"] = lease
        return list((await self._execute(_PENDING if lease is None else _CLAIM, values)).mappings())

    async def count_taken(self) -> int:
        """How many lines are in use or promised: live calls and claims."""
        return int((await self._execute(_TAKEN, {})).scalar_one())

    async def release_expired(self) -> int:
        """Give rows whose claimant has gone back to the queue; how many."""
        return _count(await self._execute(_RELEASE, {}))

    async def lock(self, scheduled_call_id: UUID) -> ScheduledCall | None:
        return await self._session.get(ScheduledCall, scheduled_call_id, with_for_update=True, populate_existing=True)

    async def earlier_kinds(self, scheduled_call_id: UUID) -> list[Call]:
        """The ended calls of a scheduled call, oldest first."""
        query = (
            select(Call)
            .where(Call.scheduled_call_id == scheduled_call_id, col(Call.ended_at).is_not(None))
            .order_by(col(Call.attempt_no))
        )
        return list((await self._session.exec(query)).all())

    async def policy(self, policy_id: UUID) -> Policy:
        return (await self._session.exec(select(Policy).where(Policy.id == policy_id))).one()

    async def rows(self, status: str | None, before: Position | None, limit: int) -> Sequence[RowMapping]:
        """Scheduled calls with customer, policy and latest call, newest first."""
        at, key = before or (None, None)
        values = {"status": status, "before_at": at, "before_id": key, "limit": limit}
        return list((await self._execute(_ROWS, values)).mappings())

    async def counts(self) -> dict[str, int]:
        result = await self._execute("select status, count(*) as calls from scheduled_calls group by status", {})
        return {row.status: row.calls for row in result}

    async def _execute(self, statement: str, values: dict[str, Any]) -> Any:
        connection = await self._session.connection()
        return await connection.execute(text(statement), values)


def _count(result: Any) -> int:
    return int(result.rowcount)


def next_pending(row: ScheduledCall, at: datetime, now: datetime) -> None:
    """Put a locked row back into the queue for `at`."""
    row.status, row.next_attempt_at, row.claimed_until, row.updated_at = "pending", at, None, now
