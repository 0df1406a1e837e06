"""Reading calls and plans, and importing through the API."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlmodel import select

from backend.calls.models import Customer
from backend.core.clock import utc_now
from tests.calls.test_webhooks import accepted
from tests.factories.people import add_customer
from tests.fixtures.product import Product

HEADER = "customer_ref,full_name,phone,policy_number,expiry_date\n"


async def test_calls_come_newest_first_page_by_page(product: Product) -> None:
    made = [(await accepted(product)).id for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await product.client.get("/api/calls", params=query)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [str(call) for call in reversed(made)]


async def test_calls_can_be_filtered(product: Product) -> None:
    call = await accepted(product)
    await accepted(product)
    soon = (utc_now() + timedelta(hours=1)).isoformat()
    for query, count in (
        ({"status": "dialing"}, 2),
        ({"status": "completed"}, 0),
        ({"customer_id": str(call.customer_id)}, 1),
        ({"since": soon}, 0),
    ):
        assert len((await product.client.get("/api/calls", params=query)).json()["items"]) == count


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "501"},
        {"status": "odd"},
        {"cursor": "odd"},
        {"since": "2026-11-21T10:00:00"},
        {"since": "9999-12-31T23:59:59-12:00"},
        {"since": "0001-01-01T00:00:00+14:00"},
    ],
)
async def test_a_malformed_query_names_the_field(product: Product, query: dict[str, str]) -> None:
    answer = await product.client.get("/api/calls", params=query)
    assert answer.status_code == 422
    assert next(iter(query)) in answer.json()["detail"]


async def test_an_unknown_call_is_not_found(product: Product) -> None:
    assert (await product.client.get(f"/api/calls/{uuid4()}")).status_code == 404


async def test_a_plan_is_listed_with_its_customers_and_reasons(product: Product) -> None:
    await add_customer(product.db, do_not_call=True)
    for _ in range(2):
        await add_customer(product.db)
    planned = await product.client.post("/api/scheduler/plan", json={"horizon_days": 10})
    assert planned.json() == {"planned": 2, "skipped": {"do_not_call": 1}}
    page = (await product.client.get("/api/scheduler/scheduled-calls", params={"limit": 2})).json()
    rest = (await product.client.get("/api/scheduler/scheduled-calls", params={"cursor": page["next_cursor"]})).json()
    rows = page["items"] + rest["items"]
    assert sorted((row["status"], row["reason"]) for row in rows) == [
        ("pending", None),
        ("pending", None),
        ("skipped", "do_not_call"),
    ]
    skipped = (await product.client.get("/api/scheduler/scheduled-calls", params={"status": "skipped"})).json()
    assert len(skipped["items"]) == 1
    summary = (await product.client.get("/api/scheduler/summary")).json()
    assert summary == {"scheduled_calls": {"pending": 2, "skipped": 1}, "calls": {}}


@pytest.mark.parametrize("body", [{"horizon_days": -1}, {"horizon_days": 400}, {"day": "soon"}, {"horizon": 3}])
async def test_a_malformed_plan_names_the_field(product: Product, body: dict[str, object]) -> None:
    answer = await product.client.post("/api/scheduler/plan", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == next(iter(body))


async def test_a_file_is_imported_and_a_bad_row_is_named(product: Product) -> None:
    day = (utc_now() + timedelta(days=5)).date().isoformat()
    content = f"{HEADER}C1,Asha,+919800000200,P1,{day}\nC2,Ravi,12,P2,{day}\n"
    answer = await product.client.post("/api/imports", files={"file": ("people.csv", content)})
    assert answer.status_code == 201
    done = answer.json()
    assert (done["filename"], done["created"], done["failed"]) == ("people.csv", 1, 1)
    assert (done["errors"][0]["line"], done["errors"][0]["field"]) == (3, "phone")
    assert (await product.client.get(f"/api/imports/{done['id']}")).json() == done
    errors = (await product.client.get(f"/api/imports/{done['id']}/errors")).json()
    assert errors == done["errors"]
    again = (await product.client.post("/api/imports", files={"file": ("people.csv", content)})).json()
    assert (again["created"], again["changed"], again["unchanged"]) == (0, 0, 1)


async def test_a_column_of_another_name_can_be_mapped(product: Product) -> None:
    day = (utc_now() + timedelta(days=5)).date().isoformat()
    content = f"customer_ref,full_name,Handy,policy_number,expiry_date\nC1,Asha,+919800000200,P1,{day}\n"
    answer = await product.client.post(
        "/api/imports", files={"file": ("people.csv", content)}, data={"mapping": '{"Handy": "phone"}'}
    )
    assert answer.json()["created"] == 1


@pytest.mark.parametrize("mapping", ["no json", "[]", '{"a": 1}', '{"Handy": "shoe"}'])
async def test_a_malformed_mapping_is_refused(product: Product, mapping: str) -> None:
    answer = await product.client.post(
        "/api/imports", files={"file": ("people.csv", HEADER)}, data={"mapping": mapping}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "mapping")


async def test_a_file_without_its_columns_or_no_file_at_all_is_refused(product: Product) -> None:
    assert (await product.client.post("/api/imports", files={"file": ("x.csv", "a,b\n1,2\n")})).status_code == 422
    assert (await product.client.post("/api/imports")).status_code == 422


async def test_an_unknown_import_is_not_found(product: Product) -> None:
    assert (await product.client.get(f"/api/imports/{uuid4()}")).status_code == 404


async def test_an_operator_puts_a_number_on_the_do_not_call_list_and_takes_it_off(product: Product) -> None:
    await add_customer(product.db)
    await product.client.post("/api/scheduler/plan")
    async with product.db.transaction() as session:
        phone = (await session.exec(select(Customer.phone_e164))).one()
    added = [await product.client.post("/api/do-not-call", json={"phone": phone, "reason": "letter"}) for _ in range(2)]
    assert [answer.status_code for answer in added] == [201, 200]
    assert (await product.client.get("/api/scheduler/pending-customers")).json() == {"items": []}
    assert (await product.client.delete(f"/api/do-not-call/{phone}")).status_code == 204
    assert (await product.client.delete(f"/api/do-not-call/{phone}")).status_code == 404
    assert len((await product.client.get("/api/scheduler/pending-customers")).json()["items"]) == 1


@pytest.mark.parametrize("body", [{}, {"phone": "12"}, {"phone": "+919800000200", "why": "x"}])
async def test_a_malformed_number_for_the_list_names_the_field(product: Product, body: dict[str, str]) -> None:
    answer = await product.client.post("/api/do-not-call", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] in {"phone", "why"}
