"""The loop on a real PostgreSQL and a real Valkey, and with either of them away."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis
from celery import Celery

from backend.celery_app import QUEUE_LIMITS, app, create_app, settings
from backend.config import load
from backend.core.db import Base, Database
from backend.core.errors import TransientError
from backend.core.runtime import Runtime, open_runtime
from backend.jobs.checking import check_job_schedules
from backend.scheduling.engine import CHANNEL, Engine, Settings
from backend.scheduling.occurrences import Connection
from backend.scheduling.publisher import RUN_HEADER, Publisher
from devstack.readiness import free_port
from devstack.servers import PostgresServer, ValkeyServer, embedded_postgres, embedded_valkey
from tests.factories.schedules import add_cron, add_run, add_schedule, seconds_ago
from tests.scheduling.conftest import Desk

MakeEngine = Callable[..., Engine]

# What a machine with two busy cores may take for what normally takes milliseconds.
PATIENCE = 10.0


@pytest.fixture
async def engines(db: Database, postgres: PostgresServer) -> AsyncIterator[MakeEngine]:
    """Makes engines on the session's database; all are closed at the end."""
    made: list[Engine] = []

    def make(broker: Celery = app, url: str = postgres.url, **changes: Any) -> Engine:
        made.append(Engine(Settings(url, **changes), Publisher(broker)))
        return made[-1]

    yield make
    for engine in made:
        await engine.close()


@pytest.fixture
def queue(valkey: ValkeyServer) -> Iterator[Callable[..., list[Any]]]:
    """Reads the messages in a queue, oldest first, and leaves them there."""
    with redis.Redis(port=valkey.port) as client:
        client.delete(*(f"beatline:{name}" for name in QUEUE_LIMITS))

        def read(name: str = "default") -> list[Any]:
            found: Any = client.lrange(f"beatline:{name}", 0, -1)
            return [json.loads(raw) for raw in reversed(found)]

        yield read
        client.delete(*(f"beatline:{name}" for name in QUEUE_LIMITS))


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that the test may take away."""
    with embedded_postgres(tmp_path_factory.mktemp("own-postgres") / "data", fast=True) as server:
        yield server


async def until(condition: Callable[[], Awaitable[object]], seconds: float = PATIENCE) -> float:
    """Wait for it; returns how long it took."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def published(desk: Desk, count: int = 1) -> Callable[[], Awaitable[bool]]:
    async def all_queued() -> bool:
        return (await desk.states()).get("queued", 0) == count

    return all_queued


async def notify(connection: Connection) -> None:
    await connection.execute("select pg_notify($1, '')", CHANNEL)


# --------------------------------------------------------------------------------------------------------------- once


async def test_one_pass_claims_publishes_and_counts(
    engines: MakeEngine, connection: Connection, desk: Desk, queue: Callable[..., list[Any]]
) -> None:
    schedule = await add_schedule(connection, task="sleep", queue="low_priority", arguments={"seconds": 1})
    await add_cron(connection, "nonsense", due_since=5)
    counts = await engines().run_once()
    assert counts == {"schedules": 2, "pending": 1, "published": 1}
    (run,) = await desk.runs(schedule)
    assert (run["state"], run["publish_count"]) == ("queued", 1)
    (message,) = queue("low_priority")
    assert (message["headers"]["id"], message["headers"]["task"]) == (str(run["id"]), "sleep")
    assert message["headers"][RUN_HEADER] == 1
    assert "seconds" not in json.dumps(message)


async def test_one_pass_sweeps_too(
    engines: MakeEngine, connection: Connection, desk: Desk, queue: Callable[..., list[Any]]
) -> None:
    waiting = await add_run(connection, None, "waiting")
    crashed = await add_run(
        connection, None, "running", attempt=1, max_attempts=1, lease_owner="w", lease_until=seconds_ago(1)
    )
    expired = await add_run(connection, expires_at=seconds_ago(1))
    lost = await add_run(connection, published_at=seconds_ago(700), publish_count=1)
    # With a short lease, since a server that has just started is given half a lease before runs are taken back.
    assert await engines(lease_seconds=1.0).run_once() == {"schedules": 0, "published": 2}
    states = [(await desk.run(run))["state"] for run in (waiting, crashed, expired, lost)]
    assert states == ["queued", "dead", "missed", "queued"]
    assert {message["headers"]["id"] for message in queue()} == {str(waiting), str(lost)}


