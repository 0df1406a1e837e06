"""What people ask for through the API: a task is sent, and its id is the answer."""

from uuid import NAMESPACE_URL, uuid4, uuid5

from backend.config import Config
from backend.core.db import Database
from backend.core.errors import Invalid
from backend.notifications import bulk
from backend.notifications.rendering import OWN, Content, render
from backend.notifications.schemas import BulkAccepted, BulkWish, NotificationWish
from backend.notifications.writing import SUBJECT, find_person
from backend.queues import service as queues


def worded(wish: NotificationWish | BulkWish) -> Content:
    """What it says. Invalid (422), NotFound (404) for a template that cannot be rendered, or is not for people to send."""
    if wish.template is None:
        return render("message", {"subject": wish.subject or SUBJECT, "message": wish.message})
    if wish.template in OWN:
        raise Invalid(f"template: {wish.template} is filled by the product itself", code="template")
    return render(wish.template, wish.context or {})


async def ask_notification(
    db: Database, wish: NotificationWish, config: Config, *, idempotency_key: str | None, actor: str
) -> queues.Sent:
    """Send the task `send_notification`, once per key. NotFound (404, `unknown_user`); the errors of `worded` and `queues.send`."""
    worded(wish)
    async with db.transaction() as session:
        await find_person(session, wish.user_id)
    arguments = wish.model_dump(mode="json", exclude_unset=True)
    return await queues.send(
        db,
        "send_notification",
        arguments,
        expires=config.result_expires,
        idempotency_key=idempotency_key,
        actor=actor,
    )


async def ask_bulk(
    db: Database, wish: BulkWish, config: Config, *, idempotency_key: str | None, actor: str
) -> tuple[BulkAccepted, queues.Sent]:
    """Write the recipients, then send the task; once per key, whose recipients are those of its first request.

    Unavailable (503) where the broker is away: nothing will be sent, and the same key may be used again.
    """
    content = worded(wish)
    bulk_id = uuid5(NAMESPACE_URL, f"beatline:bulk:{actor}:{idempotency_key}") if idempotency_key else uuid4()
    async with db.transaction() as session:
        recipients = await bulk.write_bulk(
            session,
            bulk_id,
            content,
            template=wish.template or "message",
            addresses=wish.recipients,
            roles=wish.roles,
            actor=actor,
        )
    sent = await queues.send(
        db,
        "send_bulk_email",
        {"bulk_id": str(bulk_id)},
        expires=config.result_expires,
        idempotency_key=idempotency_key,
        wish=wish.model_dump(mode="json"),
        actor=actor,
    )
    async with db.transaction() as session:
        await bulk.accept(session, bulk_id)
    return BulkAccepted(task_id=sent.task.id, bulk_id=bulk_id, recipients=recipients), sent
