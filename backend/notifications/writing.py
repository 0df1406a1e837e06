"""Saying something: the notification and its outbox rows, in the caller's transaction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from backend.core.clock import utc_now
from backend.core.db import Session
from backend.core.errors import NotFound
from backend.core.queue import enqueue
from backend.environment import email
from backend.notifications.hours import Hours, Moment, moment
from backend.notifications.models import Notification, NotificationDelivery, NotificationPreferences
from backend.notifications.rendering import Content, render
from backend.notifications.repository.notifications import NotificationRepository
from backend.notifications.repository.people import PeopleRepository, Person
from backend.notifications.states import Channel, DeliveryState, Digest

SUBJECT = "Notification"
# The address of a user's own webhook; its URL stands in the preferences.
OWN_WEBHOOK = "own"


@dataclass(frozen=True, slots=True)
class Target:
    """An address outside of any account: an e-mail address, the name of an apprise target, the webhook `alerts`."""

    channel: Channel
    address: str


@dataclass(frozen=True, slots=True)
class Noted:
    """A notification; `created` is false where its `dedup_key` had been noted before."""

    id: UUID
    created: bool


async def notify(
    session: Session,
    *,
    to_user_id: UUID | None = None,
    to: Iterable[Target] = (),
    message: str | None = None,
    subject: str = SUBJECT,
    template: str = "message",
    context: Mapping[str, Any] | None = None,
    dedup_key: str | None = None,
    urgent: bool = False,
    channels: Iterable[Channel] | None = None,
    payload: Mapping[str, Any] | None = None,
    actor: str = "",
    send: bool = True,
) -> Noted:
    """Note that a user, and whoever else, is to be told; after the commit it is sent. At least once: see docs/operations.

    What is said is `message` under `subject`, or `template` with `context`. The user's preferences choose the channels (`channels`
    narrows them) and the hour; `urgent` waits for nothing. A second call with the same `dedup_key` notes nothing. `payload` is what
    webhooks are given in place of our own frame. `send` off is for those who deliver it themselves.

    NotFound (404, `unknown_user`) for nobody, or nobody active; Invalid (422) for what cannot be rendered.
    """
    content = render(template, {"subject": subject, "message": message} if message is not None else context or {})
    row = _row(content, template, to_user_id, dedup_key, urgent, payload, actor)
    deliveries = [_checked(row.id, target) for target in to]
    if to_user_id is not None:
        deliveries += await _for_user(session, row, to_user_id, None if channels is None else frozenset(channels))
    notifications = NotificationRepository(session)
    if not await notifications.add(row):
        found = await notifications.id_of(dedup_key or "")
        return Noted(found or row.id, created=False)
    await notifications.add_deliveries(deliveries)
    if send and any(one.state == DeliveryState.PENDING and one.due_at <= utc_now() for one in deliveries):
        enqueue(session, "deliver_notification", notification_id=str(row.id))
    return Noted(row.id, created=True)


def _row(
    content: Content,
    template: str,
    user_id: UUID | None,
    dedup_key: str | None,
    urgent: bool,
    payload: Mapping[str, Any] | None,
    actor: str,
) -> Notification:
    return Notification(
        user_id=user_id,
        template=template,
        subject=content.subject,
        text=content.text,
        html=content.html,
        payload=None if payload is None else dict(payload),
        urgent=urgent,
        dedup_key=dedup_key,
        created_by=actor,
    )


async def _for_user(
    session: Session, row: Notification, user_id: UUID, wanted: frozenset[Channel] | None
) -> list[NotificationDelivery]:
    person = await find_person(session, user_id)
    preferences = await PeopleRepository(session).preferences(user_id)
    when = moment(hours_of(preferences), utc_now(), urgent=row.urgent)
    return [
        _delivery(row.id, channel, address, when, user_id)
        for channel, address in addresses_of(preferences, person.email)
        if wanted is None or channel in wanted
    ]


async def find_person(session: Session, user_id: UUID) -> Person:
    """NotFound (404, `unknown_user`) for nobody, or nobody active."""
    person = await PeopleRepository(session).find(user_id)
    if person is None:
        raise NotFound(f"no active user {user_id}", code="unknown_user")
    return person


def addresses_of(preferences: NotificationPreferences | None, email_address: str | None) -> list[tuple[Channel, str]]:
    """The ways to a user that are open."""
    found = []
    if email_address and (preferences is None or preferences.email):
        found.append((Channel.EMAIL, email_address))
    if preferences is not None and preferences.webhook:
        found.append((Channel.WEBHOOK, OWN_WEBHOOK))
    return found


def hours_of(preferences: NotificationPreferences | None) -> Hours | None:
    """None: at any hour."""
    if preferences is None:
        return None
    start, end = preferences.quiet_start, preferences.quiet_end
    quiet = None if start is None or end is None else (start, end)
    return Hours(preferences.timezone, quiet, Digest(preferences.digest), preferences.digest_at)


def _delivery(
    notification_id: UUID, channel: Channel, address: str, when: Moment, user_id: UUID | None = None
) -> NotificationDelivery:
    return NotificationDelivery(
        notification_id=notification_id,
        user_id=user_id,
        channel=channel,
        address=address,
        state=DeliveryState.PENDING if when.digest_for is None else DeliveryState.HELD,
        due_at=when.due_at,
        digest_for=when.digest_for,
    )


def _checked(notification_id: UUID, target: Target) -> NotificationDelivery:
    # ValueError: a caller of ours has not looked at what it was given.
    address = email(target.address) if target.channel == Channel.EMAIL else target.address
    return _delivery(notification_id, target.channel, address, Moment(utc_now()))
