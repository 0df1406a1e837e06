"""What every route shares, through the door."""

import asyncio
from datetime import datetime, timedelta, timezone

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import literal
from sqlmodel import select

from backend.config import load
from backend.core import web
from backend.core.web import SessionDep
from backend.environment import ConfigError
from backend.main import create_app
from devstack.servers import PostgresServer
from tests.fixtures.product import Product


async def test_a_request_id_is_given_and_a_sane_one_is_kept(product: Product) -> None:
    assert len((await product.client.get("/healthz")).headers["X-Request-ID"]) == 12
    kept = await product.client.get("/healthz", headers={"X-Request-ID": "trace-1.a"})
    assert kept.headers["X-Request-ID"] == "trace-1.a"
    replaced = await product.client.get("/healthz", headers={"X-Request-ID": "a b\t<script>"})
    assert replaced.headers["X-Request-ID"] != "a b\t<script>"


async def test_the_api_says_that_it_is_alive_and_ready(product: Product) -> None:
    assert (await product.client.get("/healthz")).json() == {"status": "ok"}
    assert (await product.client.get("/readyz")).json() == {"status": "ready"}


async def test_an_unknown_path_is_a_problem_document(product: Product) -> None:
    answer = await product.client.get("/api/nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 404


async def test_a_slash_too_many_leads_nowhere(product: Product) -> None:
    """A redirect would be an answer that no operation describes; an id of `/` asks for one."""
    for path in ("/api/calls/", "/api/tasks/%2F"):
        assert (await product.client.get(path)).status_code == 404


async def test_a_value_that_cannot_be_written_to_the_database_is_the_senders(product: Product) -> None:
    """asyncpg's own conversions raise neither its errors nor PostgreSQL's."""

    async def sent(session: SessionDep) -> None:
        await session.exec(select(literal(datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))))))

    app = FastAPI()
    web.install(app)
    app.state.db = product.db
    app.get("/sent")(sent)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        answer = await client.get("/sent")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


async def test_while_the_database_is_away_the_api_says_when_to_come_back(
    product: Product, postgres: PostgresServer
) -> None:
    await product.client.get("/api/scheduler/summary")
    await asyncio.to_thread(postgres.stop)
    try:
        for path in ("/api/scheduler/summary", "/readyz"):
            answer = await product.client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "database_away")
            assert answer.headers["Retry-After"] == "2"
        assert (await product.client.get("/healthz")).status_code == 200
    finally:
        await asyncio.to_thread(postgres.start)
    assert (await product.client.get("/api/scheduler/summary")).status_code == 200


def test_an_api_without_its_secrets_does_not_start() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL, BEATLINE_SERVICE_KEY, LIVEKIT_API_KEY, LIVEKIT_API_SECRET"):
        create_app(load({}))
