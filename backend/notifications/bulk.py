"""One e-mail to many addresses: its recipients are rows, its task carries an id."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from backend.core.db import Database, Session
from backend.core.delivery import Postponed
from backend.core.errors import Invalid, NotFound, PermanentError
from backend.core.queue import enqueue
from backend.notifications.channels.base import Channels, Line
from backend.notifications.delivering import LEASE, attempt, message_of
from backend.notifications.models import Notification, NotificationDelivery
from backend.notifications.rendering import Content
from backend.notifications.repository.deliveries import Claim, DeliveryRepository, Progress
from backend.notifications.repository.notifications import NotificationRepository
from backend.notifications.repository.people import PeopleRepository
from backend.notifications.schemas import BulkRead
from backend.notifications.states import Channel, Kind

log = logging.getLogger(__name__)

_ROWS = 1_000
# How soon a bulk whose message was lost is sent again: later than one that waits comes by itself.
_STRANDED = timedelta(minutes=15)
# How long one task goes on before it comes again by itself: it must end within its time limit.
_WORK_SECONDS = 3_000.0
_LONGEST_PAUSE = 600.0

Report = Callable[[int, int], Awaitable[None]]


async def write_bulk(
    session: Session,
    bulk_id: UUID,
    content: Content,
    *,
    template: str,
    addresses: Sequence[str],
    roles: Sequence[str],
    actor: str,
) -> int:
    """Note a bulk e-mail and its recipients: these addresses, and the active users of these roles who want e-mail.

    How many there are; an address counts once, whatever its capitals. Writing the same id again changes nothing. Invalid (422,
    `no_recipients`) where there are none.
    """
    people = PeopleRepository(session)
    found: dict[str, tuple[UUID | None, str]] = {address.lower(): (None, address) for address in addresses}
    for user_id, address in await people.with_email(roles) if roles else []:
        found.setdefault(address.lower(), (user_id, address))
    if not found:
        raise Invalid("nobody fits: there are no recipients", code="no_recipients")
    notifications = NotificationRepository(session)
    row = Notification(
        id=bulk_id,
        kind=Kind.BULK,
        template=template,
        subject=content.subject,
        text=content.text,
        html=content.html,
        created_by=actor,
    )
    if not await notifications.add(row):
        return (await DeliveryRepository(session).progress(bulk_id)).total
    rows = [
        NotificationDelivery(
            notification_id=bulk_id, user_id=user_id, channel=Channel.EMAIL, address=address, bulk=True
        )
        for user_id, address in found.values()
    ]
    for start in range(0, len(rows), _ROWS):
        await notifications.add_deliveries(rows[start : start + _ROWS])
    return len(rows)


async def accept(session: Session, bulk_id: UUID) -> None:
    """Its task was sent: from now on the sweep sees to it."""
    await NotificationRepository(session).accept(bulk_id)


async def send_bulk(
    db: Database, channels: Channels, bulk_id: UUID, *, max_tries: int, per_second: float, report: Report
) -> dict[str, Any]:
    """Send to every recipient that is due, over one connection; {bulk_id, sent, failed} when all have ended.

    A second delivery goes on with what is left. Postponed while some wait for their next try, or are held by a worker that may be
    dead. PermanentError where there is no such bulk or no mail server.
    """
    async with db.transaction() as session:
        row = await NotificationRepository(session).find(bulk_id)
        await accept(session, bulk_id)
    if row is None or row.kind != Kind.BULK:
        raise PermanentError(f"no bulk e-mail {bulk_id}")
    if Channel.EMAIL not in channels:
        raise PermanentError("e-mail is not set up: SMTP_HOST")
    progress = await _progress(db, bulk_id)
    await report(progress.sent + progress.failed, progress.total)
    async with channels[Channel.EMAIL].open() as line:
        await _send_due(db, line, row, max_tries, per_second, report)
    progress = await _progress(db, bulk_id)
    await report(progress.sent + progress.failed, progress.total)
    if progress.next_in is not None:
        pause = min(_LONGEST_PAUSE, max(1.0, progress.next_in))
        left = progress.total - progress.sent - progress.failed
        raise Postponed(f"bulk e-mail {bulk_id}: {left} of {progress.total} recipients are left", after=pause)
    log.info("bulk e-mail %s: %d sent, %d failed", bulk_id, progress.sent, progress.failed)
    return {"bulk_id": str(bulk_id), "sent": progress.sent, "failed": progress.failed}


async def _send_due(
    db: Database, line: Line, row: Notification, max_tries: int, per_second: float, report: Report
) -> None:
    loop = asyncio.get_running_loop()
    began, tried = loop.time(), 0
    progress = await _progress(db, row.id)
    done = progress.sent + progress.failed
    while loop.time() - began < _WORK_SECONDS:
        claim = await _claim(db, row.id)
        if claim is None:
            return
        await asyncio.sleep(max(0.0, began + tried / per_second - loop.time()))
        done += await attempt(db, line, claim, message_of(row, claim), max_tries) is not None
        tried += 1
        await report(done, progress.total)


async def _claim(db: Database, bulk_id: UUID) -> Claim | None:
    async with db.transaction() as session:
        claims = await DeliveryRepository(session).claim(LEASE, notification_id=bulk_id, bulk=True)
    return claims[0] if claims else None


async def _progress(db: Database, bulk_id: UUID) -> Progress:
    async with db.transaction() as session:
        return await DeliveryRepository(session).progress(bulk_id)


async def read_bulk(session: Session, bulk_id: UUID) -> BulkRead:
    """NotFound (404)."""
    row = await NotificationRepository(session).find(bulk_id)
    if row is None or row.kind != Kind.BULK:
        raise NotFound(f"no bulk e-mail {bulk_id}")
    progress = await DeliveryRepository(session).progress(bulk_id)
    return BulkRead(
        id=row.id,
        subject=row.subject,
        created_by=row.created_by,
        created_at=row.created_at,
        recipients=progress.total,
        sent=progress.sent,
        failed=progress.failed,
        waiting=progress.total - progress.sent - progress.failed,
    )


async def resume_stranded(db: Database) -> int:
    """Send the task of each bulk that nobody works on though something of it is due; how many."""
    async with db.transaction() as session:
        found = await DeliveryRepository(session).take_stranded_bulks(_STRANDED, 20)
        for bulk_id in found:
            enqueue(session, "send_bulk_email", bulk_id=str(bulk_id))
    return len(found)
