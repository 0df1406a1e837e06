"""The tasks of notifications, called as the worker calls them."""

import asyncio
import logging
from typing import Any
from uuid import uuid4

import pytest

from backend.core import delivery
from backend.core.delivery import Delivery
from backend.core.errors import PermanentError
from backend.jobs.tasks import send_job_alert
from backend.notifications import service, tasks
from backend.notifications.states import Digest
from tests.factories.jobs import add_alert, add_schedule, add_template
from tests.fixtures.product import Product, Start
from tests.notifications.mail import Mailbox
from tests.notifications.outbox import forward, states
from tests.notifications.outbox import notifications as every_notification
from tests.notifications.people import add_user
from tests.notifications.receiver import Hook


def message(task_id: str = "task-1") -> Delivery:
    return Delivery(task_id, redelivered=False, retry_within=lambda _: None)


@pytest.fixture(autouse=True)
def _no_message() -> Any:
    token = delivery.current.set(None)
    yield
    delivery.current.reset(token)


async def test_a_notification_is_sent_and_says_so(mailing: Product, box: Mailbox) -> None:
    user_id = await add_user(mailing.db)
    told = await tasks.send_notification(mailing.runtime, str(user_id), "hello")
    (note,) = await every_notification(mailing.db)
    assert told == {"status": "sent", "user_id": str(user_id), "notification_id": str(note.id)}
    assert [(mail["Subject"], mail.get_body(("plain",)).get_content().strip()) for mail in box.taken] == [  # type: ignore[union-attr]  # it has one
        ("Notification", "hello")
    ]
    # Nobody else is asked to send it.
    assert mailing.sent.named("deliver_notification") == []


async def test_a_second_delivery_of_each_task_sends_nothing_twice(mailing: Product, box: Mailbox) -> None:
    user_id = await add_user(mailing.db)
    delivery.current.set(message())
    answers = [await tasks.send_notification(mailing.runtime, str(user_id), "hello") for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    delivery.current.set(message("task-2"))
    both = await asyncio.gather(
        *(tasks.send_email(mailing.runtime, "ops@example.net", "Hi", "there") for _ in range(5))
    )
    assert {answer["status"] for answer in both} <= {"sent", "queued"}
    assert len(box.taken) == 2
    assert len(await every_notification(mailing.db)) == 2
    for _ in range(2):
        await tasks.deliver_notifications(mailing.runtime)
    assert len(box.taken) == 2


async def test_what_waits_is_queued(mailing: Product, box: Mailbox) -> None:
    waiting = await add_user(mailing.db, digest=Digest.DAILY)
    told = await tasks.send_notification(mailing.runtime, str(waiting), "hello")
    assert (told["status"], box.taken) == ("queued", [])
    urgent = await tasks.send_notification(mailing.runtime, str(waiting), "fire", urgent=True)
    assert urgent["status"] == "sent"
    box.answers = ["451 later"]
    later = await tasks.send_email(mailing.runtime, "ops@example.net", "Hi", "there")
    assert (later["status"], later["error"]) == ("queued", "mail server: 451 later")
    await forward(mailing.db, 31)
    assert (await tasks.deliver_notifications(mailing.runtime))["sent"] == 1


async def test_what_is_refused_for_good_has_failed(mailing: Product, box: Mailbox) -> None:
    box.refused = {"gone@example.net": "550 no such user"}
    told = await tasks.send_email(mailing.runtime, "gone@example.net", "Hi", "there")
    assert (told["status"], told["error"]) == ("failed", "mail server: 550 no such user")
    user_id = await add_user(mailing.db, address="gone@example.net")
    assert (await tasks.send_notification(mailing.runtime, str(user_id), "hello"))["status"] == "failed"


async def test_without_a_mail_server_the_inbox_has_it_and_a_mail_has_failed(product: Product) -> None:
    user_id = await add_user(product.db)
    assert (await tasks.send_notification(product.runtime, str(user_id), "hello"))["status"] == "sent"
    told = await tasks.send_email(product.runtime, "ops@example.net", "Hi", "there")
    assert (told["status"], told["error"]) == ("failed", "email is not set up")
    assert await states(product.db) == ["skipped", "skipped"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"user_id": "nobody", "message": "m"}, "user_id"),
    ({"user_id": str(uuid4()), "message": "m"}, "no active user"),
    ({"user_id": str(uuid4())}, "either message or template"),
    ({"user_id": str(uuid4()), "message": " "}, "empty"),
    ({"user_id": str(uuid4()), "message": "m", "subject": "a\nb"}, "one line"),
    ({"user_id": str(uuid4()), "template": "message", "context": {}}, "undefined"),
    ({"user_id": str(uuid4()), "message": "m", "odd": 1}, "odd"),
]


