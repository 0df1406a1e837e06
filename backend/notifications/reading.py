"""The inbox, and the outbox for those who run it."""

from uuid import UUID

from backend.core.db import Session
from backend.core.errors import Conflict, NotFound
from backend.core.paging import Page, decode_cursor, encode_cursor
from backend.core.queue import enqueue
from backend.notifications.models import Notification, NotificationDelivery
from backend.notifications.repository.deliveries import DeliveryRepository
from backend.notifications.repository.notifications import NotificationRepository
from backend.notifications.schemas import DeliveryRead, NotificationDetail, NotificationRead, Read
from backend.notifications.states import Channel, DeliveryState, Kind


async def list_inbox(
    session: Session, user_id: UUID, *, unread: bool = False, cursor: str | None = None, limit: int = 50
) -> Page[NotificationRead]:
    """A user's own, newest first."""
    rows = await NotificationRepository(session).inbox(
        user_id, unread=unread, after=decode_cursor(cursor), limit=limit + 1
    )
    more = encode_cursor((rows[limit - 1].created_at, rows[limit - 1].id)) if len(rows) > limit else None
    return Page(items=[NotificationRead.model_validate(row.model_dump()) for row in rows[:limit]], next_cursor=more)


async def mark_read(session: Session, user_id: UUID, notification_id: UUID) -> NotificationRead:
    """Asking again changes nothing. NotFound (404) for what is not the user's."""
    notifications = NotificationRepository(session)
    await notifications.mark_read(user_id, notification_id)
    row = await notifications.find(notification_id)
    if row is None or row.user_id != user_id or row.kind != Kind.MESSAGE:
        raise NotFound(f"no notification {notification_id}")
    return NotificationRead.model_validate(row.model_dump())


async def mark_all_read(session: Session, user_id: UUID) -> Read:
    return Read(read=await NotificationRepository(session).mark_read(user_id))


async def list_deliveries(
    session: Session,
    *,
    state: DeliveryState | None = None,
    channel: Channel | None = None,
    notification_id: UUID | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[DeliveryRead]:
    """The outbox, newest first."""
    rows = await DeliveryRepository(session).page(
        state=state, channel=channel, notification_id=notification_id, after=decode_cursor(cursor), limit=limit + 1
    )
    more = encode_cursor((rows[limit - 1].created_at, rows[limit - 1].id)) if len(rows) > limit else None
    return Page(items=[_delivery(row) for row in rows[:limit]], next_cursor=more)


async def read_notification(session: Session, notification_id: UUID) -> NotificationDetail:
    """NotFound (404)."""
    row = await NotificationRepository(session).find(notification_id)
    if row is None:
        raise NotFound(f"no notification {notification_id}")
    return _detail(row, await DeliveryRepository(session).of(notification_id))


async def retry(session: Session, delivery_id: UUID) -> DeliveryRead:
    """Begin anew with a delivery that is dead or was skipped. NotFound (404); Conflict (409, `not_ended`) for any other."""
    deliveries = DeliveryRepository(session)
    revived = await deliveries.revive(delivery_id)
    row = await deliveries.find(delivery_id)
    if row is None:
        raise NotFound(f"no delivery {delivery_id}")
    if not revived:
        raise Conflict(
            f"delivery {delivery_id} is {row.state}; what is dead or was skipped is tried again", code="not_ended"
        )
    if row.bulk:
        enqueue(session, "send_bulk_email", bulk_id=str(row.notification_id))
    else:
        enqueue(session, "deliver_notification", notification_id=str(row.notification_id))
    return _delivery(row)


def _delivery(row: NotificationDelivery) -> DeliveryRead:
    return DeliveryRead.model_validate(row.model_dump())


def _detail(row: Notification, deliveries: list[NotificationDelivery]) -> NotificationDetail:
    return NotificationDetail(
        **row.model_dump(include=set(NotificationDetail.model_fields)),
        deliveries=[_delivery(one) for one in deliveries],
    )
