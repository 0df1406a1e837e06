"""Distributed locks on a real Valkey."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from backend.config import Config
from backend.core.keyspace import opened_redis
from backend.core.locks import Lock, LockLost, LockTaken, LockUnavailable
from devstack.servers import embedded_valkey

KEY = "beatline:lock:job"


async def test_one_holder_at_a_time_each_with_a_higher_number(redis: Redis) -> None:
    inside, most, fences = 0, 0, []

    async def enter() -> None:
        nonlocal inside, most
        async with Lock(redis, "job") as lock:
            inside += 1
            most = max(most, inside)
            fences.append(lock.fence)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(enter() for _ in range(10)))
    assert most == 1
    assert fences == list(range(1, 11))
    assert not await redis.exists(KEY)


async def test_different_names_do_not_wait_for_each_other(redis: Redis) -> None:
    async with Lock(redis, "one"), Lock(redis, "two", wait=0) as second:
        assert second.fence == 1


async def test_a_taken_lock_is_given_up_after_the_wait(redis: Redis) -> None:
    async with Lock(redis, "job", lease=30):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(LockTaken, match="lock job is taken; its lease has"):
            async with Lock(redis, "job", wait=0.3):
                pytest.fail("two holders")
        assert 0.25 < loop.time() - begun < 2


async def test_the_lease_is_renewed_while_the_body_works(redis: Redis) -> None:
    async with Lock(redis, "job", lease=1):
        await asyncio.sleep(1.6)
        assert 0 < await redis.pttl(KEY) <= 1000
        with pytest.raises(LockTaken):
            async with Lock(redis, "job", wait=0):
                pytest.fail("two holders")


async def test_a_holder_that_vanished_blocks_no_longer_than_its_lease(redis: Redis) -> None:
    await redis.set(KEY, "somebody who was killed", px=700)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with Lock(redis, "job", wait=5):
        assert 0.5 < loop.time() - begun < 1.5


async def test_a_holder_releases_its_own_lock_alone(redis: Redis) -> None:
    with pytest.raises(LockLost, match="somebody else's"):
        async with Lock(redis, "job", lease=1):
            await redis.set(KEY, "another holder")
            await asyncio.sleep(5)
    assert await redis.get(KEY) == b"another holder"


async def test_losing_the_lock_cancels_the_body(redis: Redis) -> None:
    steps = []
    with pytest.raises(LockLost):
        async with Lock(redis, "job", lease=1):
            await redis.delete(KEY)
            steps.append("working")
            await asyncio.sleep(5)
            steps.append("never")
    assert steps == ["working"]
    # The task that held the lock goes on: nothing of the cancellation is left.
    await asyncio.sleep(0)


async def test_a_pause_of_redis_shorter_than_the_lease_loses_nothing(config: Config, tmp_path: Path) -> None:
    with embedded_valkey(tmp_path, fast=True) as server:
        async with (
            opened_redis(replace(config, redis_url=f"redis://127.0.0.1:{server.port}/1")) as redis,
            Lock(redis, "job", lease=3),
        ):
            server.pause()
            await asyncio.sleep(2.4)
            server.resume()
            await asyncio.sleep(2.4)
            assert await redis.exists(KEY)


async def test_a_body_that_fails_or_is_cancelled_frees_the_lock(redis: Redis) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Lock(redis, "job"):
            raise ZeroDivisionError
    assert not await redis.exists(KEY)

    async def hold() -> None:
        async with Lock(redis, "job"):
            await asyncio.sleep(30)

    task = asyncio.create_task(hold())
    while not await redis.exists(KEY):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await redis.exists(KEY)


async def test_a_cancelled_wait_leaves_nothing_behind(redis: Redis) -> None:
    async with Lock(redis, "job"):
        waiting = asyncio.create_task(Lock(redis, "job").__aenter__())
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert not await redis.exists(KEY)


async def test_one_object_is_not_held_twice(redis: Redis) -> None:
    lock = Lock(redis, "job")
    async with lock:
        with pytest.raises(RuntimeError, match="held by this object"):
            await lock.__aenter__()
    async with lock:
        assert lock.fence == 2


async def test_without_redis_a_lock_is_unavailable_and_a_held_one_is_lost(config: Config, tmp_path: Path) -> None:
    with embedded_valkey(tmp_path, fast=True) as server:
        async with opened_redis(replace(config, redis_url=f"redis://127.0.0.1:{server.port}/1")) as redis:
            with pytest.raises(LockLost, match="could not be renewed in time"):
                async with Lock(redis, "job", lease=1.5):
                    server.pause()
                    await asyncio.sleep(10)
            server.resume()
            server.stop()
            with pytest.raises(LockUnavailable, match="lock job: Redis is away"):
                async with Lock(redis, "job", wait=0):
                    pytest.fail("nobody can know")
            server.start()
            async with Lock(redis, "job", wait=0):
                assert await redis.exists(KEY)
