"""`celery -A backend.celery_app beat` as a process, on real servers."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis

from backend.beat import DatabaseScheduler
from backend.celery_app import QUEUE_LIMITS, app
from backend.core.db import Base, Database
from backend.scheduling.engine import Engine, Settings
from backend.scheduling.occurrences import Connection
from backend.scheduling.publisher import Publisher
from devstack.servers import PostgresServer, ValkeyServer, embedded_postgres
from tests.factories.schedules import add_schedule

ROOT = Path(__file__).parents[1]
PATIENCE = 20.0


@dataclass
class Beat:
    """A running Beat in a folder of its own, and what it has said."""

    process: subprocess.Popen[bytes]
    home: Path

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    async def says(self, words: str) -> None:
        await until(lambda: words in self.log)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def command(home: Path, **environment: str) -> dict[str, Any]:
    return {
        "args": [sys.executable, "-m", "celery", "-A", "backend.celery_app", "beat", "--loglevel=info"],
        "cwd": home,
        "env": os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
    }


@pytest.fixture
def start(valkey: ValkeyServer, tmp_path: Path) -> Iterator[Callable[..., Beat]]:
    """Starts Beats with a DATABASE_URL; what still runs at the end is killed."""
    started: list[Beat] = []

    def begin(url: str) -> Beat:
        home = tmp_path / f"beat-{len(started)}"
        home.mkdir()
        with (home / "log").open("w") as output:
            process = subprocess.Popen(**command(home, DATABASE_URL=url), stdout=output, stderr=subprocess.STDOUT)
        started.append(Beat(process, home))
        return started[-1]

    yield begin
    for beat in started:
        beat.process.kill()
        beat.process.wait(10)
    with redis.Redis(port=valkey.port) as client:
        client.delete(*(f"beatline:{name}" for name in QUEUE_LIMITS))


@pytest.fixture
async def connection(db: Database, postgres: PostgresServer) -> AsyncIterator[Connection]:
    opened = await asyncpg.connect(postgres.url, timeout=5)
    yield opened
    await opened.close()


async def queued(connection: Connection, schedule: int, count: int) -> list[Any]:
    """Its first `count` runs, once they are published."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        rows = await connection.fetch(
            "select * from job_runs where schedule_id = $1 and state = 'queued' order by scheduled_for limit $2",
            schedule,
            count,
        )
        if len(rows) == count:
            return rows
        await asyncio.sleep(0.02)
    pytest.fail("its runs were not published in time")


async def test_beat_publishes_a_schedule_of_a_second_each_second_and_writes_no_file(
    start: Callable[[str], Beat], postgres: PostgresServer, connection: Connection
) -> None:
    beat = start(postgres.url)
    await beat.says("beat: Starting...")
    schedule = await add_schedule(connection, due_since=-1, every=1, overlap_policy="allow", name="each second")
    runs = await queued(connection, schedule, 3)
    instants = [run["scheduled_for"].timestamp() for run in runs]
    assert [round(after - before, 3) for before, after in itertools.pairwise(instants)] == [1, 1]
    assert min((run["published_at"] - run["scheduled_for"]).total_seconds() for run in runs) < 0.5
    assert "Scheduler: Sending due task each second (noop)" in beat.log
    entries = await connection.fetch("select name from job_schedules where managed_by = 'system'")
    assert {entry["name"] for entry in entries} == set(app.conf.beat_schedule)
    assert ". db -> job_schedules" in beat.log
    assert [path.name for path in beat.home.iterdir()] == ["log"]
    assert beat.stop() == 0
    assert [path.name for path in beat.home.iterdir()] == ["log"]
    assert "Traceback" not in beat.log


async def test_beat_answers_a_ping_and_then_stops_when_told(
    start: Callable[[str], Beat], postgres: PostgresServer, connection: Connection
) -> None:
    beat, name = start(postgres.url), f"celerybeat@{socket.gethostname()}"
    await beat.says("system schedules written")
    answers: list[Any] = []
    deadline = time.monotonic() + PATIENCE
    while not answers and time.monotonic() < deadline:
        answers = await asyncio.to_thread(lambda: app.control.ping([name], timeout=2) or [])
    assert answers == [{name: {"ok": "pong"}}]
    assert beat.stop() == 0


