"""SQL of the outbox: claiming, recording, looking."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, func, text
from sqlmodel import col, select

from backend.core.db import Session
from backend.core.paging import Position, newest_first
from backend.notifications.models import NotificationDelivery
from backend.notifications.states import Channel, DeliveryState

# Materialized: as a plain subquery the planner may run it again for each row, and claim more than the limit.
_CLAIM = """
with due as materialized (
    select id from notification_deliveries
    where state = 'pending' and {which} and due_at <= now() and (lease_until is null or lease_until < now())
    order by due_at, id limit :limit for update skip locked)
update notification_deliveries d
set attempts = d.attempts + 1, epoch = d.epoch + 1, lease_until = now() + cast(:lease as interval)
from due where d.id = due.id
returning d.id, d.notification_id, d.user_id, d.channel, d.address, d.attempts, d.epoch
"""
_CLAIM_ANY = _CLAIM.format(which="not bulk")
_CLAIM_OF = _CLAIM.format(which="not bulk and notification_id = :notification_id")
_CLAIM_BULK = _CLAIM.format(which="bulk and notification_id = :notification_id")

_END = """
update notification_deliveries set state = :state, receipt = :receipt, last_error = :error, ended_at = now(), lease_until = null
where id = :id and epoch = :epoch and state = 'pending'
"""

_RETRY = """
update notification_deliveries set due_at = now() + cast(:wait as interval), last_error = :error, lease_until = null
where id = :id and epoch = :epoch and state = 'pending'
"""

# Put off before anything was tried.
_PUT_OFF = """
update notification_deliveries set state = cast(:state as text), due_at = :due_at, digest_for = :digest_for, lease_until = null,
    attempts = attempts - 1
where id = :id and epoch = :epoch and state = 'pending'
"""

_REVIVE = """
update notification_deliveries set state = 'pending', attempts = 0, epoch = epoch + 1, due_at = now(), ended_at = null,
    lease_until = null
where id = :id and state in ('dead', 'skipped')
"""

_PROGRESS = """
select count(*) filter (where state = 'sent') as sent, count(*) filter (where state in ('dead', 'skipped')) as failed,
    count(*) as total, extract(epoch from
        min(greatest(due_at, coalesce(lease_until, due_at))) filter (where state = 'pending') - now())::float8 as next_in
from notification_deliveries where notification_id = :notification_id
"""

# Accepted, something of it due, and nobody at work on it for that long.
_TAKE_STRANDED = """
with halted as materialized (
    select n.id from notifications n
    where n.kind = 'bulk' and n.accepted_at < now() - cast(:age as interval) and exists (
        select from notification_deliveries d
        where d.notification_id = n.id and d.state = 'pending' and d.bulk
            and greatest(d.due_at, coalesce(d.lease_until, d.due_at)) < now() - cast(:age as interval))
    order by n.created_at limit :limit for update skip locked)
update notifications set accepted_at = now() from halted where notifications.id = halted.id returning notifications.id
"""

_DUE_DIGESTS = """
select distinct user_id, channel, digest_for from notification_deliveries
where state = 'held' and digest_for <= now() order by digest_for limit :limit
"""

_LET_GO = """
update notification_deliveries set state = 'pending', digest_for = null, due_at = now()
where user_id = :user_id and (state = 'held' or (state = 'pending' and attempts = 0 and lease_until is null))
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery in hand. `attempts` counts this one."""

    id: UUID
    notification_id: UUID
    user_id: UUID | None
    channel: Channel
    address: str
    attempts: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a notification's deliveries. `next_in`: seconds until the next may be tried, None when all have ended."""

    sent: int
    failed: int
    total: int
    next_in: float | None


class DeliveryRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def _rows(self, statement: str, **values: Any) -> Sequence[RowMapping]:
        connection = await self._session.connection()
        return (await connection.execute(text(statement), values)).mappings().all()

    async def _changed(self, statement: str, **values: Any) -> int:
        connection = await self._session.connection()
        return (await connection.execute(text(statement), values)).rowcount

    async def now(self) -> datetime:
        """By the clock that says what is due."""
        return (await self._session.exec(select(func.now()))).one()

    async def claim(
        self, lease: timedelta, *, notification_id: UUID | None = None, bulk: bool = False, limit: int = 1
    ) -> list[Claim]:
        """What is due, and held by nobody; now it is held by the caller for `lease`."""
        statement = _CLAIM_BULK if bulk else _CLAIM_ANY if notification_id is None else _CLAIM_OF
        which = {} if notification_id is None else {"notification_id": notification_id}
        rows = await self._rows(statement, lease=lease, limit=limit, **which)
        return [Claim(**{**row, "channel": Channel(row["channel"])}) for row in rows]

    async def end(self, claim: Claim, state: DeliveryState, *, receipt: str = "", error: str = "") -> bool:
        """Whether it was still the caller's to end."""
        return await self._changed(_END, id=claim.id, epoch=claim.epoch, state=state, receipt=receipt, error=error) > 0

    async def retry(self, claim: Claim, wait: float, error: str) -> bool:
        wait_for = timedelta(seconds=wait)
        return await self._changed(_RETRY, id=claim.id, epoch=claim.epoch, wait=wait_for, error=error) > 0

    async def put_off(self, claim: Claim, due_at: datetime, digest_for: datetime | None) -> None:
        state = DeliveryState.PENDING if digest_for is None else DeliveryState.HELD
        await self._changed(_PUT_OFF, id=claim.id, epoch=claim.epoch, state=state, due_at=due_at, digest_for=digest_for)

    async def revive(self, delivery_id: UUID) -> bool:
        """Begin anew with one that is dead or was skipped."""
        return await self._changed(_REVIVE, id=delivery_id) > 0

    async def let_go(self, user_id: UUID) -> int:
        """What of a user's waits is due now, so that whoever takes it plans it anew; how many."""
        return await self._changed(_LET_GO, user_id=user_id)

    async def progress(self, notification_id: UUID) -> Progress:
        (row,) = await self._rows(_PROGRESS, notification_id=notification_id)
        return Progress(**row)

    async def take_stranded_bulks(self, age: timedelta, limit: int) -> list[UUID]:
        """Bulks that have come to a halt; each is given to one caller in `age`."""
        return [row["id"] for row in await self._rows(_TAKE_STRANDED, age=age, limit=limit)]

    async def due_digests(self, limit: int) -> list[tuple[UUID, Channel, datetime]]:
        rows = await self._rows(_DUE_DIGESTS, limit=limit)
        return [(row["user_id"], Channel(row["channel"]), row["digest_for"]) for row in rows]

    async def lock_held(self, user_id: UUID, channel: Channel, digest_for: datetime) -> list[NotificationDelivery]:
        """What waits for a digest, oldest first; waits for whoever is making it at this moment."""
        query = select(NotificationDelivery).where(
            NotificationDelivery.user_id == user_id,
            NotificationDelivery.channel == channel,
            NotificationDelivery.digest_for == digest_for,
            NotificationDelivery.state == DeliveryState.HELD,
        )
        query = query.order_by(col(NotificationDelivery.created_at), col(NotificationDelivery.id)).with_for_update()
        return list((await self._session.exec(query)).all())

    async def find(self, delivery_id: UUID) -> NotificationDelivery | None:
        return await self._session.get(NotificationDelivery, delivery_id, populate_existing=True)

    async def of(self, notification_id: UUID) -> list[NotificationDelivery]:
        """A notification's first hundred, those without a mass of addresses in full."""
        query = select(NotificationDelivery).where(NotificationDelivery.notification_id == notification_id)
        query = query.order_by(col(NotificationDelivery.channel), col(NotificationDelivery.address)).limit(100)
        return list((await self._session.exec(query.execution_options(populate_existing=True))).all())

    async def page(
        self,
        *,
        state: DeliveryState | None,
        channel: Channel | None,
        notification_id: UUID | None,
        after: Position | None,
        limit: int,
    ) -> list[NotificationDelivery]:
        """Newest first."""
        at, key = col(NotificationDelivery.created_at), col(NotificationDelivery.id)
        query = newest_first(select(NotificationDelivery).limit(limit), at, key, after)
        if state is not None:
            query = query.where(NotificationDelivery.state == state)
        if channel is not None:
            query = query.where(NotificationDelivery.channel == channel)
        if notification_id is not None:
            query = query.where(NotificationDelivery.notification_id == notification_id)
        return list((await self._session.exec(query)).all())