async def test_a_run_for_a_queue_that_does_not_exist_holds_up_no_other(
    engines: MakeEngine, connection: Connection, desk: Desk, queue: Callable[..., list[Any]]
) -> None:
    bad = await add_schedule(connection, due_since=9, queue="nonesuch")
    good = await add_schedule(connection)
    assert (await engines().run_once())["published"] == 1
    assert await desk.states(bad) == {"pending": 1}
    assert await desk.states(good) == {"queued": 1}


async def test_engines_side_by_side_send_each_run_once(
    engines: MakeEngine, connection: Connection, desk: Desk, queue: Callable[..., list[Any]]
) -> None:
    for _ in range(60):
        await add_schedule(connection)
    counts = await asyncio.gather(*(engines().run_once() for _ in range(3)))
    assert sum(count["schedules"] for count in counts) == 60
    await asyncio.gather(*(engines().run_once() for _ in range(3)))
    sent = [message["headers"]["id"] for message in queue()]
    assert len(sent) == len(set(sent)) == 60
    assert await desk.states() == {"queued": 60}


@pytest.fixture
async def runtime(db: Database, postgres: PostgresServer) -> AsyncIterator[Runtime]:
    opened = open_runtime(dataclasses.replace(settings, database_url=postgres.url))
    yield opened
    await opened.close()


async def test_a_worker_does_the_same_as_a_task(
    runtime: Runtime, connection: Connection, desk: Desk, queue: Callable[..., list[Any]]
) -> None:
    await add_schedule(connection)
    assert await check_job_schedules(runtime) == {"schedules": 1, "pending": 1, "published": 1}
    assert await desk.states() == {"queued": 1}
    assert len(queue()) == 1


