"""How long notifications are kept."""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from backend.celery_app import app
from backend.config import load
from backend.core.db import Database
from backend.notifications import service as notifications
from backend.notifications.service import Channel, Target
from backend.queues import service as queues
from devstack.servers import ValkeyServer
from tests.notifications.outbox import deliveries
from tests.notifications.outbox import notifications as every_notification


async def change(db: Database, sql: str, **values: Any) -> None:
    async with db.transaction() as session:
        await (await session.connection()).execute(text(sql), values)


async def note(db: Database, *, days: int, state: str) -> UUID:
    async with db.transaction() as session:
        noted = await notifications.notify(session, to=[Target(Channel.EMAIL, "ops@example.net")], message="hello")
    values = {"id": noted.id, "days": days, "state": state}
    await change(
        db,
        "update notification_deliveries set state = cast(:state as text),"
        " digest_for = case when cast(:state as text) = 'held' then now() end where notification_id = :id",
        id=noted.id,
        state=state,
    )
    await change(
        db,
        "update notifications set created_at = now() - :days * interval '1 day' where id = :id",
        **{k: values[k] for k in ("id", "days")},
    )
    return noted.id


async def test_what_is_old_and_over_goes_with_its_deliveries(db: Database, valkey: ValkeyServer) -> None:
    kept = [
        await note(db, days=89, state="sent"),
        await note(db, days=91, state="pending"),
        await note(db, days=91, state="held"),
    ]
    for state in ("sent", "dead", "skipped", "digested"):
        await note(db, days=91, state=state)
    # A bulk e-mail whose task was never sent waits for nothing.
    never = await note(db, days=91, state="pending")
    await change(db, "update notification_deliveries set bulk = true where notification_id = :id", id=never)
    forever = await queues.clean(db, load({"NOTIFY_RETENTION_DAYS": "0"}), app)
    assert forever["notifications"] == 0
    cleaned = await queues.clean(db, load({}), app)
    assert cleaned["notifications"] == 5
    assert {row.id for row in await every_notification(db)} == set(kept)
    assert {row.notification_id for row in await deliveries(db)} == set(kept)
