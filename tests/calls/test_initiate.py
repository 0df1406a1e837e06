"""Accepting a call: every gate, every repetition."""

import asyncio
from datetime import datetime
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import httpx
import pytest
from sqlmodel import col, select, update

from backend.calls.models import Call, Customer, Policy, ScheduledCall
from backend.core.clock import utc_now
from tests.factories.people import ANSWERS, BUSY, add_customer
from tests.fixtures.product import Product, Start, eventually


async def due(product: Product) -> dict[str, str]:
    """Plan, and the one customer who is due."""
    await product.client.post("/api/scheduler/plan")
    page = (await product.client.get("/api/scheduler/pending-customers")).json()
    item: dict[str, str] = page["items"][0]
    return item


async def initiate(product: Product, item: dict[str, str], **change: str) -> httpx.Response:
    wish = item | change
    return await product.client.post(
        f"/api/calls/initiate/{wish['customer_id']}",
        json={"scheduled_call_id": wish["scheduled_call_id"]},
        headers={"Idempotency-Key": wish.get("key", f"{item['scheduled_call_id']}:{item['attempt_no']}")},
    )


async def scheduled(product: Product) -> ScheduledCall:
    async with product.db.transaction() as session:
        return (await session.exec(select(ScheduledCall))).one()


async def test_a_call_is_accepted_at_once_and_dialed_in_the_background(product: Product) -> None:
    await add_customer(product.db, ANSWERS)
    answer = await initiate(product, await due(product))
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"
    assert answer.headers["Location"] == f"/api/calls/{answer.json()['call_id']}"
    await eventually(product.dials)


async def test_a_replayed_initiate_gives_the_same_call_and_dials_once(product: Product) -> None:
    await add_customer(product.db, BUSY)
    item = await due(product)
    first = await initiate(product, item)
    await eventually(product.dials)
    second = await initiate(product, item)
    assert (second.status_code, second.headers["Idempotent-Replay"]) == (200, "true")
    assert second.json()["call_id"] == first.json()["call_id"]
    await asyncio.sleep(0.5)
    assert len(await product.dials()) == 1


