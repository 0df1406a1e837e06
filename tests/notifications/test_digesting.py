"""Digests and quiet hours, from the note to the mail."""

import asyncio
from datetime import UTC, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from backend.config import Config, Smtp, load
from backend.core.clock import utc_now
from backend.core.db import Database
from backend.notifications import service as notifications
from backend.notifications.channels.base import Channels
from backend.notifications.channels.email import EmailChannel
from backend.notifications.schemas import Preferences
from backend.notifications.service import Channel
from backend.notifications.states import Digest
from tests.fixtures.sent import Sent
from tests.notifications.mail import Mailbox
from tests.notifications.outbox import deliveries, forward, states
from tests.notifications.outbox import notifications as every_notification
from tests.notifications.people import add_user

CONFIG: Config = load({})


@pytest.fixture
def channels(box: Mailbox) -> Channels:
    smtp = Smtp(host="127.0.0.1", port=box.port, username="", password="", tls="off", ca=None)
    return {Channel.EMAIL: EmailChannel(smtp, "Beatline <b@example.net>", step_seconds=2)}


async def note(db: Database, user_id: UUID, message: str = "hello", *, urgent: bool = False) -> UUID:
    async with db.transaction() as session:
        noted = await notifications.notify(
            session, to_user_id=user_id, subject=f"About {message}", message=message, urgent=urgent
        )
    return noted.id


async def deliver(db: Database, channels: Channels) -> dict[str, int]:
    return await notifications.deliver(db, channels, max_tries=3)


def around_now(*, hours: int = 2) -> tuple[time, time]:
    """Quiet hours in UTC that it is in the middle of."""
    now = utc_now()
    return (now - timedelta(hours=hours)).time().replace(second=0, microsecond=0), (
        now + timedelta(hours=hours)
    ).time().replace(second=0, microsecond=0)


async def quiet_user(db: Database, **preferences: Any) -> tuple[UUID, time]:
    """Somebody whom it is quiet around now, and until when."""
    start, end = around_now()
    return await add_user(db, quiet_start=start, quiet_end=end, **preferences), end


async def test_quiet_hours_hold_a_mail_back_until_their_end(
    db: Database, channels: Channels, box: Mailbox, sent: Sent
) -> None:
    user_id, end = await quiet_user(db)
    await note(db, user_id)
    assert list(sent) == []
    assert await deliver(db, channels) == {}
    (row,) = await deliveries(db)
    assert row.due_at.astimezone(UTC).time() == end
    await note(db, user_id, "fire", urgent=True)
    assert await deliver(db, channels) == {"sent": 1}
    assert [mail["Subject"] for mail in box.taken] == ["About fire"]


async def test_a_try_that_comes_due_in_quiet_hours_waits_for_their_end(
    db: Database, channels: Channels, box: Mailbox
) -> None:
    user_id, end = await quiet_user(db)
    await note(db, user_id)
    # As if it had been noted before the quiet hours began, or a try before them had failed.
    await forward(db, 3 * 3600)
    assert await deliver(db, channels) == {"later": 1}
    (row,) = await deliveries(db)
    assert (row.state, row.attempts) == ("pending", 0)
    assert row.due_at.astimezone(UTC).time() == end
    assert box.taken == []


async def test_a_digest_is_one_mail_with_all_that_came_together(db: Database, channels: Channels, box: Mailbox) -> None:
    user_id = await add_user(db, digest=Digest.DAILY, digest_at=time(9))
    for number in range(3):
        await note(db, user_id, f"thing {number}")
    assert await states(db) == ["held"] * 3
    assert await notifications.make_digests(db) == 0
    await forward(db, 86_400)
    assert await notifications.make_digests(db) == 1
    assert await deliver(db, channels) == {"sent": 1}
    (mail,) = box.taken
    body = mail.get_body(("plain",))
    assert body is not None
    content = body.get_content()
    assert mail["Subject"].startswith("3 notifications since ")
    assert [content.index(f"About thing {number}") for number in range(3)] == sorted(
        content.index(f"About thing {number}") for number in range(3)
    )
    assert await states(db) == ["digested"] * 3 + ["sent"]
    digest = next(row for row in await every_notification(db) if row.kind == "digest")
    assert {row.digest_id for row in await deliveries(db)} == {digest.id, None}
    # The inbox has the three, each by itself, and not the digest.
    async with db.transaction() as session:
        inbox = await notifications.list_inbox(session, user_id)
    assert [one.text for one in inbox.items] == ["thing 2", "thing 1", "thing 0"]


