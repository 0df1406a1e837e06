"""A Redis client and a runtime over the session's Valkey."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from backend.config import Config, load
from backend.core.keyspace import opened_redis
from backend.core.runtime import Runtime, open_runtime
from devstack.servers import PostgresServer, ValkeyServer


@pytest.fixture
def config(valkey: ValkeyServer, postgres: PostgresServer) -> Config:
    return replace(load(os.environ), database_url=postgres.url)


@pytest.fixture
async def redis(config: Config) -> AsyncIterator[Redis]:
    """The database of records, locks and limits, empty."""
    async with opened_redis(config) as client:
        await client.flushdb()
        yield client


@pytest.fixture
async def runtime(config: Config, redis: Redis) -> AsyncIterator[Runtime]:
    opened = open_runtime(config)
    try:
        yield opened
    finally:
        await opened.close()