async def test_a_worker_without_the_database_tries_again_later(runtime: Runtime) -> None:
    runtime.config = dataclasses.replace(settings, database_url=f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    with pytest.raises(TransientError, match="database away"):
        await check_job_schedules(runtime)


# ----------------------------------------------------------------------------------------------------------- for ever


async def test_a_new_schedule_that_is_announced_is_served_at_once(
    engines: MakeEngine, connection: Connection, desk: Desk, queue: Callable[..., list[Any]]
) -> None:
    engine = engines()
    engine.start({}, {})
    await engine.passed()
    lags = []
    for count in range(1, 4):
        # The claimer has just gone to sleep for a second.
        await engine.passed()
        await add_schedule(connection)
        await notify(connection)
        lags.append(await until(published(desk, count)))
    assert min(lags) < 0.5
    assert len(queue()) == 3


async def test_a_new_schedule_whose_announcement_is_lost_is_served_a_second_later(
    engines: MakeEngine, connection: Connection, desk: Desk, queue: Callable[..., list[Any]]
) -> None:
    engine = engines()
    engine.start({}, {})
    await engine.passed()
    await add_schedule(connection)
    assert await until(published(desk)) < 3


async def test_a_schedule_is_served_at_its_instant(
    engines: MakeEngine, connection: Connection, desk: Desk, queue: Callable[..., list[Any]]
) -> None:
    # Between two of the polls, which come each second.
    await add_schedule(connection, due_since=-1.3, every=3600)
    engine = engines()
    engine.start({}, {})
    await until(published(desk))
    (run,) = await desk.runs()
    assert 0 <= (run["published_at"] - run["scheduled_for"]).total_seconds() < 0.6


async def test_a_started_engine_keeps_the_entries_of_the_code_as_rows_and_sweeps(
    engines: MakeEngine, connection: Connection, desk: Desk, queue: Callable[..., list[Any]]
) -> None:
    waiting = await add_run(connection, None, "waiting")
    outdated = await add_cron(connection, "0 10 * * *", next_run=seconds_ago(-9e5), tzdata_version="2019a")
    engine = engines()
    engine.start({"ticking": {"task": "noop", "schedule": 3600.0}}, {"noop": {"queue": "audio"}})
    await until(published(desk))
    assert (await desk.run(waiting))["state"] == "queued"
    ticking = await desk.one("select * from job_schedules where name = 'ticking'")
    assert (ticking["queue"], ticking["managed_by"]) == ("audio", "system")
    assert (await desk.schedule(outdated))["next_run"] < seconds_ago(-86_401)


async def test_what_is_started_is_told_one_by_one_and_a_burst_in_one_line(
    engines: MakeEngine,
    connection: Connection,
    desk: Desk,
    queue: Callable[..., list[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    await add_schedule(connection, name="nightly", task="sleep")
    engine = engines()
    engine.start({}, {})
    await until(published(desk))
    assert "Scheduler: Sending due task nightly (sleep)" in caplog.text
    caplog.clear()
    async with connection.transaction():
        for _ in range(25):
            await add_schedule(connection, due_since=90)
        await notify(connection)
    await until(published(desk, 26))
    assert "Scheduler: 25 schedules due: 25 coalesced, 25 pending" in caplog.text
    assert "Sending due task" not in caplog.text


async def test_a_started_engine_takes_a_run_back_from_a_lost_worker_but_not_at_once(
    engines: MakeEngine, connection: Connection, desk: Desk, queue: Callable[..., list[Any]]
) -> None:
    # Workers that could not reach the database either must have time to renew: half a lease.
    run = await add_run(connection, None, "running", attempt=1, lease_owner="w", lease_until=seconds_ago(1))
    engine = engines(lease_seconds=2.0)
    engine.start({}, {})
    await engine.passed()
    await asyncio.sleep(0.5)
    assert (await desk.run(run))["state"] == "running"
    await until(published(desk))
    assert (await desk.run(run))["reason"] == "worker_lost"


async def test_claims_go_on_when_the_sweeps_cannot(
    engines: MakeEngine,
    connection: Connection,
    desk: Desk,
    queue: Callable[..., list[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = engines()
    engine.start({"broken": {"task": "noop", "schedule": "no time at all"}}, {})
    await add_schedule(connection)
    await notify(connection)
    await until(published(desk))
    assert "sweeping failed" in caplog.text


async def test_a_closed_engine_leaves_no_connection_behind(engines: MakeEngine, connection: Connection) -> None:
    async def connections() -> int:
        count: int = await connection.fetchval(
            "select count(*) from pg_stat_activity where application_name like 'beatline-%' and datname = current_database()"
        )
        return count

    engine = engines()
    engine.start({}, {})
    await engine.passed()
    assert await connections() > 0
    await engine.close()

    async def none_left() -> bool:
        return await connections() == 0

    await until(none_left)


async def test_connections_that_were_cut_are_made_again(
    engines: MakeEngine, connection: Connection, desk: Desk, queue: Callable[..., list[Any]]
) -> None:
    engine = engines()
    engine.start({}, {})
    await engine.passed()
    await connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'beatline-%'"
    )
    await add_schedule(connection)
    await until(published(desk))
    assert engine.away_since is None


# ---------------------------------------------------------------------------------------------------------- faults


async def test_without_the_broker_runs_wait_in_the_database_and_leave_when_it_is_back(
    engines: MakeEngine, connection: Connection, desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    broker = create_app(load({"REDIS_PORT": str(port)}))
    for _ in range(5):
        await add_schedule(connection)
    assert await engines(broker).run_once() == {"schedules": 5, "pending": 5, "published": 0}
    runs = await desk.runs()
    assert [(run["state"], run["publish_count"], run["relay_until"]) for run in runs] == [("pending", 0, None)] * 5

    engine = engines(broker)
    engine.start({}, {})
    await add_schedule(connection)
    await notify(connection)

    async def claimed() -> bool:
        return await desk.states() == {"pending": 6}

    await until(claimed)
    await engine.passed()
    assert await desk.states() == {"pending": 6}
    with embedded_valkey(tmp_path, port, fast=True):
        await until(published(desk, 6))
        with redis.Redis(port=port) as client:
            sent: Any = client.lrange("beatline:default", 0, -1)
        assert len(sent) == 6
        await engine.close()
    assert "broker away, runs wait in the database" in caplog.text
    assert "broker back" in caplog.text


async def test_without_the_database_nothing_is_dispatched_and_afterwards_everything(
    engines: MakeEngine, own_postgres: PostgresServer, queue: Callable[..., list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    engine = engines(url=own_postgres.url)
    engine.start({}, {})
    await engine.passed()
    # A database without tables is none yet.
    assert "database away" in caplog.text
    database = Database(own_postgres.url)
    async with database.engine.begin() as connected:
        await connected.run_sync(Base.metadata.create_all)
    await database.close()

    async def back() -> bool:
        return engine.away_since is None

    async def away() -> bool:
        return not await back()

    await until(back)
    own_postgres.stop()
    await until(away)
    await engine.passed()
    own_postgres.start()
    connection = await asyncpg.connect(own_postgres.url)
    try:
        await add_schedule(connection, due_since=100, every=3600)
        await until(published(Desk(connection)))
    finally:
        await connection.close()
    assert await back()
    assert len(queue()) == 1
    assert "database away, nothing is dispatched until it answers" in caplog.text
    assert "database back after" in caplog.text
