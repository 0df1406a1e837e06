"""Servers for the whole session, and for each test an empty database, an empty broker and no process yet."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest
import redis

from backend.celery_app import TASK_ROUTES
from backend.scheduling.system import sync_entries
from devstack.environment import ROOT, inherited
from devstack.processes import Supervisor
from devstack.servers import PostgresServer, Server, ValkeyServer
from tests.chaos.scheduling.ledger import VARIABLE
from tests.chaos.scheduling.scene import Scene

_DATABASE = "scheduling_chaos"
_TABLES = "job_run_events, job_alerts, job_runs, job_schedules, job_templates"
# A lost worker and a lost message are noticed within seconds.
_SETTINGS = {"BEATLINE_RUN_LEASE_SECONDS": "4", "BEATLINE_QUEUE_TIMEOUT_SECONDS": "6"}


class Begin(Protocol):
    def __call__(self, broker: str = "redis", **settings: str) -> Scene: ...


@pytest.fixture(scope="session")
def database_url(postgres: PostgresServer) -> str:
    """A migrated database of its own."""
    url = postgres.url.rpartition("/")[0] + f"/{_DATABASE}"

    async def create() -> None:
        connection = await asyncpg.connect(postgres.url)
        await connection.execute(f"create database {_DATABASE}")
        await connection.close()

    asyncio.run(create())
    migrate = [sys.executable, "-m", "backend.cli", "migrate"]
    subprocess.run(migrate, cwd=ROOT, env=inherited() | {"DATABASE_URL": url}, check=True, capture_output=True)
    return url


@pytest.fixture
def begin(
    request: pytest.FixtureRequest, database_url: str, postgres: PostgresServer, valkey: ValkeyServer, tmp_path: Path
) -> Iterator[Begin]:
    """Makes the scene of a test on that broker; its processes do not outlive the test, servers taken away come back."""
    made: list[Scene] = []

    def start(broker: str = "redis", **settings: str) -> Scene:
        server: Server = valkey if broker == "redis" else request.getfixturevalue("rabbitmq")
        effects = tmp_path / "effects.jsonl"
        environment = inherited() | {
            "DATABASE_URL": database_url,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(valkey.port),
            "CELERY_BROKER": broker,
            "CELERY_RABBITMQ_HOST": "127.0.0.1",
            "CELERY_RABBITMQ_PORT": str(server.port),
            "BEATLINE_SERVICE_KEY": "a-key-of-the-chaos-tests-0123456789",
            VARIABLE: str(effects),
            **_SETTINGS,
            **settings,
        }
        supervisor = Supervisor(logs=tmp_path / "logs", run=tmp_path / "run")
        scene = Scene(supervisor, database_url, postgres, valkey, server, environment, effects)
        made.append(scene)
        asyncio.run(_empty_database(scene))
        _empty_broker(scene)
        return scene

    try:
        yield start
    finally:
        for scene in made:
            _clear(scene)


async def _empty_database(scene: Scene) -> None:
    """No run, and the system's own schedules paused: a test decides what is due."""
    connection = await asyncpg.connect(scene.url)
    app = scene.app()
    try:
        # What a failed test has left behind.
        await connection.execute(
            "drop trigger if exists slow_claim on job_runs; drop trigger if exists slow_relay on job_runs"
        )
        await connection.execute(f"truncate {_TABLES} cascade")
        async with connection.transaction():
            await sync_entries(connection, app.conf.beat_schedule, TASK_ROUTES)
            await connection.execute("update job_schedules set is_active = false")
    finally:
        await connection.close()


def _empty_broker(scene: Scene) -> None:
    with redis.Redis(port=scene.valkey.port) as client:
        client.flushall()
    scene.lose_messages()


def _clear(scene: Scene) -> None:
    names = [*scene.alive("beat"), *scene.alive("worker")]
    scene.kill(*names)
    scene.supervisor.close()
    for server in {id(one): one for one in (scene.postgres, scene.valkey, scene.broker)}.values():
        if server.name in server.supervisor.running:
            server.resume()
        else:
            server.start()
