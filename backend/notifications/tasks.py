"""The tasks of notifications."""

import logging
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel, ValidationError

from backend.core import delivery
from backend.core.errors import AppError, PermanentError
from backend.core.runtime import Runtime, task
from backend.notifications import service as notifications
from backend.notifications.channels.base import Channels
from backend.notifications.channels.opening import open_channels
from backend.notifications.schemas import EmailWish, NotificationWish

log = logging.getLogger(__name__)

_CHANNELS = "notifications.channels"


def _channels(runtime: Runtime) -> Channels:
    if _CHANNELS not in runtime.resources:
        runtime.resources[_CHANNELS] = open_channels(runtime.config)
    channels: Channels = runtime.resources[_CHANNELS]
    return channels


def _checked(model: type[BaseModel], arguments: dict[str, Any]) -> Any:
    try:
        return model.model_validate(arguments)
    except ValidationError as fault:
        problems = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in fault.errors())
        raise PermanentError(problems) from fault


def _key() -> str:
    """The same for every copy of the message in hand, and for each of its tries."""
    message = delivery.current.get()
    return f"task:{message.task_id if message else uuid4()}"


@task(max_retries=5, time_limit=180)
async def send_notification(
    runtime: Runtime, user_id: str, message: str | None = None, **more: Any
) -> dict[str, object]:
    """Tell a user something: at once, or when their preferences let it; {"status": "sent" | "queued" | "failed", "user_id"}.

    `more` is what else NotificationWish has. A second delivery of the message tells nothing twice. What could not be sent now is
    tried again from the outbox, not by this task.
    """
    wish: NotificationWish = _checked(NotificationWish, {"user_id": user_id, "message": message, **more})
    try:
        async with runtime.db.transaction() as session:
            noted = await notifications.notify(
                session,
                to_user_id=wish.user_id,
                message=wish.message,
                subject=wish.subject or notifications.SUBJECT,
                template=wish.template or "message",
                context=wish.context,
                channels=wish.channels,
                urgent=wish.urgent,
                dedup_key=_key(),
                actor="task",
                send=False,
            )
    except AppError as fault:
        raise PermanentError(fault.detail) from fault
    tries = runtime.config.notify.max_tries
    told = await notifications.tell(runtime.db, _channels(runtime), noted.id, max_tries=tries, has_inbox=True)
    more_words = {} if told.error is None else {"error": told.error}
    return {"status": told.status, "user_id": str(wish.user_id), "notification_id": str(noted.id), **more_words}


@task(max_retries=5, time_limit=180)
async def send_email(runtime: Runtime, to: str, subject: str, body: str) -> dict[str, object]:
    """Send an e-mail to an address; {"status": "sent" | "queued" | "failed", "to"}. As `send_notification` otherwise."""
    wish: EmailWish = _checked(EmailWish, {"to": to, "subject": subject, "body": body})
    target = notifications.Target(notifications.Channel.EMAIL, wish.to)
    async with runtime.db.transaction() as session:
        noted = await notifications.notify(
            session, to=[target], subject=wish.subject, message=wish.body, dedup_key=_key(), actor="task", send=False
        )
    tries = runtime.config.notify.max_tries
    told = await notifications.tell(runtime.db, _channels(runtime), noted.id, max_tries=tries, has_inbox=False)
    more_words = {} if told.error is None else {"error": told.error}
    return {"status": told.status, "to": wish.to, "notification_id": str(noted.id), **more_words}


@task(max_retries=0, time_limit=180)
async def deliver_notification(runtime: Runtime, *, notification_id: str) -> dict[str, int]:
    """Send what is due of one notification; a second delivery finds nothing due. What fails is tried again by the sweep."""
    return await notifications.deliver(
        runtime.db,
        _channels(runtime),
        notification_id=UUID(notification_id),
        max_tries=runtime.config.notify.max_tries,
        seconds=60,
    )


@task(max_retries=0, time_limit=300)
async def deliver_notifications(runtime: Runtime) -> dict[str, int]:
    """The sweep: write the digests that are due, send everything that is due, and see to bulk e-mail that has come to a halt."""
    digests = await notifications.make_digests(runtime.db)
    resumed = await notifications.resume_stranded(runtime.db)
    tries = runtime.config.notify.max_tries
    ended = await notifications.deliver(runtime.db, _channels(runtime), max_tries=tries, seconds=150)
    return {"digests": digests, "bulks_resumed": resumed, **ended}


@task(max_retries=5, time_limit=3_600)
async def send_bulk_email(runtime: Runtime, *, bulk_id: str) -> dict[str, Any]:
    """Send a bulk e-mail to those of its recipients who have not had it; comes again until all have, or cannot have it."""
    return await notifications.send_bulk(
        runtime.db,
        _channels(runtime),
        UUID(bulk_id),
        max_tries=runtime.config.notify.max_tries,
        per_second=runtime.config.notify.bulk_per_second,
        report=runtime.progress,
    )
