"""Digests: what came together for a user until a certain instant becomes one notification."""

from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from backend.core.clock import utc_now
from backend.core.db import Database, Session
from backend.notifications.hours import moment, next_digest
from backend.notifications.models import Notification, NotificationDelivery, NotificationPreferences
from backend.notifications.rendering import render
from backend.notifications.repository.deliveries import DeliveryRepository
from backend.notifications.repository.notifications import NotificationRepository
from backend.notifications.repository.people import PeopleRepository
from backend.notifications.states import Channel, DeliveryState, Digest, Kind
from backend.notifications.writing import addresses_of, hours_of

_GROUPS = 100
# Of a digest's items, how many are told in full, and how much of each.
_TOLD = 50
_TOLD_CHARACTERS = 500


async def make_digests(db: Database) -> int:
    """Write each digest that is due into the outbox; how many. A user has one per channel and instant, whoever makes it."""
    made = 0
    while True:
        async with db.transaction() as session:
            due = await DeliveryRepository(session).due_digests(_GROUPS)
        for user_id, channel, instant in due:
            async with db.transaction() as session:
                made += await _make(session, user_id, channel, instant)
        if len(due) < _GROUPS:
            return made


async def _make(session: Session, user_id: UUID, channel: Channel, instant: datetime) -> bool:
    items = await DeliveryRepository(session).lock_held(user_id, channel, instant)
    if not items:
        return False
    people = PeopleRepository(session)
    person, preferences = await people.find(user_id), await people.preferences(user_id)
    address = dict(addresses_of(preferences, person.email if person else None)).get(channel)
    if person is None or preferences is None or address is None:
        _end(items, DeliveryState.SKIPPED, error=f"the user has switched {channel} off")
        return False
    notifications = NotificationRepository(session)
    digest = await _written(notifications, user_id, channel, instant, items, preferences)
    if not await notifications.add(digest):
        # This instant's digest has gone out, and these came in while it did.
        _wait_for_next(items, preferences, instant)
        return False
    when = moment(hours_of(preferences), utc_now(), gather=False)
    await notifications.add_deliveries(
        [
            NotificationDelivery(
                notification_id=digest.id, user_id=user_id, channel=channel, address=address, due_at=when.due_at
            )
        ]
    )
    _end(items, DeliveryState.DIGESTED, digest_id=digest.id)
    return True


async def _written(
    notifications: NotificationRepository,
    user_id: UUID,
    channel: Channel,
    instant: datetime,
    items: list[NotificationDelivery],
    preferences: NotificationPreferences,
) -> Notification:
    zone = ZoneInfo(preferences.timezone)
    told = [await notifications.find(item.notification_id) for item in items[:_TOLD]]
    context = {
        "total": len(items),
        "since": f"{items[0].created_at.astimezone(zone):%Y-%m-%d %H:%M}",
        "items": [
            {
                "at": f"{row.created_at.astimezone(zone):%Y-%m-%d %H:%M}",
                "subject": row.subject,
                "text": row.text[:_TOLD_CHARACTERS],
            }
            for row in told
            if row is not None
        ],
    }
    content = render("digest", context)
    return Notification(
        kind=Kind.DIGEST,
        user_id=user_id,
        template="digest",
        subject=content.subject,
        text=content.text,
        html=content.html,
        dedup_key=f"digest:{user_id}:{channel}:{instant.isoformat()}",
    )


def _wait_for_next(items: list[NotificationDelivery], preferences: NotificationPreferences, instant: datetime) -> None:
    hours = hours_of(preferences)
    for item in items:
        if hours is None or hours.digest == Digest.OFF:
            item.state, item.digest_for, item.due_at = DeliveryState.PENDING, None, utc_now()
        else:
            item.digest_for = item.due_at = next_digest(hours, max(instant, utc_now()))


def _end(
    items: list[NotificationDelivery], state: DeliveryState, *, digest_id: UUID | None = None, error: str = ""
) -> None:
    for item in items:
        item.state, item.digest_for, item.digest_id = state, None, digest_id
        item.last_error, item.ended_at = error, utc_now()
