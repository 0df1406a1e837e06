"""One e-mail to many: recipients are rows, the task carries an id, and a crash neither loses nor repeats what was recorded."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from backend.celery_app import app
from backend.core.delivery import Postponed
from backend.notifications import service, tasks
from devstack.servers import ValkeyServer
from tests.fixtures.product import Product
from tests.notifications.mail import DROP, HANG, Mailbox
from tests.notifications.outbox import deliveries, forward, states
from tests.notifications.outbox import notifications as every_notification
from tests.notifications.people import add_user

BULK = "/api/notifications/bulk"
LETTER = {"subject": "News", "message": "We have moved."}


@pytest.fixture(autouse=True)
def _empty(valkey: ValkeyServer) -> Iterator[None]:
    app.control.purge()
    yield
    app.control.purge()


def addresses(count: int) -> list[str]:
    return [f"reader{number}@example.net" for number in range(count)]


async def post(product: Product, **wish: Any) -> dict[str, Any]:
    answer = await product.client.post(BULK, json={**LETTER, **wish})
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/api/tasks/{answer.json()['task_id']}"
    accepted: dict[str, Any] = answer.json()
    return accepted


async def test_everybody_has_one_mail_over_one_connection(mailing: Product, box: Mailbox) -> None:
    accepted = await post(mailing, recipients=[*addresses(30), "READER1@example.net"])
    assert accepted["recipients"] == 30
    done = await tasks.send_bulk_email(mailing.runtime, bulk_id=accepted["bulk_id"])
    assert done == {"bulk_id": accepted["bulk_id"], "sent": 30, "failed": 0}
    assert sorted(address.lower() for address in box.addresses()) == sorted(addresses(30))
    assert box.connections == 1
    assert len(set(box.ids())) == 30
    assert {(mail["Subject"], mail["Precedence"]) for mail in box.taken} == {("News", "bulk")}
    read = (await mailing.client.get(f"{BULK}/{accepted['bulk_id']}")).json()
    assert [read[name] for name in ("recipients", "sent", "failed", "waiting")] == [30, 30, 0, 0]
    # A second delivery, and the sweep, find nothing to do.
    assert await tasks.send_bulk_email(mailing.runtime, bulk_id=accepted["bulk_id"]) == done
    await tasks.deliver_notifications(mailing.runtime)
    assert len(box.taken) == 30


async def test_users_of_a_role_who_want_mail_are_written_to(mailing: Product, box: Mailbox) -> None:
    await add_user(mailing.db, address="viewer@example.net")
    await add_user(mailing.db, address="operator@example.net", role="operator")
    await add_user(mailing.db, address="quiet@example.net", role="operator", email=False)
    await add_user(mailing.db, address="gone@example.net", role="operator", active=False)
    await add_user(mailing.db, address=None, role="operator")
    accepted = await post(mailing, roles=["operator"], recipients=["Operator@example.net", "else@example.net"])
    await tasks.send_bulk_email(mailing.runtime, bulk_id=accepted["bulk_id"])
    assert sorted(box.addresses()) == ["Operator@example.net", "else@example.net"]
    nobody = await mailing.client.post(BULK, json={**LETTER, "roles": ["admin"]})
    assert (nobody.status_code, nobody.json()["code"]) == (422, "no_recipients")


async def test_recipients_that_fail_do_not_hold_up_the_others(mailing: Product, box: Mailbox) -> None:
    box.refused = {"reader1@example.net": "550 no such user", "reader2@example.net": "450 later"}
    accepted = await post(mailing, recipients=addresses(5))
    with pytest.raises(Postponed, match="1 of 5 recipients are left") as put_off:
        await tasks.send_bulk_email(mailing.runtime, bulk_id=accepted["bulk_id"])
    assert 1 <= (put_off.value.after or 0) <= 30
    assert await states(mailing.db) == ["dead", "pending", "sent", "sent", "sent"]
    box.refused = {}
    await forward(mailing.db, 31)
    done = await tasks.send_bulk_email(mailing.runtime, bulk_id=accepted["bulk_id"])
    assert (done["sent"], done["failed"]) == (4, 1)
    assert sorted(box.addresses()) == ["reader0@example.net", *(f"reader{n}@example.net" for n in (2, 3, 4))]


async def test_after_a_crash_the_task_goes_on_with_what_is_left(mailing: Product, box: Mailbox) -> None:
    box.answers = ["250 ok"] * 5 + [HANG]
    accepted = await post(mailing, recipients=addresses(20))
    work = asyncio.create_task(tasks.send_bulk_email(mailing.runtime, bulk_id=accepted["bulk_id"]))
    while box.answers:
        await asyncio.sleep(0.005)
    # As a worker that is killed: nothing is recorded of the mail in hand.
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    recorded = {row.address for row in await deliveries(mailing.db) if row.state == "sent"}
    with pytest.raises(Postponed, match="1 of 20"):
        await tasks.send_bulk_email(mailing.runtime, bulk_id=accepted["bulk_id"])
    await forward(mailing.db, 121)
    done = await tasks.send_bulk_email(mailing.runtime, bulk_id=accepted["bulk_id"])
    assert (done["sent"], done["failed"]) == (20, 0)
    assert len(recorded) == 5
    assert sorted(box.addresses()) == sorted(addresses(20))


async def test_a_connection_that_is_lost_is_made_again(mailing: Product, box: Mailbox) -> None:
    box.answers = ["250 ok", DROP]
    accepted = await post(mailing, recipients=addresses(4))
    with pytest.raises(Postponed):
        await tasks.send_bulk_email(mailing.runtime, bulk_id=accepted["bulk_id"])
    assert box.connections == 2
    assert await states(mailing.db) == ["pending", "sent", "sent", "sent"]


async def test_two_workers_at_once_share_the_work(mailing: Product, box: Mailbox) -> None:
    accepted = await post(mailing, recipients=addresses(30))
    both = (tasks.send_bulk_email(mailing.runtime, bulk_id=accepted["bulk_id"]) for _ in range(2))
    await asyncio.gather(*both, return_exceptions=True)
    done = await tasks.send_bulk_email(mailing.runtime, bulk_id=accepted["bulk_id"])
    assert done["sent"] == len(box.taken) == len(set(box.addresses())) == 30


async def test_a_key_writes_and_sends_one_bulk(mailing: Product) -> None:
    headers = {"Idempotency-Key": "news-1"}
    wish = {**LETTER, "recipients": addresses(3)}
    answers = [await mailing.client.post(BULK, json=wish, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 200, 200]
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert len(await every_notification(mailing.db)) == 1
    other = await mailing.client.post(BULK, json={**wish, "subject": "Old"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key")


async def test_a_bulk_whose_message_was_lost_is_sent_by_the_sweep_and_one_that_was_never_accepted_is_not(
    mailing: Product,
) -> None:
    accepted = await post(mailing, recipients=addresses(2))
    never = await post(mailing, recipients=addresses(2))
    async with mailing.db.transaction() as session:
        connection = await session.connection()
        await connection.execute(text("update notifications set accepted_at = now() - interval '20 minutes'"))
        await connection.execute(
            text("update notifications set accepted_at = null where id = :id"), {"id": UUID(never["bulk_id"])}
        )
    await forward(mailing.db, 1200)
    assert (await tasks.deliver_notifications(mailing.runtime))["bulks_resumed"] == 1
    assert (await tasks.deliver_notifications(mailing.runtime))["bulks_resumed"] == 0
    assert mailing.sent.named("send_bulk_email") == [{"bulk_id": accepted["bulk_id"]}]


async def test_a_dead_recipient_that_is_tried_again_sends_the_bulk(mailing: Product, box: Mailbox) -> None:
    box.refused = {"reader0@example.net": "550 no such user"}
    accepted = await post(mailing, recipients=addresses(1))
    assert (await tasks.send_bulk_email(mailing.runtime, bulk_id=accepted["bulk_id"]))["failed"] == 1
    (row,) = await deliveries(mailing.db)
    async with mailing.db.transaction() as session:
        await service.retry(session, row.id)
    assert mailing.sent.named("send_bulk_email") == [{"bulk_id": accepted["bulk_id"]}]
    box.refused = {}
    assert (await tasks.send_bulk_email(mailing.runtime, bulk_id=accepted["bulk_id"]))["sent"] == 1


async def test_a_bulk_that_cannot_be_is_refused(mailing: Product) -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"recipients": []},
        {"recipients": ["nobody"]},
        {"recipients": ["a@b.example\nBcc: x@y.example"]},
        {"recipients": ["a@b.example"], "subject": "a\nb"},
        {"recipients": ["a@b.example"], "template": "message"},
        {"recipients": ["a@b.example"], "roles": ["owner"]},
        {"recipients": ["a@b.example"], "odd": 1},
        {"recipients": ["a@b.example"] * 10_001},
    ]
    for wish in wrong:
        answer = await mailing.client.post(BULK, json={**LETTER, **wish})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), wish
    assert await every_notification(mailing.db) == []


async def test_a_bulk_by_template(mailing: Product, box: Mailbox) -> None:
    wish = {"template": "announcement", "context": {"title": "Moved", "text": "Yes"}, "recipients": addresses(1)}
    answer = await mailing.client.post(BULK, json=wish)
    await tasks.send_bulk_email(mailing.runtime, bulk_id=answer.json()["bulk_id"])
    assert box.taken[0]["Subject"] == "Moved"
    for context, status in (({"title": "Moved"}, 422), ({"title": "a\nb", "text": "x"}, 422)):
        assert (await mailing.client.post(BULK, json={**wish, "context": context})).status_code == status
    assert (await mailing.client.post(BULK, json={**wish, "template": "digest"})).status_code == 422
    assert (await mailing.client.get(f"{BULK}/{uuid4()}")).status_code == 404
