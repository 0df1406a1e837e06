"""Saying something and sending it at once, for tasks whose result somebody waits for."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from backend.core.db import Database
from backend.notifications.channels.base import Channels
from backend.notifications.delivering import deliver
from backend.notifications.repository.deliveries import DeliveryRepository
from backend.notifications.states import DeliveryState

_WAITS = {DeliveryState.PENDING, DeliveryState.HELD}
_REACHED = {DeliveryState.SENT, DeliveryState.DIGESTED}


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a notification so far. `queued`: something of it waits; `failed`: nothing of it was sent, nor will be."""

    status: Literal["sent", "queued", "failed"]
    error: str | None


async def tell(
    db: Database, channels: Channels, notification_id: UUID, *, max_tries: int, has_inbox: bool, seconds: float = 30.0
) -> Told:
    """Send what is due of a notification. With an inbox it has arrived, whatever the channels that are switched off."""
    await deliver(db, channels, notification_id=notification_id, max_tries=max_tries, seconds=seconds)
    async with db.transaction() as session:
        rows = await DeliveryRepository(session).of(notification_id)
    if any(row.state in _WAITS for row in rows):
        return Told("queued", next((row.last_error for row in rows if row.last_error), None))
    reached = any(row.state in _REACHED for row in rows)
    failed = [
        row for row in rows if row.state == DeliveryState.DEAD or (not has_inbox and row.state == DeliveryState.SKIPPED)
    ]
    if failed and not reached:
        return Told("failed", failed[0].last_error)
    return Told("sent", None)
