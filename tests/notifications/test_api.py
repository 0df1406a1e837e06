"""HTTP of notifications: one's own, the operators', the admins', and nobody else's."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from backend.celery_app import app
from backend.notifications import service as notifications
from backend.notifications import tasks
from devstack.servers import ValkeyServer
from tests.fixtures.product import Product
from tests.notifications.mail import Mailbox
from tests.notifications.outbox import deliveries
from tests.notifications.people import add_user, signed_in
from tests.notifications.receiver import Hook, verified
from tests.notifications.test_webhook import SECRET

INBOX = "/api/notifications"
PREFERENCES = "/api/notifications/preferences"


@pytest.fixture(autouse=True)
def _empty(valkey: ValkeyServer) -> Iterator[None]:
    app.control.purge()
    yield
    app.control.purge()


class People:
    """Signed-in users, by name."""

    def __init__(self, product: Product, stack: AsyncExitStack) -> None:
        self._product, self._stack = product, stack
        self.ids: dict[str, UUID] = {}

    async def add(self, name: str, role: str = "viewer") -> httpx.AsyncClient:
        self.ids[name] = await add_user(self._product.db, role=role)
        return await self._stack.enter_async_context(await signed_in(self._product, self.ids[name]))


@pytest.fixture
async def people(mailing: Product) -> AsyncIterator[People]:
    async with AsyncExitStack() as stack:
        yield People(mailing, stack)


async def note(product: Product, user_id: UUID, message: str, **more: Any) -> UUID:
    async with product.db.transaction() as session:
        return (await notifications.notify(session, to_user_id=user_id, message=message, **more)).id


async def test_a_notification_is_a_task_at_once(mailing: Product, people: People) -> None:
    await people.add("asha")
    operator = await people.add("omar", "operator")
    wish = {"user_id": str(people.ids["asha"]), "message": "hello"}
    headers = {"Idempotency-Key": "n-1"}
    answers = [await operator.post("/api/notify", json=wish, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 200]
    assert answers[0].json() == answers[1].json() == {"task_id": answers[0].headers["Location"].rpartition("/")[2]}
    task = (await operator.get(answers[0].headers["Location"])).json()
    assert (task["name"], task["queue"], task["state"]) == ("send_notification", "high_priority", "PENDING")
    other = await operator.post("/api/notify", json={**wish, "message": "bye"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key")


REFUSED: list[tuple[dict[str, Any], int]] = [
    ({}, 422),
    ({"message": None}, 422),
    ({"message": "  "}, 422),
    ({"message": "m", "user_id": "nobody"}, 422),
    ({"message": "m", "user_id": str(uuid4())}, 404),
    ({"message": "m", "subject": "a\r\nBcc: x@y.example"}, 422),
    ({"message": "\u0000"}, 422),
    ({"message": "m" * 20_001}, 422),
    ({"message": "m", "channels": []}, 422),
    ({"message": "m", "channels": ["fax"]}, 422),
    ({"message": "m", "odd": 1}, 422),
    ({"message": "m", "template": "message"}, 422),
    ({"template": "message", "context": {"subject": "s"}}, 422),
    ({"template": "digest", "context": {}}, 422),
    ({"template": "../layout", "context": {}}, 404),
]


async def test_a_notification_that_cannot_be_is_refused(mailing: Product, people: People) -> None:
    await people.add("asha")
    for wish, status in REFUSED:
        body = {"user_id": str(people.ids["asha"]), **wish}
        answer = await mailing.client.post("/api/notify", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), wish
        # By its name the task is refused alike; that there is nobody of that id is found by the task.
        unknown = "user_id" in wish and status == 404
        by_name = await mailing.client.post("/api/tasks/send_notification", json=body)
        assert by_name.status_code == (202 if unknown else 422), wish


async def test_both_tasks_are_on_offer_with_their_parameters(mailing: Product) -> None:
    offers = {one["name"]: one["parameters"]["properties"] for one in (await mailing.client.get("/api/tasks")).json()}
    assert set(offers["send_email"]) == {"to", "subject", "body"}
    assert {"user_id", "message", "subject", "template", "context", "channels", "urgent"} == set(
        offers["send_notification"]
    )
    wish = {"to": "ops@example.net", "subject": "Hi", "body": "there"}
    assert (await mailing.client.post("/api/tasks/send_email", json=wish)).status_code == 202
    for wrong in ({"to": "ops"}, {"subject": "a\nb"}, {"body": ""}, {"cc": "x@y.example"}):
        assert (await mailing.client.post("/api/tasks/send_email", json={**wish, **wrong})).status_code == 422
    # Bulk e-mail needs its rows: it has a way of its own.
    assert (await mailing.client.post("/api/tasks/send_bulk_email", json={})).status_code == 404


async def test_the_inbox_is_its_owners(mailing: Product, people: People) -> None:
    asha, admin = await people.add("asha"), await people.add("ada", "admin")
    stranger = await people.add("sam", "operator")
    first, second = [await note(mailing, people.ids["asha"], text) for text in ("first", "second")]
    await note(mailing, people.ids["sam"], "for sam")
    page = (await asha.get(INBOX, params={"limit": 1})).json()
    assert [one["text"] for one in page["items"]] == ["second"]
    rest = (await asha.get(INBOX, params={"limit": 1, "cursor": page["next_cursor"]})).json()
    assert ([one["text"] for one in rest["items"]], rest["next_cursor"]) == (["first"], None)
    assert [one["text"] for one in (await stranger.get(INBOX)).json()["items"]] == ["for sam"]
    for client in (stranger, mailing.client):
        assert (await client.get(f"{INBOX}/{first}")).status_code == 404
    assert (await stranger.post(f"{INBOX}/{first}/read")).status_code == 404
    assert (await mailing.client.get(INBOX)).status_code == 403
    for client in (asha, admin):
        detail = (await client.get(f"{INBOX}/{first}")).json()
        assert (detail["text"], [one["channel"] for one in detail["deliveries"]]) == ("first", ["email"])
    assert (await asha.get(f"{INBOX}/{uuid4()}")).status_code == 404
    assert (await asha.get(INBOX, params={"cursor": "x"})).status_code == 422
    assert second != first


async def test_what_was_read_is_read(mailing: Product, people: People) -> None:
    asha = await people.add("asha")
    ids = [await note(mailing, people.ids["asha"], f"number {number}") for number in range(3)]
    once = (await asha.post(f"{INBOX}/{ids[0]}/read")).json()
    assert once["read_at"] is not None
    assert (await asha.post(f"{INBOX}/{ids[0]}/read")).json()["read_at"] == once["read_at"]
    assert len((await asha.get(INBOX, params={"unread": True})).json()["items"]) == 2
    assert (await asha.post(f"{INBOX}/read")).json() == {"read": 2}
    assert (await asha.post(f"{INBOX}/read")).json() == {"read": 0}


async def test_preferences_are_their_owners(mailing: Product, people: People) -> None:
    asha, sam = await people.add("asha"), await people.add("sam", "admin")
    default = (await asha.get(PREFERENCES)).json()
    assert {name: default[name] for name in ("email", "webhook", "digest", "timezone", "quiet_start")} == {
        "email": True,
        "webhook": False,
        "digest": "off",
        "timezone": "Asia/Kolkata",
        "quiet_start": None,
    }
    wish = {"digest": "daily", "digest_at": "08:30", "quiet_start": "22:00", "quiet_end": "07:00", "timezone": "UTC"}
    saved = await asha.put(PREFERENCES, json=wish)
    assert saved.status_code == 200, saved.text
    assert {name: saved.json()[name] for name in wish} == wish
    assert (await asha.get(PREFERENCES)).json() == saved.json()
    # What is left out has its default again.
    assert (await asha.put(PREFERENCES, json={"email": False})).json()["quiet_start"] is None
    assert (await sam.get(PREFERENCES)).json()["email"] is True
    assert (await mailing.client.get(PREFERENCES)).status_code == 403


async def test_preferences_that_cannot_be_are_refused(people: People) -> None:
    asha = await people.add("asha")
    wrong: list[dict[str, Any]] = [
        {"quiet_start": "22:00"},
        {"quiet_start": "22:00", "quiet_end": "22:00"},
        {"quiet_start": "25:00", "quiet_end": "07:00"},
        {"quiet_start": "22:00:30", "quiet_end": "07:00"},
        {"quiet_start": 22, "quiet_end": 7},
        {"digest_at": "9"},
        {"digest_at": "09:00+02:00"},
        {"digest": "weekly"},
        {"timezone": "Europe/Bonn"},
        {"webhook": True},
        {"webhook": True, "webhook_url": "ftp://example.net"},
        {"webhook": True, "webhook_url": "https://user:password@example.net"},
        {"webhook": True, "webhook_url": "https://example.net/a b"},
        {"webhook": True, "webhook_url": "https://[::1"},
        {"odd": 1},
    ]
    for wish in wrong:
        answer = await asha.put(PREFERENCES, json=wish)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), wish


async def test_a_users_webhook_is_signed_with_the_secret_that_the_user_sees(
    mailing: Product, people: People, hook: Hook
) -> None:
    asha, sam = await people.add("asha"), await people.add("sam")
    saved = (await asha.put(PREFERENCES, json={"email": False, "webhook": True, "webhook_url": hook.url})).json()
    assert (await sam.get(PREFERENCES)).json()["webhook_secret"] != saved["webhook_secret"]
    await tasks.send_notification(mailing.runtime, str(people.ids["asha"]), "hello")
    headers, body = hook.seen[0]
    assert verified(headers, body, saved["webhook_secret"])


async def test_a_private_webhook_is_refused_where_that_is_not_allowed_and_any_without_a_secret(
    start: Any, box: Mailbox
) -> None:
    product = await start(NOTIFY_WEBHOOK_SECRET=SECRET)
    bare = await start()
    user_id = await add_user(product.db)
    async with await signed_in(product, user_id) as asha, await signed_in(bare, user_id) as elsewhere:
        for url in ("http://127.0.0.1/", "http://[::1]:8000/", "http://169.254.169.254/latest"):
            answer = await asha.put(PREFERENCES, json={"webhook": True, "webhook_url": url})
            assert answer.status_code == 422
            assert "NOTIFY_WEBHOOK_ALLOW_PRIVATE" in answer.json()["detail"]
        public = {"webhook": True, "webhook_url": "https://hooks.example.net/x"}
        assert (await asha.put(PREFERENCES, json=public)).status_code == 200
        assert "NOTIFY_WEBHOOK_SECRET" in (await elsewhere.put(PREFERENCES, json=public)).json()["detail"]


async def test_templates_can_be_seen_and_tried(mailing: Product, people: People) -> None:
    viewer = await people.add("asha")
    found = {one["name"]: one for one in (await viewer.get(f"{INBOX}/templates")).json()}
    assert found["message"]["variables"] == ["message", "subject"]
    assert (found["message"]["sendable"], found["digest"]["sendable"]) == (True, False)
    wish = {"template": "message", "context": {"subject": "Hi", "message": "<b>"}}
    shown = await mailing.client.post(f"{INBOX}/preview", json=wish)
    assert (shown.json()["subject"], shown.json()["text"]) == ("Hi", "<b>")
    assert "&lt;b&gt;" in shown.json()["html"]
    for wrong, status in (
        ({"template": "none"}, 404),
        ({"context": {}}, 422),
        ({"context": {"x": 1}}, 422),
        ({"x": 1}, 422),
    ):
        assert (await mailing.client.post(f"{INBOX}/preview", json={**wish, **wrong})).status_code == status
    assert (await viewer.post(f"{INBOX}/preview", json=wish)).status_code == 403


async def test_the_outbox_is_the_admins(mailing: Product, people: People, box: Mailbox) -> None:
    asha, admin = await people.add("asha"), await people.add("ada", "admin")
    operator = await people.add("omar", "operator")
    box.answers = ["550 spam"]
    note_id = await note(mailing, people.ids["asha"], "hello")
    await tasks.deliver_notifications(mailing.runtime)
    await note(mailing, people.ids["asha"], "again")
    outbox = f"{INBOX}/deliveries"
    (dead,) = (await admin.get(outbox, params={"state": "dead", "channel": "email"})).json()["items"]
    assert (dead["notification_id"], dead["last_error"]) == (str(note_id), "mail server: 550 spam")
    assert len((await admin.get(outbox)).json()["items"]) == 2
    assert (await admin.get(outbox, params={"notification_id": str(uuid4())})).json()["items"] == []
    for client in (asha, operator, mailing.client):
        assert (await client.get(outbox)).status_code == 403
        assert (await client.post(f"{outbox}/{dead['id']}/retry")).status_code == 403
    assert (await admin.get(outbox, params={"state": "lost"})).status_code == 422
    retried = await admin.post(f"{outbox}/{dead['id']}/retry")
    assert (retried.status_code, retried.json()["state"]) == (202, "pending")
    assert (await admin.post(f"{outbox}/{dead['id']}/retry")).json()["code"] == "not_ended"
    assert (await admin.post(f"{outbox}/{uuid4()}/retry")).status_code == 404
    await tasks.deliver_notifications(mailing.runtime)
    assert {row.state for row in await deliveries(mailing.db)} == {"sent"}


async def test_viewers_tell_nobody_and_strangers_see_nothing(mailing: Product, people: People) -> None:
    viewer = await people.add("asha")
    wish = {"user_id": str(people.ids["asha"]), "message": "hello"}
    assert (await viewer.post("/api/notify", json=wish)).status_code == 403
    bulk = {"subject": "s", "message": "m", "recipients": ["a@b.example"]}
    assert (await viewer.post(f"{INBOX}/bulk", json=bulk)).status_code == 403
    async with httpx.AsyncClient(base_url=mailing.config.api_url, verify=False) as stranger:
        for method, path in (
            ("POST", "/api/notify"),
            ("GET", INBOX),
            ("GET", PREFERENCES),
            ("PUT", PREFERENCES),
            ("GET", f"{INBOX}/templates"),
            ("POST", f"{INBOX}/preview"),
            ("POST", f"{INBOX}/bulk"),
            ("GET", f"{INBOX}/deliveries"),
            ("GET", f"{INBOX}/{uuid4()}"),
        ):
            assert (await stranger.request(method, path)).status_code == 401
