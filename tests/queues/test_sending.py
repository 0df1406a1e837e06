"""What is sent, looked at in queues that no worker reads."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import select

from backend.celery_app import app, create_app
from backend.config import load
from backend.core.db import Database
from backend.core.errors import Unavailable
from backend.core.messages import send_wanted
from backend.queues import service as queues
from backend.queues.models import SentTask
from devstack.readiness import free_port
from devstack.servers import PostgresServer, ValkeyServer
from tests.fixtures.product import Product

TASKS = "/api/tasks"
DAY = 86_400


@pytest.fixture(autouse=True)
def _empty(valkey: ValkeyServer) -> Iterator[None]:
    app.control.purge()
    yield
    app.control.purge()


def waiting(queue: str) -> int:
    with app.connection_for_read() as connection:
        length: int = connection.default_channel.client.llen(queue)  # type: ignore[attr-defined]  # of Redis alone
    return length


async def rows(db: Database) -> list[SentTask]:
    async with db.transaction() as session:
        return list((await session.exec(select(SentTask))).all())


async def test_a_key_sends_one_task(product: Product, valkey: ValkeyServer) -> None:
    headers = {"Idempotency-Key": "k-1"}
    answers = await asyncio.gather(*(product.client.post(f"{TASKS}/noop", json={}, headers=headers) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len({answer.headers["Location"] for answer in answers}) == 1
    assert waiting("default") == 1
    for name, body in (("noop", {"note": "x"}), ("sleep", {})):
        other = await product.client.post(f"{TASKS}/{name}", json=body, headers=headers)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key")
    assert (await product.client.post(f"{TASKS}/noop", headers={"Idempotency-Key": "a b"})).status_code == 422


async def test_a_broker_that_is_away_is_said_and_the_key_can_be_used_again(
    db: Database, postgres: PostgresServer, valkey: ValkeyServer
) -> None:
    away = create_app(load({"REDIS_PORT": str(free_port())}))
    for key in (None, "k-1"):
        with pytest.raises(Unavailable):
            await queues.send(db, "noop", {}, expires=DAY, idempotency_key=key, app=away)
    (left,) = await rows(db)
    sent = await queues.send(db, "noop", {}, expires=DAY, idempotency_key="k-1")
    assert (sent.task.id, sent.replayed) == (left.id, False)
    again = await queues.send(db, "noop", {}, expires=DAY, idempotency_key="k-1")
    assert (again.task.id, again.replayed) == (left.id, True)
    assert waiting("default") == 1


async def test_a_producer_does_not_listen_for_results(valkey: ValkeyServer) -> None:
    store: Any = app.backend

    def subscriptions() -> int:
        return int(store.client.info("commandstats").get("cmdstat_subscribe", {}).get("calls", 0))

    before = subscriptions()
    for _ in range(3):
        send_wanted(app, "noop", {}, task_id=uuid4(), expires=DAY)
    assert waiting("default") == 3
    assert subscriptions() == before
