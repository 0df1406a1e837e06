"""RabbitMQ's dead-letter exchange: what lands there becomes a dead letter, once."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from sqlmodel import select

from backend.celery_app import create_app
from backend.config import load
from backend.core.db import Database
from backend.core.dead_letter_exchange import QUEUE
from backend.core.errors import TransientError
from backend.core.messages import send_again
from backend.queues import brokers
from backend.queues import service as queues
from backend.queues.models import DeadLetter
from backend.scheduling.publisher import Message, Publisher
from devstack.rabbitmq import RabbitServer
from devstack.readiness import free_port
from devstack.servers import PostgresServer, ValkeyServer
from tests.fixtures.product import eventually
from tests.queues.conftest import publish_malformed, running_worker


async def letters(db: Database) -> list[DeadLetter]:
    async with db.transaction() as session:
        return list((await session.exec(select(DeadLetter).order_by(DeadLetter.task))).all())


def refuse_all(app: Celery, queue: str = "default") -> int:
    """Take every message of a queue as a worker would, and refuse it; how many."""
    refused = 0
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        while (message := channel.basic_get(queue)) is not None:
            channel.basic_reject(message.delivery_info["delivery_tag"], requeue=False)
            refused += 1
    return refused


async def dead(app: Celery, count: int) -> None:
    """Until so many messages lie in the queue of dead letters."""

    async def arrived() -> bool:
        found = await asyncio.to_thread(brokers.depths, app, [])
        return found[QUEUE].ready == count

    await eventually(arrived)


def publish_raw(app: Celery, body: bytes, **headers: Any) -> None:
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.basic_publish(channel.prepare_message(body, 0, "application/json", "utf-8", headers), "", "default")


async def test_a_refused_message_becomes_a_dead_letter(db: Database, rabbit: Celery) -> None:
    task_id = rabbit.send_task("noop", args=[1], kwargs={"note": "x", "token": "abcdefgh"}, ignore_result=True).id
    assert refuse_all(rabbit) == 1
    await dead(rabbit, 1)
    assert await queues.drain(db, rabbit, limit=100) == {"stored": 1, "runs": 0}
    (found,) = await letters(db)
    assert (found.task, found.task_id, found.queue, found.kind) == ("noop", task_id, "default", "rejected")
    assert found.arguments == {"args": [1], "kwargs": {"note": "x", "token": "[redacted]"}}
    assert found.error == "RabbitMQ: rejected by a worker in queue default"
    assert await queues.drain(db, rabbit, limit=100) == {"stored": 0, "runs": 0}


async def test_a_message_that_was_delivered_too_often_says_so(db: Database, rabbit: Celery) -> None:
    rabbit.send_task("noop", ignore_result=True)
    with rabbit.connection_for_read() as connection:
        channel: Any = connection.default_channel
        for _ in range(30):
            if (message := channel.basic_get("default")) is not None:
                # As a worker that dies with it.
                channel.basic_reject(message.delivery_info["delivery_tag"], requeue=True)
    await dead(rabbit, 1)
    await queues.drain(db, rabbit, limit=10)
    assert [one.error for one in await letters(db)] == ["RabbitMQ: delivered too often in queue default"]


async def test_malformed_bodies_are_kept_as_text_and_the_same_ones_together(db: Database, rabbit: Celery) -> None:
    publish_raw(rabbit, b"\xffno json", odd="header")
    publish_raw(rabbit, b"[1, 2]", task="noop", id=str(uuid4()))
    publish_raw(rabbit, json.dumps([[], {}, {}]).encode(), task="noop")
    assert refuse_all(rabbit) == 3
    await dead(rabbit, 3)
    assert (await queues.drain(db, rabbit, limit=100))["stored"] == 3
    found = await letters(db)
    assert {one.kind for one in found} == {"malformed"}
    assert {one.incomplete for one in found} == {"malformed"}
    assert any("no json" in str(one.arguments) and "odd" in str(one.arguments) for one in found)


async def test_a_tracked_runs_message_is_only_acknowledged(db: Database, rabbit: Celery) -> None:
    publisher = Publisher(rabbit)
    await asyncio.to_thread(publisher.publish, [Message(uuid4(), "noop", "default")])
    publisher.close()
    assert refuse_all(rabbit) == 1
    await dead(rabbit, 1)
    assert await queues.drain(db, rabbit, limit=100) == {"stored": 0, "runs": 1}
    assert await letters(db) == []
    await dead(rabbit, 0)


async def test_a_message_that_is_told_of_twice_counts_once(db: Database, rabbit: Celery) -> None:
    rabbit.send_task("noop", ignore_result=True)
    refuse_all(rabbit)
    await dead(rabbit, 1)
    with rabbit.connection_for_read() as connection:
        channel: Any = connection.default_channel
        message = channel.basic_get(QUEUE)
        await queues.drain(db, rabbit, limit=1)
        assert await letters(db) == []
        # As after a crash between commit and acknowledgement: it is given out again.
        copy = (message.body, dict(message.headers), message.properties["content_type"])
        channel.basic_reject(message.delivery_info["delivery_tag"], requeue=True)
        await eventually(lambda: _drained(db, rabbit))
        channel.basic_publish(channel.prepare_message(copy[0], 0, copy[2], "utf-8", copy[1]), "", QUEUE)
    await dead(rabbit, 1)
    assert (await queues.drain(db, rabbit, limit=10))["stored"] == 1
    assert [one.count for one in await letters(db)] == [1]


async def _drained(db: Database, app: Celery) -> bool:
    return (await queues.drain(db, app, limit=1))["stored"] == 1


async def test_a_letter_that_was_sent_again_and_is_refused_again_is_the_same(db: Database, rabbit: Celery) -> None:
    rabbit.send_task("noop", ignore_result=True)
    refuse_all(rabbit)
    await dead(rabbit, 1)
    await queues.drain(db, rabbit, limit=10)
    (first,) = await letters(db)
    async with db.transaction() as session:
        again = await queues.requeue(session, first.id, actor="test", app=rabbit)
    assert again.state == "requeued"
    assert refuse_all(rabbit) == 1
    await dead(rabbit, 1)
    await queues.drain(db, rabbit, limit=10)
    assert [(one.id, one.count, one.state) for one in await letters(db)] == [(first.id, 2, "open")]


async def test_a_forged_letter_id_does_no_harm(db: Database, rabbit: Celery) -> None:
    send_again(rabbit, "noop", [], {}, task_id=str(uuid4()), queue="default", letter=uuid4())
    refuse_all(rabbit)
    await dead(rabbit, 1)
    await queues.drain(db, rabbit, limit=10)
    assert [one.count for one in await letters(db)] == [1]


async def test_a_worker_declares_the_exchange_and_drains_what_it_refuses(
    db: Database, rabbit: Celery, rabbitmq: RabbitServer, postgres: PostgresServer, valkey: ValkeyServer, tmp_path: Any
) -> None:
    with rabbit.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.queue_delete(QUEUE)
        channel.exchange_delete("beatline.dlx")
    environment = {
        "CELERY_BROKER": "rabbitmq",
        "CELERY_RABBITMQ_PORT": str(rabbitmq.port),
        "DATABASE_URL": postgres.url,
    }
    with running_worker(tmp_path, name="rabbit", **environment):
        task_id = rabbit.send_task("no_such_task", kwargs={"a": 1}, queue="default", ignore_result=True).id
        await dead(rabbit, 1)
        rabbit.send_task("drain_dead_letters", ignore_result=True)

        async def stored() -> list[DeadLetter]:
            return await letters(db)

        await eventually(stored)
        # A retry comes back through the broker's delays, under another routing key.
        rabbit.send_task("end_exhausted", kwargs={"order": 1}, queue="default", ignore_result=True)

        async def both() -> bool:
            return len(await letters(db)) == 2

        await eventually(both)
        await asyncio.to_thread(publish_malformed, rabbit)
        await dead(rabbit, 5)
        assert (await queues.drain(db, rabbit, limit=10))["stored"] == 5
    found = await letters(db)
    assert [one.kind for one in found].count("malformed") == 5
    exhausted, refused = [one for one in found if one.kind != "malformed"]
    assert (refused.task, refused.task_id, refused.kind) == ("no_such_task", task_id, "rejected")
    assert (exhausted.task, exhausted.queue, exhausted.retries) == ("end_exhausted", "default", 1)


async def test_redis_has_nothing_to_drain(db: Database) -> None:
    app = create_app(load({"REDIS_PORT": str(free_port())}))
    assert await queues.drain(db, app, limit=10) == {"stored": 0, "runs": 0}


async def test_a_broker_that_is_away_is_a_passing_fault(db: Database) -> None:
    app = create_app(load({"CELERY_BROKER": "rabbitmq", "CELERY_RABBITMQ_PORT": str(free_port())}))
    with pytest.raises(TransientError):
        await queues.drain(db, app, limit=10)
