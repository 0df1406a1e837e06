"""Looking into the outbox, and setting its clock forward."""

from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select

from backend.core.db import Database
from backend.notifications.models import Notification, NotificationDelivery


async def deliveries(db: Database, notification_id: UUID | None = None) -> list[NotificationDelivery]:
    """By channel and address."""
    query = select(NotificationDelivery).order_by(col(NotificationDelivery.channel), col(NotificationDelivery.address))
    if notification_id is not None:
        query = query.where(NotificationDelivery.notification_id == notification_id)
    async with db.transaction() as session:
        return list((await session.exec(query)).all())


async def states(db: Database) -> list[str]:
    return sorted(row.state for row in await deliveries(db))


async def notifications(db: Database) -> list[Notification]:
    """Oldest first."""
    async with db.transaction() as session:
        query = select(Notification).order_by(col(Notification.created_at), col(Notification.id))
        return list((await session.exec(query)).all())


async def forward(db: Database, seconds: float) -> None:
    """As if that much time had passed for everything that waits."""
    async with db.transaction() as session:
        await (await session.connection()).execute(
            text(
                "update notification_deliveries set due_at = due_at - cast(:by as float8) * interval '1 s',"
                " lease_until = lease_until - cast(:by as float8) * interval '1 s',"
                " digest_for = digest_for - cast(:by as float8) * interval '1 s'"
            ),
            {"by": seconds},
        )
