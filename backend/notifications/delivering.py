"""Sending what is due: claim a row, send outside of any transaction, record the result.

Who dies between sending and recording leaves a row whose lease runs out, and it is sent again: at least once, under the same
Message-ID or webhook-id.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from backend.core.db import Database, Session
from backend.core.errors import PermanentError, TransientError
from backend.core.redaction import Redactor
from backend.notifications.channels.base import Channels, Line, Message
from backend.notifications.hours import Moment, moment
from backend.notifications.models import Notification, NotificationPreferences
from backend.notifications.repository.deliveries import Claim, DeliveryRepository
from backend.notifications.repository.notifications import NotificationRepository
from backend.notifications.repository.people import PeopleRepository, Person
from backend.notifications.states import Channel, DeliveryState, Kind
from backend.notifications.writing import addresses_of, hours_of

log = logging.getLogger(__name__)

# A send is given up before its lease is over, with time to record it.
SEND_SECONDS = 60.0
LEASE = timedelta(seconds=120)
AT_ONCE = 8
_BASE, _CAP, _LONGEST_WAIT = 30.0, 3600.0, 86_400.0
_LONGEST_ERROR = 500

Outcome = DeliveryState | None


def backoff(attempts: int, after: float | None = None) -> float:
    """Seconds until the next try: from 30 s to an hour, doubled with each, jitter between half and whole; never before `after`,
    which is believed up to a day."""
    ceiling = min(_CAP, _BASE * 2.0 ** (attempts - 1))
    # Spreads load, guards nothing.
    return max(min(_LONGEST_WAIT, after or 0.0), ceiling * random.uniform(0.5, 1.0))  # noqa: S311


async def deliver(
    db: Database,
    channels: Channels,
    *,
    max_tries: int,
    notification_id: UUID | None = None,
    seconds: float = 200.0,
) -> dict[str, int]:
    """Send what is due, or what is due of one notification; how many ended as what, `later` for those that will be tried again.

    Several at once, so that a server that hangs holds up few. Begins nothing new after `seconds`.
    """
    tally: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds

    async def work() -> None:
        while loop.time() < until:
            async with db.transaction() as session:
                claims = await DeliveryRepository(session).claim(LEASE, notification_id=notification_id)
            if not claims:
                return
            outcome = await _deliver_one(db, channels, claims[0], max_tries)
            tally[outcome or "later"] += 1

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE if notification_id is None else 2):
                group.create_task(work())
    except ExceptionGroup as faults:
        # The runtime knows a database that is away by the error itself. What was in hand is due again when its lease is over.
        raise faults.exceptions[0] from faults
    return dict(tally)


async def _deliver_one(db: Database, channels: Channels, claim: Claim, max_tries: int) -> Outcome:
    ready = await _prepare(db, channels, claim)
    if not isinstance(ready, Message):
        return ready
    async with channels[claim.channel].open() as line:
        return await attempt(db, line, claim, ready, max_tries)


async def attempt(db: Database, line: Line, claim: Claim, message: Message, max_tries: int) -> Outcome:
    """One try, and its record; None where another will follow."""
    if claim.attempts > max_tries:
        return await _end(db, claim, DeliveryState.DEAD, error="its workers were lost, each in the middle of a try")
    try:
        async with asyncio.timeout(SEND_SECONDS):
            receipt = await line.send(message)
    except PermanentError as fault:
        return await _end(db, claim, DeliveryState.DEAD, error=str(fault))
    except (TransientError, TimeoutError) as fault:
        after = fault.after if isinstance(fault, TransientError) else None
        return await _again(db, claim, str(fault) or f"no end within {SEND_SECONDS:g} s", after, max_tries)
    return await _end(db, claim, DeliveryState.SENT, receipt=receipt)


async def _prepare(db: Database, channels: Channels, claim: Claim) -> Message | Outcome:
    """What to send; or what became of a row that is not to be sent now."""
    person = preferences = None
    async with db.transaction() as session:
        row = await NotificationRepository(session).find(claim.notification_id)
        if row is None:
            return None
        if claim.user_id is not None:
            people = PeopleRepository(session)
            person, preferences = await people.find(claim.user_id), await people.preferences(claim.user_id)
        when = await _not_yet(session, row, preferences)
        if when is not None:
            await DeliveryRepository(session).put_off(claim, when.due_at, when.digest_for)
            return DeliveryState.HELD if when.digest_for is not None else None
    why = _closed(claim, channels, person, preferences)
    if why is not None:
        return await _end(db, claim, DeliveryState.SKIPPED, error=why)
    message = message_of(row, claim, preferences.webhook_url if preferences is not None else "")
    # The address may have changed since.
    if claim.channel == Channel.EMAIL and person is not None and person.email:
        return replace(message, address=person.email)
    return message


async def _not_yet(session: Session, row: Notification, preferences: NotificationPreferences | None) -> Moment | None:
    """When to tell it, where that is not now, by the clock that says what is due."""
    now = await DeliveryRepository(session).now()
    when = moment(hours_of(preferences), now, urgent=row.urgent, gather=row.kind == Kind.MESSAGE)
    return when if when.due_at > now else None


def _closed(
    claim: Claim, channels: Channels, person: Person | None, preferences: NotificationPreferences | None
) -> str | None:
    """Why the channel is not open."""
    if claim.channel not in channels:
        return f"{claim.channel} is not set up"
    if claim.user_id is None:
        return None
    if person is None:
        return "the user is not active any more"
    opened = dict(addresses_of(preferences, person.email))
    return None if claim.channel in opened else f"the user has switched {claim.channel} off, or has no address"


def message_of(row: Notification, claim: Claim, webhook_url: str = "") -> Message:
    return Message(
        id=claim.id,
        notification_id=row.id,
        address=claim.address,
        subject=row.subject,
        text=row.text,
        html=row.html,
        payload=row.payload,
        created_at=row.created_at,
        user_id=claim.user_id,
        webhook_url=webhook_url,
        bulk=row.kind == Kind.BULK,
    )


async def _again(db: Database, claim: Claim, error: str, after: float | None, max_tries: int) -> Outcome:
    if claim.attempts >= max_tries:
        return await _end(db, claim, DeliveryState.DEAD, error=error)
    wait = backoff(claim.attempts, after)
    kept = _kept(error)
    await _record(db, lambda deliveries: deliveries.retry(claim, wait, kept))
    log.warning("notification %s by %s: try %d: %s", claim.notification_id, claim.channel, claim.attempts, kept)
    return None


async def _end(db: Database, claim: Claim, state: DeliveryState, *, receipt: str = "", error: str = "") -> Outcome:
    kept = _kept(error)
    if not await _record(db, lambda deliveries: deliveries.end(claim, state, receipt=_kept(receipt), error=kept)):
        log.warning("notification %s by %s: ended by another worker, too", claim.notification_id, claim.channel)
    elif state == DeliveryState.DEAD:
        log.error("notification %s by %s is dead: %s", claim.notification_id, claim.channel, kept)
    return state


async def _record(db: Database, write: Callable[[DeliveryRepository], Awaitable[bool]]) -> bool:
    async with db.transaction() as session:
        return await write(DeliveryRepository(session))


def _kept(text: str) -> str:
    return Redactor().text(text)[:_LONGEST_ERROR]
