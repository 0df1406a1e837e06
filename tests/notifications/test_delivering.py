"""The outbox: what is noted is sent, again where that helps, and never twice where it was recorded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from backend.config import Smtp, load
from backend.core.clock import utc_now
from backend.core.db import Database
from backend.core.errors import Conflict, Invalid, NotFound
from backend.notifications import service as notifications
from backend.notifications.channels.base import Channels, Message
from backend.notifications.channels.email import EmailChannel
from backend.notifications.channels.webhook import WebhookChannel
from backend.notifications.delivering import LEASE, backoff, message_of
from backend.notifications.repository.deliveries import DeliveryRepository
from backend.notifications.repository.notifications import NotificationRepository
from backend.notifications.schemas import Preferences
from backend.notifications.service import Channel, Target
from backend.notifications.states import DeliveryState
from tests.fixtures.sent import Sent
from tests.notifications.mail import DROP, Mailbox
from tests.notifications.outbox import deliveries, forward, states
from tests.notifications.people import add_user
from tests.notifications.receiver import Hook
from tests.notifications.test_webhook import SECRET

OPS = Target(Channel.EMAIL, "ops@example.net")


@pytest.fixture
def channels(box: Mailbox) -> Channels:
    smtp = Smtp(host="127.0.0.1", port=box.port, username="", password="", tls="off", ca=None)
    config = load({"NOTIFY_WEBHOOK_SECRET": SECRET, "NOTIFY_WEBHOOK_ALLOW_PRIVATE": "on"})
    return {
        Channel.EMAIL: EmailChannel(smtp, "Beatline <b@example.net>", step_seconds=2),
        Channel.WEBHOOK: WebhookChannel(config, seconds=2),
    }


async def note(db: Database, **wish: Any) -> notifications.Noted:
    wanted: dict[str, Any] = {"message": "hello", **wish}
    async with db.transaction() as session:
        return await notifications.notify(session, **wanted)


async def deliver(db: Database, channels: Channels, *, tries: int = 3, **options: Any) -> dict[str, int]:
    return await notifications.deliver(db, channels, max_tries=tries, **options)


async def test_a_notification_is_sent_after_the_commit_by_name(db: Database, sent: Sent, channels: Channels) -> None:
    async with db.transaction() as session:
        noted = await notifications.notify(session, to=[OPS], message="hello")
        assert list(sent) == []
    assert list(sent) == [("deliver_notification", {"notification_id": str(noted.id)})]
    assert await deliver(db, channels, notification_id=noted.id) == {"sent": 1}
    (row,) = await deliveries(db)
    assert (row.state, row.attempts, row.receipt, row.lease_until) == ("sent", 1, "taken", None)
    assert row.ended_at is not None


async def test_nothing_is_noted_by_a_transaction_that_rolls_back(db: Database, sent: Sent) -> None:
    with pytest.raises(Invalid):
        async with db.transaction() as session:
            await notifications.notify(session, to=[OPS], message="hello")
            await notifications.notify(session, to=[OPS], subject="a\nb", message="hello")
    assert (list(sent), await deliveries(db)) == ([], [])


async def test_a_second_delivery_of_the_message_sends_nothing(db: Database, channels: Channels, box: Mailbox) -> None:
    noted = await note(db, to=[OPS])
    for _ in range(3):
        await deliver(db, channels, notification_id=noted.id)
    await asyncio.gather(*(deliver(db, channels) for _ in range(3)))
    assert len(box.taken) == 1


async def test_ten_workers_at_once_send_each_once(db: Database, channels: Channels, box: Mailbox) -> None:
    for number in range(20):
        await note(db, to=[Target(Channel.EMAIL, f"u{number}@example.net")])
    tallies = await asyncio.gather(*(deliver(db, channels) for _ in range(3)))
    assert sum(tally.get("sent", 0) for tally in tallies) == 20
    assert len(set(box.addresses())) == len(box.taken) == 20


async def test_the_same_key_notes_once(db: Database, sent: Sent) -> None:
    first = await note(db, to=[OPS], dedup_key="alert:1")
    again = await asyncio.gather(*(note(db, to=[OPS], dedup_key="alert:1") for _ in range(5)))
    assert first.created
    assert {(one.id, one.created) for one in again} == {(first.id, False)}
    assert (len(await deliveries(db)), len(sent)) == (1, 1)


async def test_a_try_that_failed_for_now_comes_again(db: Database, channels: Channels, box: Mailbox) -> None:
    box.answers = ["451 later", "421 later"]
    noted = await note(db, to=[OPS])
    for attempts in (1, 2):
        assert await deliver(db, channels) == {"later": 1}
        assert await deliver(db, channels) == {}
        (row,) = await deliveries(db)
        assert (row.state, row.attempts) == ("pending", attempts)
        assert "later" in row.last_error
        assert timedelta(seconds=14 * attempts) < row.due_at - utc_now() < timedelta(seconds=31 * attempts)
        await forward(db, 61)
    assert await deliver(db, channels) == {"sent": 1}
    assert len(box.taken) == 1
    assert noted.created


async def test_tries_are_bounded_and_what_is_dead_can_be_tried_again(
    db: Database, channels: Channels, box: Mailbox, sent: Sent
) -> None:
    box.answers = ["451 later"] * 3
    noted = await note(db, to=[OPS])
    for _ in range(3):
        await deliver(db, channels)
        await forward(db, 4000)
    (row,) = await deliveries(db)
    assert (row.state, row.attempts) == ("dead", 3)
    sent.clear()
    async with db.transaction() as session:
        again = await notifications.retry(session, row.id)
    assert (again.state, again.attempts) == (DeliveryState.PENDING, 0)
    assert list(sent) == [("deliver_notification", {"notification_id": str(noted.id)})]
    assert await deliver(db, channels) == {"sent": 1}
    for wrong, error in ((row.id, Conflict), (uuid4(), NotFound)):
        with pytest.raises(error):
            async with db.transaction() as session:
                await notifications.retry(session, wrong)


async def test_a_refusal_for_good_is_not_tried_again(db: Database, channels: Channels, box: Mailbox) -> None:
    box.refused = {"ops@example.net": "550 no such user"}
    await note(db, to=[OPS])
    assert await deliver(db, channels) == {"dead": 1}
    (row,) = await deliveries(db)
    assert (row.state, row.attempts, row.last_error) == ("dead", 1, "mail server: 550 no such user")


async def test_the_wait_that_a_receiver_asks_for_is_kept(db: Database, channels: Channels, hook: Hook) -> None:
    hook.answers = [(429, {"Retry-After": "900"})]
    user_id = await add_user(db, address=None, webhook=True, webhook_url=hook.url)
    await note(db, to_user_id=user_id)
    assert await deliver(db, channels) == {"later": 1}
    (row,) = await deliveries(db)
    assert timedelta(seconds=890) < row.due_at - utc_now() <= timedelta(seconds=900)
    await forward(db, 901)
    assert await deliver(db, channels) == {"sent": 1}
    assert hook.seen[0][0]["webhook-id"] == hook.seen[1][0]["webhook-id"]


async def test_who_dies_between_sending_and_recording_leaves_one_more_mail_of_the_same_id(
    db: Database, channels: Channels, box: Mailbox
) -> None:
    box.answers = [DROP]
    await note(db, to=[OPS])
    claimed = await _claimed_by_somebody_who_dies(db, channels)
    assert len(box.taken) == 1
    # The lease keeps others away, and then it is over.
    assert await deliver(db, channels) == {}
    await forward(db, 121)
    assert await deliver(db, channels) == {"sent": 1}
    assert len(box.ids()) == 2
    assert set(box.ids()) == {f"<{claimed}@example.net>"}


async def _claimed_by_somebody_who_dies(db: Database, channels: Channels) -> UUID:
    """Takes the row and sends it; the process is gone before it records anything."""
    async with db.transaction() as session:
        (claim,) = await DeliveryRepository(session).claim(LEASE)
        row = await NotificationRepository(session).find(claim.notification_id)
    assert row is not None
    async with channels[Channel.EMAIL].open() as line:
        with pytest.raises(Exception, match="mail server"):
            await line.send(message_of(row, claim))
    return claim.id


async def test_a_worker_that_comes_back_late_records_nothing(db: Database) -> None:
    await note(db, to=[OPS])
    async with db.transaction() as session:
        (late,) = await DeliveryRepository(session).claim(LEASE)
    await forward(db, 121)
    async with db.transaction() as session:
        (current,) = await DeliveryRepository(session).claim(LEASE)
        assert not await DeliveryRepository(session).end(late, DeliveryState.DEAD, error="late")
        assert not await DeliveryRepository(session).retry(late, 1, "late")
        assert await DeliveryRepository(session).end(current, DeliveryState.SENT)
    assert await states(db) == ["sent"]


async def test_what_kills_its_workers_is_dead_in_the_end(db: Database, channels: Channels, box: Mailbox) -> None:
    await note(db, to=[OPS])
    for _ in range(3):
        async with db.transaction() as session:
            assert await DeliveryRepository(session).claim(LEASE)
        await forward(db, 121)
    assert await deliver(db, channels, tries=3) == {"dead": 1}
    assert box.taken == []


async def test_a_channel_that_is_not_set_up_is_skipped_and_said(db: Database) -> None:
    await note(db, to=[OPS])
    assert await deliver(db, {}) == {"skipped": 1}
    assert (await deliveries(db))[0].last_error == "email is not set up"


async def test_one_of_several_channels_that_fails_holds_up_none(
    db: Database, channels: Channels, box: Mailbox, hook: Hook
) -> None:
    hook.answers = [(500, {})]
    user_id = await add_user(db, webhook=True, webhook_url=hook.url)
    await note(db, to_user_id=user_id)
    assert await deliver(db, channels) == {"later": 1, "sent": 1}
    assert {(row.channel, row.state) for row in await deliveries(db)} == {("email", "sent"), ("webhook", "pending")}


async def test_a_user_is_told_by_the_channels_they_chose(db: Database, hook: Hook) -> None:
    for preferences, expected in (
        ({}, [("email", "user")]),
        ({"email": False}, []),
        ({"email": False, "webhook": True, "webhook_url": hook.url}, [("webhook", "own")]),
        ({"webhook": True, "webhook_url": hook.url}, [("email", "user"), ("webhook", "own")]),
    ):
        user_id = await add_user(db, **preferences)
        noted = await note(db, to_user_id=user_id)
        rows = await deliveries(db, noted.id)
        assert [
            (row.channel, row.address[: len(address)]) for row, (_, address) in zip(rows, expected, strict=True)
        ] == expected
    chosen = await note(db, to_user_id=user_id, channels=[Channel.WEBHOOK])
    assert [row.channel for row in await deliveries(db, chosen.id)] == ["webhook"]


async def test_nobody_and_nobody_active_is_told(db: Database) -> None:
    for user_id in (uuid4(), await add_user(db, active=False)):
        with pytest.raises(NotFound) as fault:
            await note(db, to_user_id=user_id)
        assert fault.value.problem == "unknown_user"


async def test_a_channel_switched_off_since_is_skipped(db: Database, channels: Channels, box: Mailbox) -> None:
    user_id = await add_user(db)
    await note(db, to_user_id=user_id)
    async with db.transaction() as session:
        await notifications.set_preferences(session, user_id, Preferences(email=False), load({}))
    assert await deliver(db, channels) == {"skipped": 1}
    assert box.taken == []


class Broken:
    """A channel with a fault of its own."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Broken"]:
        yield self

    async def send(self, message: Message) -> str:
        raise OSError(f"the disk is full: {message.address}")


