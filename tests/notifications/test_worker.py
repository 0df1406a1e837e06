"""Through the door: a request, a worker of its own, a mail."""

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend.celery_app import app
from backend.core.delivery import Postponed
from backend.notifications import tasks
from devstack.readiness import free_port
from devstack.servers import PostgresServer, ValkeyServer
from tests.fixtures.product import Product, eventually
from tests.notifications.mail import HANG, Mailbox, running_mailbox
from tests.notifications.outbox import forward, states
from tests.notifications.people import add_user, signed_in
from tests.queues.conftest import running_worker


@pytest.fixture(scope="module")
def mail_port() -> int:
    return free_port()


@pytest.fixture
async def box(mail_port: int) -> AsyncIterator[Mailbox]:
    """Where the worker looks for it."""
    async with running_mailbox(port=mail_port) as running:
        yield running


@pytest.fixture(scope="module")
def worker(
    valkey: ValkeyServer, postgres: PostgresServer, mail_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    app.control.purge()
    with running_worker(
        tmp_path_factory.mktemp("worker"),
        name="notifications",
        DATABASE_URL=postgres.url,
        SMTP_HOST="127.0.0.1",
        SMTP_PORT=str(mail_port),
        SMTP_TLS="off",
        NOTIFY_FROM="beatline@example.net",
        NOTIFY_BULK_PER_SECOND="10",
    ) as log:
        yield log
    app.control.purge()


async def ended(product: Product, location: str, seen: list[Any] | None = None) -> Any:
    async def look() -> Any:
        read = (await product.client.get(location)).json()
        if seen is not None and read["progress"]:
            seen.append((read["progress"]["done"], read["progress"]["total"]))
        return read if read["state"] in {"SUCCESS", "FAILURE"} else None

    return await eventually(look, within=40)


async def test_a_worker_that_is_killed_in_a_bulk_loses_nothing_and_repeats_nothing_recorded(
    mailing: Product, worker: Path, box: Mailbox
) -> None:
    box.answers = ["250 ok", "250 ok", HANG]
    readers = [f"reader{number}@example.net" for number in range(8)]
    wish = {"subject": "News", "message": "We have moved.", "recipients": readers}
    accepted = await mailing.client.post("/api/notifications/bulk", json=wish)

    async def hangs() -> bool:
        return not box.answers

    await eventually(hangs)
    for child in worker_children():
        child.kill()

    async def all_but_one() -> bool:
        return await states(mailing.db) == ["pending"] + ["sent"] * 7

    # The message comes back and the new process goes on; the mail in hand is left to the end of its lease.
    await eventually(all_but_one, within=30)
    await forward(mailing.db, 121)
    # The worker may take it before we do.
    with suppress(Postponed):
        await tasks.send_bulk_email(mailing.runtime, bulk_id=accepted.json()["bulk_id"])

    async def all_of_them() -> bool:
        return await states(mailing.db) == ["sent"] * 8

    await eventually(all_of_them)
    assert sorted(box.addresses()) == readers


def worker_children() -> list[psutil.Process]:
    """The processes of the worker's pool."""
    return [
        child
        for process in psutil.Process().children()
        if "notifications@test" in process.cmdline()
        for child in process.children()
    ]


async def test_requests_become_mails(mailing: Product, worker: Path, box: Mailbox) -> None:
    user_id = await add_user(mailing.db, address="asha@example.net")
    accepted = await mailing.client.post("/api/notify", json={"user_id": str(user_id), "message": "hello"})
    told = await ended(mailing, accepted.headers["Location"])
    assert (told["state"], told["result"]["status"], told["result"]["user_id"]) == ("SUCCESS", "sent", str(user_id))
    async with await signed_in(mailing, user_id) as asha:
        assert [one["text"] for one in (await asha.get("/api/notifications")).json()["items"]] == ["hello"]
    wish = {"to": "ops@example.net", "subject": "Hi", "body": "there"}
    accepted = await mailing.client.post("/api/tasks/send_email", json=wish)
    assert (await ended(mailing, accepted.headers["Location"]))["result"]["status"] == "sent"
    assert box.addresses() == ["asha@example.net", "ops@example.net"]
    readers = [f"reader{number}@example.net" for number in range(15)]
    bulk = {"subject": "News", "message": "We have moved.", "recipients": readers}
    accepted = await mailing.client.post("/api/notifications/bulk", json=bulk)
    seen: list[tuple[int, int]] = []
    done = await ended(mailing, accepted.headers["Location"], seen)
    assert done["result"] == {"bulk_id": accepted.json()["bulk_id"], "sent": 15, "failed": 0}
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {15}
    assert len({step for step, _ in seen}) > 1
    assert sorted(box.addresses()[2:]) == sorted(readers)
