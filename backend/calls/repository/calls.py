"""SQL of calls: the rows, their claims and deadlines, their events, the trunk's pace."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ScalarSelect, func, or_, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from backend.calls.models import Call, CallEvent, Customer, Policy, Trunk
from backend.calls.states import LIVE_STATUSES, CallStatus
from backend.core.db import Session
from backend.core.paging import Position

_TAKE = """
with filled as (
    select id, least(cast(:burst as float), tokens + extract(epoch from clock_timestamp() - refilled_at) * cast(:rate as float))
               as tokens
    from trunks where name = :name for update
)
update trunks t set tokens = filled.tokens - 1, refilled_at = clock_timestamp()
from filled where filled.id = t.id and filled.tokens >= 1
"""


class CallRepository:
    """Calls and what was reported of them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, call_id: UUID) -> Call | None:
        return await self._session.get(Call, call_id)

    async def find_by_key(self, idempotency_key: str) -> Call | None:
        return (await self._session.exec(select(Call).where(Call.idempotency_key == idempotency_key))).first()

    async def find_live(self, customer_id: UUID) -> Call | None:
        query = select(Call).where(Call.customer_id == customer_id, col(Call.status).in_(LIVE_STATUSES))
        return (await self._session.exec(query)).first()

    async def lock(self, call_id: UUID) -> Call | None:
        return await self._session.get(Call, call_id, with_for_update=True, populate_existing=True)

    async def lock_by_room(self, room: str) -> Call | None:
        query = select(Call).where(Call.room_name == room).with_for_update().execution_options(populate_existing=True)
        return (await self._session.exec(query)).first()

    async def add(self, call: Call) -> None:
        """Insert now, so that a unique key that is taken shows here."""
        self._session.add(call)
        await self._session.flush()

    async def claim_dial(self, call_id: UUID, now: datetime) -> bool:
        """Become the one who dials this call; False when somebody was first or the call has ended."""
        query = (
            update(Call)
            .where(col(Call.id) == call_id, col(Call.dial_claimed_at).is_(None), col(Call.status) == CallStatus.QUEUED)
            .values(dial_claimed_at=now, updated_at=now)
        )
        return await self._changed(query)

    async def begin_dialing(self, call_id: UUID, now: datetime, deadline: datetime) -> bool:
        """Write down that the phone is about to ring; False when the call has ended or was canceled meanwhile."""
        query = (
            update(Call)
            .where(
                col(Call.id) == call_id,
                col(Call.dialing_at).is_(None),
                col(Call.status) == CallStatus.QUEUED,
                col(Call.cancel_requested_at).is_(None),
            )
            .values(dialing_at=now, status=CallStatus.DIALING, deadline_at=deadline, updated_at=now)
        )
        return await self._changed(query)

    async def overdue(self, now: datetime, limit: int) -> list[UUID]:
        """Live calls past their deadline."""
        query = (
            select(Call.id)
            .where(col(Call.status).in_(LIVE_STATUSES), Call.deadline_at < now)
            .order_by(col(Call.deadline_at))
            .limit(limit)
        )
        return list((await self._session.exec(query)).all())

    async def unfinished(self, ended_before: datetime, limit: int) -> list[Call]:
        """Ended calls whose recording or outcome is still awaited."""
        waiting = or_(
            col(Call.recording_state) == "pending",
            (col(Call.recording_state) == "ready") & col(Call.outcome).is_(None),
        )
        query = select(Call).where(waiting, col(Call.ended_at) < ended_before).order_by(col(Call.ended_at)).limit(limit)
        return list((await self._session.exec(query)).all())

    async def count_live(self) -> int:
        query = select(func.count()).select_from(Call).where(col(Call.status).in_(LIVE_STATUSES))
        return (await self._session.exec(query)).one()

    async def take_token(self, trunk: str, per_second: float) -> bool:
        """Take one call out of the trunk's bucket; the row stays locked until the transaction ends."""
        connection = await self._session.connection()
        # Full at first: the first calls need not wait for a bucket that nobody has filled.
        burst = max(1.0, per_second)
        fresh = insert(Trunk).values(name=trunk, id=func.gen_random_uuid(), tokens=burst, refilled_at=func.now())
        await connection.execute(fresh.on_conflict_do_nothing(index_elements=["name"]))
        values = {"name": trunk, "rate": per_second, "burst": burst}
        return (await connection.execute(text(_TAKE), values)).rowcount == 1

    async def add_event(
        self, *, event_id: str, call_id: UUID | ScalarSelect[UUID] | None, source: str, kind: str, body: dict[str, Any]
    ) -> bool:
        """Store a report; False when it has been delivered before."""
        fresh = (
            insert(CallEvent)
            .values(event_id=event_id, call_id=call_id, source=source, type=kind, body=body, received_at=func.now())
            .on_conflict_do_nothing(index_elements=["event_id"])
        )
        return await self._changed(fresh)

    async def events(self, call_id: UUID) -> Sequence[CallEvent]:
        query = select(CallEvent).where(CallEvent.call_id == call_id).order_by(col(CallEvent.id))
        return (await self._session.exec(query)).all()

    async def find_details(self, call_id: UUID) -> tuple[Call, Customer, Policy] | None:
        query = (
            select(Call, Customer, Policy)
            .join(Customer, col(Customer.id) == Call.customer_id)
            .join(Policy, col(Policy.id) == Call.policy_id)
            .where(Call.id == call_id)
        )
        row = (await self._session.exec(query)).first()
        return (row[0], row[1], row[2]) if row else None

    async def list_calls(
        self,
        *,
        status: str | None,
        customer_id: UUID | None,
        since: datetime | None,
        before: Position | None,
        limit: int,
    ) -> list[tuple[Call, str, str]]:
        """Calls with the customer's name and the policy's number, newest first."""
        query = (
            select(Call, Customer.full_name, Policy.policy_number)
            .join(Customer, col(Customer.id) == Call.customer_id)
            .join(Policy, col(Policy.id) == Call.policy_id)
            .order_by(col(Call.created_at).desc(), col(Call.id).desc())
            .limit(limit)
        )
        if status is not None:
            query = query.where(Call.status == status)
        if customer_id is not None:
            query = query.where(Call.customer_id == customer_id)
        if since is not None:
            query = query.where(Call.created_at >= since)
        if before is not None:
            query = query.where(tuple_(col(Call.created_at), col(Call.id)) < before)
        return [(row[0], row[1], row[2]) for row in (await self._session.exec(query)).all()]

    async def counts(self) -> dict[str, int]:
        query = select(Call.status, func.count()).group_by(Call.status)
        return {row[0]: row[1] for row in (await self._session.exec(query)).all()}

    async def _changed(self, query: Any) -> bool:
        connection = await self._session.connection()
        return bool((await connection.execute(query)).rowcount == 1)


def call_in(room: str) -> ScalarSelect[UUID]:
    """The id of a room's call, to be found by the statement that needs it."""
    return select(Call.id).where(Call.room_name == room).scalar_subquery()


def ringing_deadline(now: datetime, ring_seconds: float, grace_seconds: float) -> datetime:
    """When a phone that is ringing must have an end."""
    return now + timedelta(seconds=ring_seconds + grace_seconds)
