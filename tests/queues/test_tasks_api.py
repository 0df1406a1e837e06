"""Tasks sent through the API: at once, once per key, and what becomes of them."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import select

from backend.celery_app import app
from backend.core.clock import utc_now
from backend.core.db import Database
from backend.queues.models import SentTask
from devstack.servers import ValkeyServer
from tests.fixtures.product import Product, Start, eventually

TASKS = "/api/tasks"
DAY = 86_400


async def rows(db: Database) -> list[SentTask]:
    async with db.transaction() as session:
        return list((await session.exec(select(SentTask))).all())


async def ended(product: Product, location: str) -> Any:
    async def look() -> Any:
        read = (await product.client.get(location)).json()
        return read if read["state"] in {"SUCCESS", "FAILURE", "REVOKED"} else None

    return await eventually(look, within=30)


async def started_by_hand(product: Product, name: str, **arguments: Any) -> str:
    """Where to read a task that is not on offer."""
    task_id = uuid4()
    async with product.db.transaction() as session:
        soon = utc_now() + timedelta(days=1)
        session.add(SentTask(id=task_id, name=name, queue="default", fingerprint="", expires_at=soon))
    await asyncio.to_thread(
        app.send_task,
        name,
        kwargs=arguments,
        task_id=str(task_id),
        queue="default",
        ignore_result=True,
        headers={"ignore_result": False},
    )
    return f"{TASKS}/{task_id}"


async def test_a_task_is_answered_at_once_and_its_result_is_there_later(product: Product, worker: Path) -> None:
    answer = await product.client.post(f"{TASKS}/noop", json={"note": "hello"})
    assert answer.status_code == 202
    sent = answer.json()
    assert (sent["state"], sent["name"], sent["queue"]) == ("PENDING", "noop", "default")
    assert answer.headers["Location"] == f"{TASKS}/{sent['id']}"
    read = await ended(product, answer.headers["Location"])
    assert (read["id"], read["state"], read["result"], read["error"]) == (
        sent["id"],
        "SUCCESS",
        {"note": "hello"},
        None,
    )
    assert read["finished_at"] >= read["created_at"]


async def test_a_task_without_parameters_needs_no_body(product: Product, valkey: ValkeyServer) -> None:
    assert (await product.client.post(f"{TASKS}/noop")).status_code == 202
    app.control.purge()


async def test_a_task_that_no_worker_has_taken_is_pending_and_one_in_hand_is_started(
    product: Product, worker: Path
) -> None:
    answer = await product.client.post(f"{TASKS}/sleep", json={"seconds": 2})
    states = []

    async def look() -> bool:
        states.append((await product.client.get(answer.headers["Location"])).json()["state"])
        return bool(states[-1] == "SUCCESS")

    await eventually(look)
    assert list(dict.fromkeys(states))[-2:] == ["STARTED", "SUCCESS"]


async def test_a_failure_names_its_error(product: Product, worker: Path) -> None:
    answer = await product.client.post(f"{TASKS}/sleep", json={"seconds": 0, "fail": "permanent"})
    read = await ended(product, answer.headers["Location"])
    assert (read["state"], read["result"]) == ("FAILURE", None)
    assert read["error"] == "PermanentError: failed as told after 0 s"


async def test_a_task_that_waits_for_its_next_try_is_in_retry(product: Product, worker: Path) -> None:
    location = await started_by_hand(product, "end_exhausted", order=3)
    states = []

    async def look() -> bool:
        read = (await product.client.get(location)).json()
        states.append((read["state"], read["error"]))
        return bool(read["state"] == "FAILURE")

    await eventually(look, within=30)
    assert ("RETRY", "TransientError: order 3 is not ready") in states


async def test_progress_is_seen_while_a_task_runs(product: Product, worker: Path) -> None:
    location = await started_by_hand(product, "count_steps", steps=5, seconds=0.6)
    seen = []

    async def look() -> bool:
        read = (await product.client.get(location)).json()
        if read["progress"]:
            assert read["state"] == "STARTED"
            seen.append((read["progress"]["done"], read["progress"]["total"]))
        return bool(read["state"] == "SUCCESS")

    await eventually(look, within=30)
    assert {(1, 5), (3, 5), (5, 5)} <= set(seen)
    assert seen == sorted(seen)
    read = (await product.client.get(location)).json()
    assert (read["progress"], read["result"]) == (None, "5 steps")


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("no_such_task", {}, 404, "unknown_task"),
        ("drain_dead_letters", {}, 404, "unknown_task"),
        ("noop", {"nope": 1}, 422, "invalid"),
        ("sleep", {"seconds": "long"}, 422, "invalid"),
        ("sleep", [1], 422, "invalid"),
        ("noop", {"\ud800": 1}, 422, "invalid"),
        ("http_request", {"url": "http://127.0.0.1/"}, 422, "invalid"),
    ],
)
async def test_what_is_not_on_offer_or_does_not_fit_is_refused(
    product: Product, name: str, body: Any, status: int, code: str
) -> None:
    raw: Any = {"content": json.dumps(body), "headers": {"Content-Type": "application/json"}}
    answer = await product.client.post(f"{TASKS}/{name}", **raw)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert await rows(product.db) == []


async def test_an_id_that_was_never_sent_is_not_found(product: Product) -> None:
    assert (await product.client.get(f"{TASKS}/{uuid4()}")).status_code == 404
    assert (await product.client.get(f"{TASKS}/nonsense")).status_code == 422


async def test_a_task_whose_result_is_kept_no_longer_is_expired(product: Product, valkey: ValkeyServer) -> None:
    task_id, past = uuid4(), utc_now() - timedelta(days=2)
    async with product.db.transaction() as session:
        session.add(
            SentTask(
                id=task_id,
                name="noop",
                queue="default",
                fingerprint="",
                created_at=past,
                expires_at=past + timedelta(1),
            )
        )
    read = (await product.client.get(f"{TASKS}/{task_id}")).json()
    assert (read["state"], read["result"]) == ("EXPIRED", None)


async def test_results_expire_as_configured(product: Product, worker: Path) -> None:
    answer = await product.client.post(f"{TASKS}/noop")
    read = await ended(product, answer.headers["Location"])
    store: Any = app.backend
    assert 0 < store.client.ttl(store.get_key_for_task(read["id"])) <= product.config.result_expires


async def test_the_offers_name_their_parameters(product: Product) -> None:
    offers = {one["name"]: one for one in (await product.client.get(TASKS)).json()}
    assert set(offers) >= {"noop", "sleep", "http_request"}
    assert offers["sleep"]["queue"] == "low_priority"
    assert "seconds" in offers["sleep"]["parameters"]["properties"]


async def test_a_caller_over_the_rate_is_told_when_to_come_again_and_others_are_not(
    start: Start, valkey: ValkeyServer
) -> None:
    product = await start(BEATLINE_SEND_RATE="2/hour")
    for number in range(2):
        answer = await product.client.post(f"{TASKS}/noop")
        assert answer.status_code == 202
        assert answer.headers["RateLimit"].startswith(f'"tasks";r={1 - number};t=')
    refused = await product.client.post(f"{TASKS}/noop")
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 0 < int(refused.headers["Retry-After"]) <= 3600
    # Reading is not sending.
    assert (await product.client.get(TASKS)).status_code == 200
    app.control.purge()
