"""An API in a process of its own, on real PostgreSQL and Valkey."""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from backend.core.db import Base, Database
from devstack.environment import ROOT
from devstack.processes import Service, Supervisor
from devstack.readiness import free_port, when_http
from devstack.servers import PostgresServer, ValkeyServer

ADMIN = {"BEATLINE_ADMIN_USERNAME": "ada", "BEATLINE_ADMIN_PASSWORD": secrets.token_urlsafe(24)}


async def _make_tables(url: str) -> None:
    database = Database(url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await database.close()


@pytest.fixture(scope="session")
def url(postgres: PostgresServer, valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    asyncio.run(_make_tables(postgres.url))
    folder, port = tmp_path_factory.mktemp("api"), free_port()
    supervisor = Supervisor(logs=folder, run=folder)
    found = f"http://127.0.0.1:{port}"
    supervisor.start(
        Service(
            "api",
            (sys.executable, "-m", "uvicorn", "backend.main:app", "--host", "127.0.0.1", "--port", str(port)),
            os.environ | ADMIN | {"DATABASE_URL": postgres.url},
            when_http(f"{found}/readyz"),
            cwd=ROOT,
        )
    )
    try:
        supervisor.wait_ready("api")
        yield found
    finally:
        supervisor.close()


@pytest.fixture(scope="session", autouse=True)
def tokens(url: str) -> list[str]:
    """Two access tokens of the first administrator, from before anybody has tried to sign in too often."""
    login = {"username": ADMIN["BEATLINE_ADMIN_USERNAME"], "password": ADMIN["BEATLINE_ADMIN_PASSWORD"]}
    found: list[str] = []
    for _ in range(8):
        answer = httpx.post(f"{url}/api/auth/login", json=login, verify=False)
        if answer.status_code == 200:
            found.append(answer.json()["access_token"])
        else:
            # The API makes its first administrator once it serves.
            time.sleep(1)
        if len(found) == 2:
            break
    assert len(found) == 2, answer.text
    return found