async def test_arguments_that_cannot_be_are_a_lasting_failure(mailing: Product) -> None:
    for arguments, problem in WRONG:
        with pytest.raises(PermanentError, match=problem):
            await tasks.send_notification(mailing.runtime, **arguments)
    good = {"to": "a@b.example", "subject": "s", "body": "b"}
    for wrong in ({"to": "nobody"}, {"to": "a@b.example\nBcc: c@d.e"}, {"subject": "s\r\nBcc: x"}, {"body": ""}):
        with pytest.raises(PermanentError):
            await tasks.send_email(mailing.runtime, **{**good, **wrong})
    assert await every_notification(mailing.db) == []


async def test_the_sweep_sends_what_the_broker_lost(mailing: Product, box: Mailbox) -> None:
    mailing.sent.away = True
    user_id = await add_user(mailing.db)
    await _noted_through(mailing, user_id)
    assert box.taken == []
    assert await tasks.deliver_notifications(mailing.runtime) == {"digests": 0, "bulks_resumed": 0, "sent": 1}
    assert len(box.taken) == 1


async def _noted_through(product: Product, user_id: Any) -> None:
    async with product.db.transaction() as session:
        await service.notify(session, to_user_id=user_id, message="hello")


async def test_an_incident_is_told_once_by_every_way_there_is(
    mailing: Product, box: Mailbox, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "backend.jobs.tasks")
    alert_id = await add_alert(
        mailing.db, await add_schedule(mailing.db, await add_template(mailing.db), name="Nightly")
    )
    for _ in range(2):
        assert (await send_job_alert(mailing.runtime, alert_id=alert_id, event="opened"))["told"] is True
    assert len(mailing.sent.named("deliver_notification")) == 1
    await tasks.deliver_notifications(mailing.runtime)
    assert [mail["Subject"] for mail in box.taken] == ["Alert: Nightly is late"]
    assert [(body["event"], body["alert"]["schedule_name"]) for body in hook.bodies()] == [("opened", "Nightly")]
    await send_job_alert(mailing.runtime, alert_id=alert_id, event="resolved")
    await tasks.deliver_notifications(mailing.runtime)
    assert [mail["Subject"] for mail in box.taken][1:] == ["Resolved: Nightly"]


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
async def test_an_incident_reaches_an_apprise_target(start: Start, hook: Hook) -> None:
    url = hook.url.replace("http://", "json://")
    product = await start(NOTIFY_APPRISE_URLS=f"ops={url}", NOTIFY_ALERTS="apprise:ops")
    alert_id = await add_alert(
        product.db, await add_schedule(product.db, await add_template(product.db), name="Nightly\x1b" + "x" * 150)
    )
    told = await send_job_alert(product.runtime, alert_id=alert_id, event="opened")
    assert told["channels"] == ["apprise"]
    assert (await tasks.deliver_notifications(product.runtime))["sent"] == 1
    assert hook.bodies()[0]["title"].startswith("Alert: Nightly xxx")


async def test_a_bulk_without_a_row_is_a_lasting_failure(mailing: Product) -> None:
    with pytest.raises(PermanentError, match="no bulk e-mail"):
        await tasks.send_bulk_email(mailing.runtime, bulk_id=str(uuid4()))
