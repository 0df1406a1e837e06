"""Depth of queues, workers that answer, the health of the whole, and what is cleaned up."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from sqlalchemy import text
from sqlmodel import select

from backend.celery_app import QUEUE_LIMITS, app, beat_schedule, create_app
from backend.config import load
from backend.core.clock import utc_now
from backend.core.db import Base, Database
from backend.core.dead_letters import Kind
from backend.queues import brokers
from backend.queues import service as queues
from backend.queues.models import DeadLetter, HealthCheck, SentTask, WorkerHeartbeat
from backend.queues.states import LetterState
from devstack.readiness import free_port
from devstack.servers import PostgresServer, ValkeyServer
from tests.factories.jobs import add_run, add_schedule
from tests.fixtures.command import beatline
from tests.fixtures.product import Product, eventually
from tests.queues.conftest import running_worker

DAY = timedelta(days=1)


@pytest.fixture
def redis(valkey: ValkeyServer) -> Iterator[Celery]:
    app.control.purge()
    yield app
    app.control.purge()


async def add(db: Database, *rows: Base) -> None:
    async with db.transaction() as session:
        session.add_all(rows)


async def count(db: Database, table: str) -> int:
    async with db.transaction() as session:
        connection = await session.connection()
        return int((await connection.execute(text(f"select count(*) from {table}"))).scalar_one())


def send(celery: Celery, queue: str, times: int) -> None:
    for _ in range(times):
        celery.send_task("noop", queue=queue, ignore_result=True)


@pytest.mark.parametrize("broker", ["redis", "rabbit"])
async def test_the_depth_of_every_queue_is_told(db: Database, broker: str, request: pytest.FixtureRequest) -> None:
    celery: Celery = request.getfixturevalue(broker)
    send(celery, "default", 5)
    send(celery, "audio", 2)

    async def settled() -> Any:
        found = await queues.read_queues(db, app=celery)
        depths = {queue.name: queue.ready for queue in found.queues}
        return found if (depths["default"], depths["audio"], depths["scheduled"]) == (5, 2, 0) else None

    found: Any = await eventually(settled)
    assert (found.broker, found.broker_error) == ({"redis": "redis", "rabbit": "rabbitmq"}[broker], None)
    names = [queue.name for queue in found.queues]
    assert names == [*QUEUE_LIMITS, *(["dead_letters"] if broker == "rabbit" else [])]


async def test_messages_that_redis_has_handed_out_are_counted_by_queue(db: Database, redis: Celery) -> None:
    send(redis, "default", 3)
    with redis.connection_for_read() as connection:
        channel: Any = connection.default_channel
        taken = [channel.basic_get("default") for _ in range(2)]
        depths = await asyncio.to_thread(brokers.depths, redis, ["default", "audio"])
        assert (depths["default"].ready, depths["default"].unacknowledged) == (1, 2)
        assert depths["audio"].unacknowledged == 0
        for message in taken:
            channel.basic_ack(message.delivery_tag)


async def test_the_oldest_run_that_waits_is_named(product: Product, redis: Celery) -> None:
    old = utc_now() - timedelta(minutes=7)
    await add_run(product.db, state="pending", queue="audio", publish_after=old)
    await add_run(product.db, state="queued", queue="audio", publish_after=old + timedelta(minutes=1))
    await add_run(product.db, state="pending", queue="audio", publish_after=utc_now() + DAY)
    await add_run(product.db, state="running", queue="default", publish_after=old)
    read = (await product.client.get("/api/queues")).json()
    by_name = {queue["name"]: queue for queue in read["queues"]}
    assert by_name["audio"]["runs_waiting"] == 2
    assert by_name["audio"]["oldest_run_at"].startswith(old.isoformat()[:19])
    assert (by_name["default"]["runs_waiting"], by_name["default"]["oldest_run_at"]) == (0, None)


async def test_a_broker_that_is_away_leaves_its_numbers_out(db: Database) -> None:
    for environment in ({"REDIS_PORT": str(free_port())}, {"CELERY_BROKER": "rabbitmq", "CELERY_RABBITMQ_PORT": "9"}):
        found = await queues.read_queues(db, app=create_app(load(environment)))
        assert found.broker_error
        assert {queue.ready for queue in found.queues} == {None}


async def test_the_command_shows_the_queues(db: Database, postgres: PostgresServer, redis: Celery) -> None:
    send(redis, "low_priority", 4)
    await add_run(db, state="pending", queue="low_priority", publish_after=utc_now() - timedelta(seconds=90))
    shown = await beatline("queues", url=postgres.url)
    assert shown.exit_code == 0, shown.output
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("low_priority")]
    assert line.split()[:2] == ["low_priority", "4"]
    assert line.split()[-2] in {"90", "91", "92", "93"}


async def test_workers_that_answer_are_recorded_and_those_that_stop_are_missed(
    product: Product, postgres: PostgresServer, redis: Celery, tmp_path: Path
) -> None:
    with running_worker(tmp_path, name="heard", DATABASE_URL=postgres.url):
        assert await queues.check_workers(product.db) == {"active": ["heard@test"], "missing": []}
        (read,) = (await product.client.get("/api/workers")).json()
        assert (read["worker"], read["alive"], read["concurrency"]) == ("heard@test", True, 2)
        assert set(read["queues"]) == {"default", "high_priority", "low_priority", "scheduled"}
        found = (await product.client.get("/api/queues")).json()["queues"]
        assert {queue["name"]: queue["workers"] for queue in found} == dict.fromkeys(QUEUE_LIMITS, 1) | {"audio": 0}
        first = read["last_seen"]
        # The same as a task, sent as Beat's entry names it.
        redis.send_task("worker_health_check", ignore_result=True)

        async def heard_again() -> bool:
            (now,) = (await product.client.get("/api/workers")).json()
            return bool(now["last_seen"] > first and now["first_seen"] == read["first_seen"])

        await eventually(heard_again)
    assert await queues.check_workers(product.db) == {"active": [], "missing": ["heard@test"]}
    async with product.db.transaction() as session:
        row = (await session.exec(select(WorkerHeartbeat))).one()
        row.last_seen = utc_now() - timedelta(minutes=12)
        session.add(row)
    (read,) = (await product.client.get("/api/workers")).json()
    assert not read["alive"]


async def test_health_is_unknown_then_ok_then_stale(product: Product, redis: Celery) -> None:
    assert (await product.client.get("/api/health")).json()["status"] == "unknown"
    await add_schedule(product.db, last_run=utc_now() - timedelta(seconds=20))
    await queues.check_health(product.db)
    read = (await product.client.get("/api/health")).json()
    assert (read["status"], set(read["parts"])) == ("ok", {"database", "broker", "results", "beat"})
    assert all(part["ok"] for part in read["parts"].values())
    assert 20 <= read["parts"]["beat"]["seconds"] < 40
    async with product.db.transaction() as session:
        check = (await session.exec(select(HealthCheck))).one()
        check.at = utc_now() - timedelta(minutes=12)
        session.add(check)
    assert (await product.client.get("/api/health")).json()["status"] == "stale"


async def test_health_names_what_is_away(product: Product, valkey: ValkeyServer) -> None:
    away = create_app(load({"REDIS_PORT": str(free_port())}))
    parts = await queues.check_health(product.db, app=away)
    assert {name: part.ok for name, part in parts.items()} == {
        "database": True,
        "broker": False,
        "results": False,
        "beat": False,
    }
    assert parts["beat"].detail == "Beat has not made a run yet"
    read = (await product.client.get("/api/health")).json()
    assert (read["status"], read["parts"]["broker"]["ok"]) == ("degraded", False)


async def test_a_beat_that_stopped_is_found(db: Database, redis: Celery) -> None:
    await add_schedule(db, last_run=utc_now() - timedelta(minutes=4))
    assert not (await queues.check_health(db))["beat"].ok


async def test_a_database_that_is_away_is_found(redis: Celery) -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:9/none", pool_size=1)
    parts = await queues.check_health(nowhere)
    await nowhere.close()
    assert (parts["database"].ok, parts["broker"].ok, parts["beat"].ok) == (False, True, False)


def _letter(age: timedelta, state: str = LetterState.OPEN) -> DeadLetter:
    return DeadLetter(task="noop", task_id=str(uuid4()), kind=Kind.ERROR, state=state, last_seen=utc_now() - age)


def _sent(age: timedelta) -> SentTask:
    return SentTask(id=uuid4(), name="noop", queue="default", fingerprint="", expires_at=utc_now() - age)


async def test_old_rows_are_deleted_in_batches_and_young_ones_stay(
    db: Database, redis: Celery, product: Product
) -> None:
    await add(db, *(_letter(91 * DAY, LetterState.DISCARDED) for _ in range(5)), _letter(92 * DAY), _letter(89 * DAY))
    await add(db, *(_sent(8 * DAY) for _ in range(3)), _sent(-DAY), _sent(DAY))
    await add(db, *(WorkerHeartbeat(worker=f"w{n}", last_seen=utc_now() - n * DAY) for n in (0, 6, 8, 9)))
    await add(db, *(HealthCheck(healthy=True, at=utc_now() - n * DAY) for n in (0, 6, 8)))
    done = await queues.clean(db, product.config, app, batch=2)
    gone = {"dead_letters": 6, "open_letters": 1, "sent_tasks": 3, "worker_heartbeats": 2, "health_checks": 1}
    assert {name: number for name, number in done.items() if number} == gone
    left = [await count(db, table) for table in ("dead_letters", "sent_tasks", "worker_heartbeats", "health_checks")]
    assert left == [1, 2, 2, 2]
    assert set((await queues.clean(db, product.config, app, batch=2)).values()) == {0}


async def test_a_retention_of_no_days_keeps_dead_letters(db: Database, redis: Celery) -> None:
    await add(db, _letter(4000 * DAY))
    await queues.clean(db, load({"BEATLINE_DEAD_LETTER_RETENTION_DAYS": "0"}), app)
    assert await count(db, "dead_letters") == 1


def test_the_platforms_entries_are_due_as_stated() -> None:
    entries = beat_schedule(load({}))
    cleanup: Any = entries["cleanup-celery-data"]["schedule"]
    assert (cleanup.minute, cleanup.hour) == ({0}, {0, 6, 12, 18})
    workers: Any = entries["worker-health-check"]["schedule"]
    assert workers.minute == set(range(0, 60, 5))
    assert entries["health-check"]["schedule"] == 300.0
    caches: Any = entries["load-cache-schedules"]["schedule"]
    assert caches.minute == set(range(60))
    for name in (
        "cleanup-celery-data",
        "worker-health-check",
        "health-check",
        "drain-dead-letters",
        "load-cache-schedules",
    ):
        assert entries[name]["options"]["expires"] > 0