async def test_many_workers_make_one_digest(db: Database, channels: Channels, box: Mailbox) -> None:
    user_id = await add_user(db, digest=Digest.HOURLY)
    for number in range(5):
        await note(db, user_id, f"thing {number}")
    await forward(db, 3600)
    made = await asyncio.gather(*(notifications.make_digests(db) for _ in range(5)))
    assert sum(made) == 1
    await asyncio.gather(*(deliver(db, channels) for _ in range(3)))
    assert len(box.taken) == 1


async def test_what_comes_in_while_its_digest_goes_out_is_in_the_next(db: Database) -> None:
    user_id = await add_user(db, digest=Digest.HOURLY)
    await note(db, user_id, "early")
    await note(db, user_id, "late")
    early, late = await deliveries(db)
    async with db.transaction() as session:
        connection = await session.connection()
        # The late one is not there yet when the digest of an hour ago is made.
        past = {"past": utc_now() - timedelta(hours=1), "far": utc_now() + timedelta(hours=9)}
        await connection.execute(
            text(
                "update notification_deliveries set digest_for = case when id = :id then cast(:past as timestamptz)"
                " else cast(:far as timestamptz) end"
            ),
            {"id": early.id, **past},
        )
    assert await notifications.make_digests(db) == 1
    async with db.transaction() as session:
        await (await session.connection()).execute(
            text("update notification_deliveries set digest_for = :past where state = 'held'"), {"past": past["past"]}
        )
    assert await notifications.make_digests(db) == 0
    held = [row for row in await deliveries(db) if row.state == "held"]
    assert [row.id for row in held] == [late.id]
    assert held[0].digest_for is not None
    assert held[0].digest_for > utc_now()


async def test_quiet_hours_delay_a_digest_and_do_not_undo_it(db: Database, channels: Channels, box: Mailbox) -> None:
    user_id, end = await quiet_user(db, digest=Digest.HOURLY)
    await note(db, user_id)
    await forward(db, 3600)
    assert await notifications.make_digests(db) == 1
    assert await deliver(db, channels) == {}
    digest = next(row for row in await deliveries(db) if row.state == "pending")
    assert digest.due_at.astimezone(UTC).time() == end
    await forward(db, 3 * 3600)
    assert await deliver(db, channels) == {"later": 1}
    assert box.taken == []


async def test_changed_preferences_plan_anew_what_waits(
    db: Database, channels: Channels, box: Mailbox, sent: Sent
) -> None:
    user_id = await add_user(db, digest=Digest.DAILY)
    await note(db, user_id)
    async with db.transaction() as session:
        await notifications.set_preferences(session, user_id, Preferences(digest=Digest.HOURLY, timezone="UTC"), CONFIG)
    assert sent.named("deliver_notifications") == [{}]
    assert await deliver(db, channels) == {"held": 1}
    (row,) = await deliveries(db)
    assert row.digest_for is not None
    assert (row.digest_for.minute, row.attempts) == (0, 0)
    assert row.digest_for - utc_now() <= timedelta(hours=1)
    async with db.transaction() as session:
        await notifications.set_preferences(session, user_id, Preferences(), CONFIG)
    assert await deliver(db, channels) == {"sent": 1}
    assert len(box.taken) == 1


async def test_a_digest_for_somebody_who_wants_no_mail_any_more_is_not_made(db: Database) -> None:
    user_id = await add_user(db, digest=Digest.HOURLY)
    await note(db, user_id)
    async with db.transaction() as session:
        await (await session.connection()).execute(text("update notification_preferences set email = false"))
    await forward(db, 3600)
    assert await notifications.make_digests(db) == 0
    assert await states(db) == ["skipped"]


async def test_a_digest_of_very_much_tells_the_first_and_counts_the_rest(db: Database) -> None:
    user_id = await add_user(db, digest=Digest.HOURLY)
    async with db.transaction() as session:
        for number in range(60):
            await notifications.notify(session, to_user_id=user_id, message="x" * 20_000, subject=f"Number {number}")
    await forward(db, 3600)
    assert await notifications.make_digests(db) == 1
    digest = next(row for row in await every_notification(db) if row.kind == "digest")
    assert digest.subject.startswith("60 notifications")
    assert "and 10 more in the inbox" in digest.text
    assert len(digest.text) < 60_000


async def test_a_daily_digest_goes_out_at_the_users_own_hour(db: Database) -> None:
    user_id = await add_user(db, digest=Digest.DAILY, digest_at=time(8), timezone="Europe/Berlin")
    await note(db, user_id)
    (row,) = await deliveries(db)
    assert row.digest_for is not None
    assert row.digest_for.astimezone(ZoneInfo("Europe/Berlin")).time() == time(8)