async def test_a_fault_of_our_own_is_said_as_it_is_and_the_row_comes_again(
    db: Database, channels: Channels, box: Mailbox
) -> None:
    await note(db, to=[OPS])
    with pytest.raises(OSError, match="the disk is full"):
        await deliver(db, {Channel.EMAIL: Broken()})
    assert await deliver(db, channels) == {}
    await forward(db, 121)
    assert await deliver(db, channels) == {"sent": 1}
    assert len(box.taken) == 1


async def test_mail_goes_to_the_address_that_the_account_has_now_and_to_active_users_alone(
    db: Database, channels: Channels, box: Mailbox
) -> None:
    moved, gone = await add_user(db), await add_user(db)
    for user_id in (moved, gone):
        await note(db, to_user_id=user_id)
    async with db.transaction() as session:
        connection = await session.connection()
        await connection.execute(text("update users set email = 'new@example.net' where id = :id"), {"id": moved})
        await connection.execute(text("update users set is_active = false where id = :id"), {"id": gone})
    assert await deliver(db, channels) == {"sent": 1, "skipped": 1}
    assert box.addresses() == ["new@example.net"]
    assert {row.last_error for row in await deliveries(db)} == {"", "the user is not active any more"}


def test_the_backoff_grows_is_bounded_and_believes_the_other_side() -> None:
    for attempts, most in ((1, 30), (2, 60), (5, 480), (8, 3600), (50, 3600)):
        waits = [backoff(attempts) for _ in range(50)]
        assert most / 2 <= min(waits) <= max(waits) <= most
        assert len(set(waits)) > 1
    assert backoff(1, after=5000) == 5000
    assert backoff(1, after=10**9) == 86_400
