"""Calls for tests, as they are once they are over."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlmodel import select

from backend.calls.models import Call, CallEvent, Policy, ScheduledCall
from backend.core.clock import utc_now
from backend.core.db import Database
from tests.factories.people import add_customer


async def add_call(
    db: Database, age: timedelta = timedelta(), *, expires_in_days: int = 7, events: int = 0, **fields: Any
) -> UUID:
    """A call that ended `age` ago, with its customer, policy, plan and so many events; `fields` are columns of the call."""
    customer = await add_customer(db, expires_in_days=expires_in_days)
    at = utc_now() - age
    async with db.transaction() as session:
        policy = (await session.exec(select(Policy.id).where(Policy.customer_id == customer))).one()
        plan = ScheduledCall(
            policy_id=policy,
            customer_id=customer,
            cycle_key="old",
            status="completed",
            attempt_no=1,
            created_at=at,
        )
        session.add(plan)
        await session.flush()
        given: dict[str, Any] = {
            "to_e164": "+919800000200",
            "status": "completed",
            "deadline_at": at,
            "created_at": at,
            "ended_at": at,
        }
        call = Call(
            scheduled_call_id=plan.id,
            customer_id=customer,
            policy_id=policy,
            attempt_no=1,
            idempotency_key=str(uuid4()),
            request_hash="",
            room_name=str(uuid4()),
            **(given | fields),
        )
        session.add(call)
        await session.flush()
        for number in range(events):
            event = CallEvent(event_id=f"{call.id}-{number}", call_id=call.id, source="s", type="t", received_at=at)
            session.add(event)
        return call.id
