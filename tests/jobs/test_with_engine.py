"""What the API stores is what the dispatcher, the keeper and a worker work on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from backend.core.clock import utc_now
from backend.scheduling.dispatcher import claim_due
from backend.scheduling.keeper import admit_waiting
from backend.scheduling.leases import claim
from tests.factories.jobs import add_run, add_template, run_row
from tests.fixtures.product import Product

SCHEDULES = "/api/job-schedules"
_WHEN: dict[str, dict[str, Any]] = {
    "cron": {"cron_expression": "* * * * *"},
    "interval": {"interval_seconds": 30},
    "once": {"run_at": (utc_now() + timedelta(days=1)).isoformat()},
}


@pytest.fixture
async def engine(product: Product) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(product.config.database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def made(product: Product, **fields: Any) -> int:
    body = {"template_id": await add_template(product.db)} | fields
    answer = await product.client.post(SCHEDULES, json=body)
    assert answer.status_code == 201, answer.text
    schedule_id: int = answer.json()["id"]
    return schedule_id


@pytest.mark.parametrize("kind", ["cron", "interval", "once"])
async def test_a_schedule_of_each_type_is_dispatched_when_it_is_due(
    product: Product, engine: asyncpg.Connection[Any], kind: str
) -> None:
    schedule_id = await made(product, **_WHEN[kind])
    await engine.execute(
        "update job_schedules set next_run = now() - interval '1 second', run_at = now() where id = $1", schedule_id
    )
    assert (await claim_due(engine)).schedules == 1
    told = (await product.client.get(f"{SCHEDULES}/{schedule_id}/occurrences")).json()["items"]
    assert [(one["fate"], one["state"]) for one in told] == [("run", "pending")]
    schedule = (await product.client.get(f"{SCHEDULES}/{schedule_id}")).json()
    assert (schedule["run_count"], schedule["next_run"] is None) == (1, kind == "once")


async def test_a_paused_schedule_is_not_dispatched(product: Product, engine: asyncpg.Connection[Any]) -> None:
    schedule_id = await made(product, cron_expression="* * * * *")
    await engine.execute("update job_schedules set next_run = now() where id = $1", schedule_id)
    await product.client.post(f"{SCHEDULES}/{schedule_id}/pause")
    assert (await claim_due(engine)).schedules == 0
    await product.client.post(f"{SCHEDULES}/{schedule_id}/resume", json={"catch_up": True})
    assert (await claim_due(engine)).schedules == 1


async def test_an_edit_tells_the_dispatcher_at_once(product: Product, engine: asyncpg.Connection[Any]) -> None:
    told: list[str] = []
    await engine.add_listener("beatline_schedules", lambda *message: told.append(str(message[2])))
    schedule_id = await made(product, cron_expression="* * * * *")
    for method, path, body in (
        ("PATCH", "", {"cron_expression": "0 * * * *"}),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/run-now", None),
    ):
        before = len(told)
        await product.client.request(method, f"{SCHEDULES}/{schedule_id}{path}", json=body)
        await engine.execute("select 1")
        assert len(told) > before, path or method


async def test_what_waits_is_let_in_once_the_run_before_it_is_cancelled(
    product: Product, engine: asyncpg.Connection[Any]
) -> None:
    schedule_id = await made(product, cron_expression="0 0 1 1 *", overlap_policy="queue_one")
    first, second = [(await product.client.post(f"{SCHEDULES}/{schedule_id}/run-now")).json()["id"] for _ in range(2)]
    assert await admit_waiting(engine) == 0
    await product.client.post(f"/api/job-runs/{first}/cancel")
    assert await admit_waiting(engine) == 1
    assert (await run_row(product.db, second)).state == "pending"


async def test_a_worker_claims_a_run_with_the_arguments_of_its_schedule(
    product: Product, engine: asyncpg.Connection[Any]
) -> None:
    schedule_id = await made(product, cron_expression="0 0 1 1 *", parameters={"note": "x"})
    run = UUID((await product.client.post(f"{SCHEDULES}/{schedule_id}/run-now")).json()["id"])
    claimed = await claim(engine, run, "noop", owner="w1", lease_seconds=60, lost_attempts=3)
    assert claimed is not None
    assert claimed.arguments == '{"note": "x"}'
    assert (await product.client.post(f"/api/job-runs/{run}/cancel")).status_code == 202


async def test_a_run_that_was_cancelled_before_it_began_is_claimed_by_nobody(
    product: Product, engine: asyncpg.Connection[Any]
) -> None:
    run = await add_run(product.db, None, "queued")
    await product.client.post(f"/api/job-runs/{run}/cancel")
    assert await claim(engine, run, "noop", owner="w1", lease_seconds=60, lost_attempts=3) is None


async def test_a_repeated_run_can_be_claimed(product: Product, engine: asyncpg.Connection[Any]) -> None:
    old = await add_run(product.db, None, "dead", arguments={"note": "y"}, cancel_requested_at=utc_now())
    run = UUID((await product.client.post(f"/api/job-runs/{old}/retry")).json()["id"])
    claimed = await claim(engine, run, "noop", owner="w1", lease_seconds=60, lost_attempts=3)
    assert claimed is not None
    assert (claimed.arguments, claimed.attempt) == ('{"note": "y"}', 1)
