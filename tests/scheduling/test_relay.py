"""The outbox on a real PostgreSQL: who publishes which run, and what is known of it afterwards."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from backend.scheduling.leases import claim
from backend.scheduling.occurrences import Connection
from backend.scheduling.publisher import Message
from backend.scheduling.relay import RELAY_SECONDS, claim_pending, give_back, mark_published
from devstack.servers import PostgresServer
from tests.factories.schedules import add_run, seconds_ago
from tests.fixtures.product import eventually
from tests.scheduling.conftest import Desk


async def test_pending_runs_are_handed_out_oldest_first_and_once(connection: Connection, desk: Desk) -> None:
    second = await add_run(connection, None, "pending", publish_after=seconds_ago(5), task="sleep", queue="audio")
    first = await add_run(connection, None, "pending", publish_after=seconds_ago(9))
    third = await add_run(connection, None, "pending", publish_after=seconds_ago(1))
    assert {message.run_id for message in await claim_pending(connection, 2)} == {first, second}
    assert await claim_pending(connection, 10) == [Message(third, "noop", "default")]
    assert await claim_pending(connection, 10) == []
    row = await desk.one("select relay_until - now() as left, state, task, queue from job_runs where id = $1", second)
    assert timedelta(seconds=RELAY_SECONDS - 3) < row["left"] <= timedelta(seconds=RELAY_SECONDS)
    assert (row["state"], row["task"], row["queue"]) == ("pending", "sleep", "audio")


@pytest.mark.parametrize("state", ["waiting", "queued", "running", "succeeded", "cancelled", "missed"])
async def test_only_pending_runs_are_published(state: str, connection: Connection) -> None:
    await add_run(connection, None, state)
    assert await claim_pending(connection, 10) == []


async def test_a_run_that_is_to_be_sent_later_waits(connection: Connection, desk: Desk) -> None:
    run = await add_run(connection, None, "pending", publish_after=seconds_ago(-60))
    assert await claim_pending(connection, 10) == []
    await desk.update("job_runs", run, "publish_after = now()")
    assert len(await claim_pending(connection, 10)) == 1


async def test_a_run_whose_relay_died_is_published_by_another_after_its_time(
    connection: Connection, desk: Desk
) -> None:
    run = await add_run(connection, None, "pending")
    await claim_pending(connection, 10)
    await desk.update("job_runs", run, "relay_until = now() - interval '1 ms'")
    assert [message.run_id for message in await claim_pending(connection, 10)] == [run]


async def test_two_relays_at_once_take_different_runs(connection: Connection, other: Connection) -> None:
    runs = {await add_run(connection, None, "pending", publish_after=seconds_ago(9)) for _ in range(7)}
    async with connection.transaction():
        first = await claim_pending(connection, 3)
        second = await asyncio.wait_for(claim_pending(other, 10), 5)
    assert (len(first), len(second)) == (3, 4)
    assert {message.run_id for message in first + second} == runs


async def test_a_published_run_is_queued_and_counts_how_often_it_was_sent(connection: Connection, desk: Desk) -> None:
    run = await add_run(connection, None, "pending")
    await claim_pending(connection, 10)
    await mark_published(connection, [run])
    row = await desk.run(run)
    assert (row["state"], row["publish_count"], row["relay_until"]) == ("queued", 1, None)
    assert abs(row["published_at"] - seconds_ago(0)) < timedelta(seconds=5)
    assert await claim_pending(connection, 10) == []


async def test_a_worker_that_was_faster_than_the_mark_keeps_its_run(connection: Connection, desk: Desk) -> None:
    run = await add_run(connection, None, "pending")
    await claim_pending(connection, 10)
    assert await claim(connection, run, "noop", owner="w", lease_seconds=60, lost_attempts=3) is not None
    await mark_published(connection, [run])
    row = await desk.run(run)
    assert (row["state"], row["publish_count"], row["lease_owner"]) == ("running", 1, "w")


async def test_a_run_that_has_ended_before_the_mark_stays_ended(connection: Connection, desk: Desk) -> None:
    run = await add_run(connection, None, "succeeded")
    await mark_published(connection, [run])
    assert (await desk.run(run))["state"] == "succeeded"


async def test_a_run_that_was_given_back_may_be_published_at_once(connection: Connection, desk: Desk) -> None:
    run = await add_run(connection, None, "pending")
    running = await add_run(connection, None, "running", relay_until=seconds_ago(-9))
    await claim_pending(connection, 10)
    await give_back(connection, [run, running])
    assert (await desk.run(run))["publish_count"] == 0
    assert (await desk.run(running))["relay_until"] is not None
    assert [message.run_id for message in await claim_pending(connection, 10)] == [run]


async def test_what_a_killed_process_had_claimed_is_free_at_once(
    connection: Connection, postgres: PostgresServer
) -> None:
    run = await add_run(connection, None, "pending")
    other = await asyncpg.connect(postgres.url)
    assert [message.run_id for message in await claim_pending(other, 10)] == [run]
    assert await claim_pending(connection, 10) == []
    # As the operating system closes a killed process's connections: without a word.
    other.terminate()

    async def free() -> list[Message]:
        return await claim_pending(connection, 10)

    assert await eventually(free, within=3) == [Message(run, "noop", "default")]


async def test_a_batch_keeps_to_its_limit_whatever_plan_postgresql_chooses(connection: Connection) -> None:
    for _ in range(7):
        await add_run(connection, None, "pending", publish_after=seconds_ago(9))
    for way in ("hashjoin", "mergejoin", "hashagg", "sort", "material", "indexscan", "bitmapscan"):
        await connection.execute(f"set enable_{way} = off")
    assert len(await claim_pending(connection, 3)) == 3