def test_beat_without_a_database_url_says_so_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(**command(tmp_path, DATABASE_URL=""), capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert done.stderr == "beatline: configuration: DATABASE_URL must be set; .env.example says how\n"


@pytest.fixture(scope="module")
def stopped_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with embedded_postgres(tmp_path_factory.mktemp("beats-postgres") / "data", fast=True) as server:
        server.stop()
        yield server


async def test_beat_starts_without_the_database_and_begins_when_it_appears(
    start: Callable[[str], Beat], stopped_postgres: PostgresServer
) -> None:
    beat = start(stopped_postgres.url)
    await beat.says("database away, nothing is dispatched until it answers")
    assert beat.process.poll() is None
    stopped_postgres.start()
    database = Database(stopped_postgres.url)
    async with database.engine.begin() as connected:
        await connected.run_sync(Base.metadata.create_all)
    await database.close()
    connection = await asyncpg.connect(stopped_postgres.url)
    try:
        schedule = await add_schedule(connection, every=3600)
        await queued(connection, schedule, 1)
    finally:
        await connection.close()
    assert "database back after" in beat.log
    assert beat.stop() == 0


def test_beat_that_cannot_reach_the_database_asks_a_worker_to_dispatch_once_a_minute(valkey: ValkeyServer) -> None:
    with redis.Redis(port=valkey.port) as client:
        client.delete("beatline:scheduled")
        beat = DatabaseScheduler(app)
        try:
            assert beat.tick() == 0
            assert client.llen("beatline:scheduled") == 0
            beat._asked_at -= 61
            beat.tick()
            beat.tick()
            messages: Any = client.lrange("beatline:scheduled", 0, -1)
        finally:
            beat.close()
            client.delete("beatline:scheduled")
    assert len(messages) == 1
    assert b'"task": "check_job_schedules"' in messages[0]


class _Interrupt(logging.Handler):
    """SIGTERM's SystemExit, at the moment when a claim is told."""

    def emit(self, record: logging.LogRecord) -> None:
        if "Sending due task" in record.getMessage():
            logging.getLogger("backend.scheduling.engine").removeHandler(self)
            raise SystemExit


def test_a_signal_in_the_middle_of_a_claim_does_not_keep_the_engine_from_closing(
    db: Database, postgres: PostgresServer, valkey: ValkeyServer
) -> None:
    log = logging.getLogger("backend.scheduling.engine")
    loop = asyncio.new_event_loop()
    engine = Engine(Settings(postgres.url), Publisher(app))

    async def begin() -> None:
        connection = await asyncpg.connect(postgres.url)
        await add_schedule(connection, due_since=1)
        await connection.close()
        log.setLevel(logging.INFO)
        log.addHandler(_Interrupt())
        engine.start({}, {})

    loop.run_until_complete(begin())
    with pytest.raises(SystemExit):
        while True:
            loop.run_until_complete(engine.passed())
    loop.run_until_complete(asyncio.wait_for(engine.close(), 10))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_a_signal_whose_exit_was_lost_stops_beat_after_its_pass(
    db: Database, postgres: PostgresServer, valkey: ValkeyServer
) -> None:
    code = """
import os, signal
from celery.apps.beat import Beat
from backend.celery_app import app
from backend.beat import DatabaseScheduler

class Lost:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

class Interrupted(DatabaseScheduler):
    def tick(self, *args, **options):
        Lost()
        return super().tick(*args, **options)

Beat(app=app, scheduler_cls=Interrupted, loglevel="INFO").run()
"""
    environment = os.environ | {"DATABASE_URL": postgres.url}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=30, capture_output=True, text=True, check=False
    )
    assert "Exception ignored in" in done.stderr
    assert done.returncode == 0, done.stderr
