"""Servers that keep what they confirm, and for each test empty ones and no process yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest
from kombu import pools

from backend.celery_app import create_app
from backend.config import load
from backend.core.db import Base, Database
from devstack.environment import inherited
from devstack.processes import Supervisor
from devstack.servers import PostgresServer, Server, ValkeyServer, embedded_valkey
from tests.chaos.brokers.ledger import EXECUTIONS, TABLES, VISIBILITY
from tests.chaos.brokers.scene import Scene

_DATABASE = "brokers_chaos"


class Begin(Protocol):
    def __call__(self, broker: str, **settings: str) -> Scene: ...


@pytest.fixture(scope="session")
def surest_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """Every command is on the disk before it is answered: nothing less is a promise when the server is killed."""
    with embedded_valkey(tmp_path_factory.mktemp("surest-valkey"), fsync="always") as server:
        yield server


@pytest.fixture(scope="session")
def effects_url(postgres: PostgresServer) -> str:
    """A database of its own with the product's tables and the effects'."""
    url = postgres.url.rpartition("/")[0] + f"/{_DATABASE}"

    async def create() -> None:
        connection = await asyncpg.connect(postgres.url)
        await connection.execute(f"create database {_DATABASE}")
        await connection.close()
        database = Database(url)
        async with database.engine.begin() as opened:
            await opened.run_sync(Base.metadata.create_all)
        await database.close()
        connection = await asyncpg.connect(url)
        await connection.execute(TABLES)
        await connection.close()

    asyncio.run(create())
    return url


@pytest.fixture
def begin(
    request: pytest.FixtureRequest,
    effects_url: str,
    postgres: PostgresServer,
    surest_valkey: ValkeyServer,
    tmp_path: Path,
) -> Iterator[Begin]:
    """Makes the scene of a test on that broker; its processes do not outlive the test, servers taken away come back."""
    made: list[Scene] = []

    def start(broker: str, **settings: str) -> Scene:
        server: Server = surest_valkey if broker == "redis" else request.getfixturevalue("rabbitmq")
        environment = inherited() | {
            "DATABASE_URL": effects_url,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(surest_valkey.port),
            "CELERY_BROKER": broker,
            "CELERY_RABBITMQ_HOST": "127.0.0.1",
            "CELERY_RABBITMQ_PORT": str(server.port),
            "BEATLINE_SERVICE_KEY": "a-key-of-the-chaos-tests-0123456789",
            "LIVEKIT_API_KEY": "chaos",
            "LIVEKIT_API_SECRET": "a-secret-of-the-chaos-tests-0123456789",
            EXECUTIONS: str(tmp_path / "executions"),
            VISIBILITY: "5",
            **settings,
        }
        supervisor = Supervisor(logs=tmp_path / "logs", run=tmp_path / "run")
        app = create_app(load(environment))
        scene = Scene(supervisor, environment, app, postgres, surest_valkey, server, effects_url, tmp_path)
        made.append(scene)
        scene.rows("truncate effects, book, dead_letters")
        scene.forget()
        return scene

    try:
        yield start
    finally:
        for scene in made:
            _clear(scene)


def _clear(scene: Scene) -> None:
    for producers in scene.producers:
        producers.stop()
    for name in scene.alive():
        scene.kill(name)
    scene.supervisor.close()
    for server in {id(one): one for one in (scene.postgres, scene.valkey, scene.broker)}.values():
        if server.name not in server.supervisor.running:
            server.start()
    scene.forget()
    # Kombu shares connections between applications, and the next test's would meet those that this one broke.
    pools.reset()
