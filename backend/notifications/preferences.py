"""Users' own preferences."""

from uuid import UUID

from backend.config import Config
from backend.core.db import Session
from backend.core.errors import Invalid
from backend.core.queue import enqueue
from backend.notifications.models import NotificationPreferences
from backend.notifications.repository.deliveries import DeliveryRepository
from backend.notifications.repository.people import PeopleRepository
from backend.notifications.schemas import Preferences, PreferencesRead
from backend.notifications.signing import key_of, written


async def read_preferences(session: Session, user_id: UUID, config: Config) -> PreferencesRead:
    """A user's own; those of nobody's choice where the user has set none."""
    row = await PeopleRepository(session).preferences(user_id)
    found = (
        Preferences(timezone=config.timezone)
        if row is None
        else Preferences(**row.model_dump(include=set(Preferences.model_fields)))
    )
    return _read(found, user_id, config)


async def set_preferences(session: Session, user_id: UUID, wish: Preferences, config: Config) -> PreferencesRead:
    """Replace them. What waits for a digest or for the end of quiet hours is planned anew. Invalid (422)."""
    refusal = wish.refusal(
        webhooks=bool(config.notify.webhook_secret), allow_private=config.notify.webhook_allow_private
    )
    if refusal is not None:
        raise Invalid(refusal)
    if not wish.timezone:
        wish.timezone = config.timezone
    await PeopleRepository(session).save(NotificationPreferences(user_id=user_id, **wish.model_dump()))
    if await DeliveryRepository(session).let_go(user_id):
        enqueue(session, "deliver_notifications")
    return _read(wish, user_id, config)


def _read(found: Preferences, user_id: UUID, config: Config) -> PreferencesRead:
    secret = config.notify.webhook_secret
    shown = written(key_of(secret, user_id)) if secret else None
    return PreferencesRead(**found.model_dump(), webhook_secret=shown)