async def test_ten_deliveries_at_once_make_one_call(product: Product) -> None:
    await add_customer(product.db, BUSY)
    item = await due(product)
    answers = await asyncio.gather(*(initiate(product, item) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [202]
    assert len({answer.json()["call_id"] for answer in answers}) == 1
    await eventually(product.dials)
    await asyncio.sleep(0.5)
    assert len(await product.dials()) == 1


async def test_another_request_under_the_same_key_is_refused(product: Product) -> None:
    await add_customer(product.db, ANSWERS)
    item = await due(product)
    await initiate(product, item)
    answer = await initiate(product, item, scheduled_call_id=str(uuid4()))
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")


async def test_an_unknown_customer_is_not_found(product: Product) -> None:
    await add_customer(product.db)
    answer = await initiate(product, await due(product), customer_id=str(uuid4()))
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await scheduled(product)).status == "pending"


async def test_another_customers_scheduled_call_is_not_found(product: Product) -> None:
    await add_customer(product.db)
    item = await due(product)
    other = await add_customer(product.db, expires_in_days=300)
    answer = await initiate(product, item, customer_id=str(other))
    assert answer.status_code == 404


@pytest.mark.parametrize("key", ["", "with space", "x" * 256, "semi;colon"])
async def test_a_malformed_key_is_refused(product: Product, key: str) -> None:
    await add_customer(product.db)
    answer = await initiate(product, await due(product), key=key)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key")


async def test_a_missing_key_is_refused(product: Product) -> None:
    answer = await product.client.post(f"/api/calls/initiate/{uuid4()}", json={"scheduled_call_id": str(uuid4())})
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key")


@pytest.mark.parametrize("body", [{}, {"scheduled_call_id": "x"}, {"scheduled_call_id": str(uuid4()), "extra": 1}])
async def test_a_malformed_body_names_the_field(product: Product, body: dict[str, object]) -> None:
    answer = await product.client.post(f"/api/calls/initiate/{uuid4()}", json=body, headers={"Idempotency-Key": "a:1"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] in {"scheduled_call_id", "extra"}


async def test_a_key_of_another_attempt_is_stale(product: Product) -> None:
    await add_customer(product.db)
    item = await due(product)
    answer = await initiate(product, item, key=f"{item['scheduled_call_id']}:7")
    assert (answer.status_code, answer.json()["code"]) == (409, "stale_attempt")


async def test_a_stranger_may_not_call_anybody(product: Product) -> None:
    await add_customer(product.db)
    item = await due(product)
    for token in ("", "Bearer wrong", f"Basic {product.config.service_key}"):
        answer = await product.client.post(
            f"/api/calls/initiate/{item['customer_id']}",
            json={"scheduled_call_id": item["scheduled_call_id"]},
            headers={"Idempotency-Key": f"{item['scheduled_call_id']}:1", "Authorization": token},
        )
        assert answer.status_code == 401
    assert await product.dials() == []


async def test_a_customer_who_asked_to_stop_after_the_planning_is_not_dialed(product: Product) -> None:
    customer = await add_customer(product.db)
    item = await due(product)
    async with product.db.transaction() as session:
        phone = (await session.exec(select(Customer.phone_e164).where(Customer.id == customer))).one()
        from backend.calls import service as calls

        await calls.stop_calling(session, phone, source="operator", reason="")
        assert not await calls.stop_calling(session, phone, source="operator", reason="")
    answer = await initiate(product, item)
    assert (answer.status_code, answer.json()["code"]) == (409, "do_not_call")
    row = await scheduled(product)
    assert (row.status, row.reason) == ("skipped", "do_not_call")
    again = await initiate(product, item)
    assert (again.status_code, again.json()["code"]) == (409, "not_pending")
    assert await product.dials() == []


async def test_a_policy_renewed_after_the_planning_is_not_dialed(product: Product) -> None:
    await add_customer(product.db)
    item = await due(product)
    async with product.db.transaction() as session:
        await session.exec(update(Policy).values(status="renewed"))
    answer = await initiate(product, item)
    assert (answer.status_code, answer.json()["code"]) == (409, "policy_not_active")


async def test_outside_the_window_the_call_is_put_off_and_never_dropped(start: Start) -> None:
    hour = utc_now().astimezone(ZoneInfo("Asia/Kolkata")).hour
    shut = "13:00-24:00" if hour < 12 else "00:00-11:00"
    product = await start(CALLS_WINDOW=shut)
    await add_customer(product.db)
    await product.client.post("/api/scheduler/plan")
    row = await scheduled(product)
    item = {"customer_id": str(row.customer_id), "scheduled_call_id": str(row.id), "attempt_no": "1"}
    answer = await initiate(product, item)
    assert (answer.status_code, answer.json()["code"]) == (409, "outside_window")
    row = await scheduled(product)
    assert row.status == "pending"
    assert row.next_attempt_at == datetime.fromisoformat(answer.json()["next_allowed_at"]) > utc_now()


async def test_a_customer_whose_window_the_law_never_allows_is_skipped(start: Start) -> None:
    product = await start(CALLS_WINDOW="10:00-12:00", CALLS_WINDOW_LIMIT="13:00-14:00")
    await add_customer(product.db)
    await product.client.post("/api/scheduler/plan")
    row = await scheduled(product)
    item = {"customer_id": str(row.customer_id), "scheduled_call_id": str(row.id), "attempt_no": "1"}
    answer = await initiate(product, item)
    assert (answer.status_code, answer.json()["code"]) == (409, "no_window")
    assert (await scheduled(product)).status == "skipped"


async def test_a_customer_in_a_call_is_not_called_about_the_other_policy(product: Product) -> None:
    await add_customer(product.db, ANSWERS, policies=2)
    await product.client.post("/api/scheduler/plan")
    items = (await product.client.get("/api/scheduler/pending-customers")).json()["items"]
    first = await initiate(product, items[0])
    second = await initiate(product, items[1])
    assert (second.status_code, second.json()["code"]) == (409, "call_in_progress")
    assert second.json()["call_id"] == first.json()["call_id"]
    async with product.db.transaction() as session:
        row = await session.get(ScheduledCall, UUID(items[1]["scheduled_call_id"]))
    assert row is not None
    assert row.status == "pending"


async def test_the_trunks_calls_per_second_are_kept(start: Start) -> None:
    product = await start(CALLS_PER_SECOND="0.05")
    for _ in range(2):
        await add_customer(product.db, BUSY)
    await product.client.post("/api/scheduler/plan")
    items = (await product.client.get("/api/scheduler/pending-customers")).json()["items"]
    assert (await initiate(product, items[0])).status_code == 202
    late = await initiate(product, items[1])
    assert (late.status_code, late.json()["code"]) == (429, "pace")
    assert int(late.headers["Retry-After"]) == 20


async def test_the_trunks_lines_are_kept(start: Start) -> None:
    product = await start(CALLS_MAX_CONCURRENT="1")
    for _ in range(2):
        await add_customer(product.db, ANSWERS)
    await product.client.post("/api/scheduler/plan")
    items = (await product.client.get("/api/scheduler/pending-customers")).json()["items"]
    assert (await initiate(product, items[0])).status_code == 202
    late = await initiate(product, items[1])
    assert (late.status_code, late.json()["code"]) == (429, "no_line")
    async with product.db.transaction() as session:
        assert len((await session.exec(select(Call).where(col(Call.status) != "x"))).all()) == 1
