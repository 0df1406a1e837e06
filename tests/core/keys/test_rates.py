"""Rate limits on a real Valkey: of keys, of API routes, of tasks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from backend.config import Config
from backend.core import web
from backend.core.delivery import Postponed
from backend.core.keyspace import opened_redis
from backend.core.rates import LimiterAway, Rates
from backend.core.runtime import Runtime
from backend.core.throttle import limited
from devstack.servers import embedded_valkey


@asynccontextmanager
async def api(rates: Rates) -> AsyncIterator[httpx.AsyncClient]:
    """Two routes: `/open` and `/closed`, each of which three requests a minute may use."""
    app = FastAPI()
    web.install(app)
    app.state.rates = rates

    async def answer() -> dict[str, str]:
        return {"answer": "yes"}

    app.get("/open", dependencies=[limited("3/minute", name="reading")])(answer)
    app.get("/closed", dependencies=[limited("3/minute", name="login", when_away="closed")])(answer)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        yield client


async def test_a_limit_lets_so_many_through_and_no_more_however_many_come_at_once(redis: Redis) -> None:
    spent = await asyncio.gather(*(Rates(redis).spend("5/minute", "sms", "+911") for _ in range(12)))
    assert sum(one.allowed for one in spent) == 5
    assert (await Rates(redis).spend("5/minute", "sms", "+912")).allowed
    assert all("beatline:rate" in str(key) for key in await redis.keys("*"))


async def test_the_window_moves(redis: Redis) -> None:
    rates = Rates(redis)
    assert (await rates.spend("2/second", "sms")).allowed
    await asyncio.sleep(0.6)
    assert (await rates.spend("2/second", "sms")).allowed
    assert not (await rates.spend("2/second", "sms")).allowed
    await asyncio.sleep(0.6)
    # The first use is over a second old, the second is not.
    assert [(await rates.spend("2/second", "sms")).allowed for _ in range(2)] == [True, False]


async def test_a_route_answers_429_with_the_time_to_wait(redis: Redis) -> None:
    async with api(Rates(redis)) as client:
        answers = [await client.get("/open") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["RateLimit-Policy"] == '"reading";q=3;w=60'
    assert answers[0].headers["RateLimit"].startswith('"reading";r=2;t=')
    refused = answers[3]
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit"] == f'"reading";r=0;t={refused.headers["Retry-After"]}'


async def test_two_routes_have_limits_of_their_own(redis: Redis) -> None:
    async with api(Rates(redis)) as client:
        for _ in range(3):
            await client.get("/open")
        assert (await client.get("/closed")).status_code == 200


async def test_without_redis_an_open_limit_passes_and_a_closed_one_refuses(config: Config, tmp_path: Path) -> None:
    with embedded_valkey(tmp_path, fast=True) as server:
        async with opened_redis(replace(config, redis_url=f"redis://127.0.0.1:{server.port}/1")) as redis:
            rates = Rates(redis)
            server.stop()
            async with api(rates) as client:
                assert (await client.get("/open")).status_code == 200
                refused = await client.get("/closed")
            assert refused.status_code == 503
            assert refused.headers["Retry-After"] == "2"
            with pytest.raises(Postponed, match="Redis is away"):
                await rates.spend_or_postpone("5/minute", "sms")
            await rates.spend_or_postpone("5/minute", "sms", when_away="open")
            server.start()
            assert (await rates.spend("5/minute", "sms")).allowed


async def test_a_frozen_redis_costs_a_request_a_second_at_most(config: Config, tmp_path: Path) -> None:
    with embedded_valkey(tmp_path, fast=True) as server:
        async with opened_redis(replace(config, redis_url=f"redis://127.0.0.1:{server.port}/1")) as redis:
            rates = Rates(redis)
            await rates.spend("5/minute", "sms")
            server.pause()
            loop = asyncio.get_running_loop()
            begun = loop.time()
            with pytest.raises(LimiterAway):
                await rates.spend("5/minute", "sms")
            assert loop.time() - begun < 1.5
            server.resume()
            assert (await rates.spend("5/minute", "sms")).allowed


async def test_a_task_over_its_limit_comes_again_when_a_use_is_free(runtime: Runtime) -> None:
    await runtime.rates.spend_or_postpone("1/minute", "sms", "+911")
    with pytest.raises(Postponed, match="rate limit sms: 1/minute used up") as postponed:
        await runtime.rates.spend_or_postpone("1/minute", "sms", "+911")
    assert postponed.value.after is not None
    assert 55 <= postponed.value.after <= 60
    await runtime.rates.spend_or_postpone("1/minute", "sms", "+912")


def test_a_malformed_limit_is_told_when_the_route_is_made() -> None:
    with pytest.raises(ValueError, match="couldn't parse"):
        limited("often", name="reading")
