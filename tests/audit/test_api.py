"""Reading the logs over HTTP: for admins, filtered, by pages, as files."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from backend.audit.models import LoginEntry, OperationEntry
from backend.core.db import Database
from tests.audit.conftest import Logged
from tests.fixtures.people import People

OPERATIONS, LOGINS = "/api/audit/operations", "/api/audit/logins"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ANA = UUID("0" * 31 + "a")


def operation(minute: int = 0, **fields: Any) -> OperationEntry:
    given: dict[str, Any] = {
        "id": uuid4(),
        "at": NOON + timedelta(minutes=minute),
        "actor_kind": "user",
        "actor": "ana",
        "method": "POST",
        "route": "/api/things/{thing_id}",
        "path": "/api/things/1",
        "status": 200,
        "duration_ms": 1.25,
        "address": "192.0.2.1",
        "request_id": "r-1",
    }
    return OperationEntry(**(given | fields))


def login(minute: int = 0, **fields: Any) -> LoginEntry:
    given: dict[str, Any] = {"id": uuid4(), "at": NOON + timedelta(minutes=minute), "username": "ana"}
    return LoginEntry(**(given | {"outcome": "success", "address": "192.0.2.1", "request_id": "r-1"} | fields))


async def add(db: Database, *entries: OperationEntry | LoginEntry) -> None:
    async with db.transaction() as session:
        for entry in entries:
            session.add(entry)


@pytest.fixture
async def admin(people: People) -> httpx.AsyncClient:
    return (await people.admin()).client


async def found(client: httpx.AsyncClient, url: str, **filters: Any) -> list[dict[str, Any]]:
    answer = await client.get(url, params=filters)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_the_logs_are_for_admins(people: People, admin: httpx.AsyncClient) -> None:
    clients = [await people.client(None), (await people.viewer()).client, (await people.operator()).client]
    for path in (OPERATIONS, LOGINS, f"{OPERATIONS}/export", f"{LOGINS}/export"):
        statuses = [(await client.get(path)).status_code for client in (*clients, people.product.client)]
        assert statuses == [401, 403, 403, 403]
        assert (await admin.get(path)).status_code == 200


@pytest.mark.parametrize("url", [OPERATIONS, LOGINS, f"{OPERATIONS}/1"])
async def test_nobody_changes_the_logs_over_http(admin: httpx.AsyncClient, url: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await admin.request(method, url)).status_code in {404, 405}


async def test_what_people_do_is_found_under_their_name_and_credential(people: People, logged: Logged) -> None:
    otto, ada = await people.operator(), await people.admin()
    await otto.client.post("/api/dead-letters/requeue", json={"limit": 0})
    await logged()
    (entry,) = await found(ada.client, OPERATIONS, user_id=str(otto.id), status="4xx")
    assert (entry["actor_kind"], entry["actor"], entry["method"]) == ("user", "otto", "POST")
    assert (entry["status"], entry["route"]) == (422, "/api/dead-letters/requeue")
    assert (entry["credential_id"], entry["request"]) == (str(otto.session.id), {"body": {"limit": 0}})


async def test_a_login_through_the_door_is_in_both_logs_without_its_password(people: People, logged: Logged) -> None:
    ada = await people.admin()
    await (await people.client(None)).post(
        "/api/auth/login", json={"username": "mallory", "password": "swordfish-4711"}
    )
    await logged()
    (entry,) = await found(ada.client, LOGINS)
    assert (entry["username"], entry["outcome"], entry["address"]) == ("mallory", "unknown_user", "127.0.0.1")
    (operation_entry,) = await found(ada.client, OPERATIONS, request_id=entry["request_id"])
    assert operation_entry["request"]["body"] == {"username": "mallory", "password": "[redacted]"}
    assert "swordfish" not in json.dumps([entry, operation_entry])


@pytest.mark.parametrize(
    "filters",
    [
        {"who": "bea"},
        {"user_id": str(ANA)},
        {"method": "delete"},
        {"route": "/api/others"},
        {"path": "/api/things/2"},
        {"status": "404"},
        {"status": "4xx"},
        {"address": "192.0.2.9"},
        {"request_id": "r-9"},
        {"from": "2026-11-21T12:01:00Z"},
        {"from": "2026-11-21T17:31:00+05:30", "to": "2026-11-21T12:01:00.000001Z"},
        {"who": "bea", "method": "DELETE", "status": "404"},
    ],
)
async def test_operations_are_filtered(people: People, admin: httpx.AsyncClient, filters: dict[str, str]) -> None:
    odd = {"actor": "bea", "user_id": ANA, "method": "DELETE", "route": "/api/others", "path": "/api/things/2"}
    await add(people.product.db, *(operation() for _ in range(3)))
    await add(people.product.db, operation(1, status=404, address="192.0.2.9", request_id="r-9", **odd))
    assert [entry["actor"] for entry in await found(admin, OPERATIONS, **filters)] == ["bea"]
    assert len(await found(admin, OPERATIONS)) == 4


@pytest.mark.parametrize(
    "filters",
    [
        {"who": "bea"},
        {"user_id": str(ANA)},
        {"outcome": "locked"},
        {"address": "192.0.2.9"},
        {"request_id": "r-9"},
        {"from": "2026-11-21T12:01:00Z", "to": "2026-11-21T12:02:00Z"},
    ],
)
async def test_logins_are_filtered(people: People, admin: httpx.AsyncClient, filters: dict[str, str]) -> None:
    await add(people.product.db, *(login() for _ in range(3)))
    odd = {"user_id": ANA, "outcome": "locked", "address": "192.0.2.9", "request_id": "r-9"}
    await add(people.product.db, login(1, username="bea", **odd))
    assert [entry["username"] for entry in await found(admin, LOGINS, **filters)] == ["bea"]
    assert len(await found(admin, LOGINS)) == 4


async def test_the_end_of_a_span_is_not_part_of_it(people: People, admin: httpx.AsyncClient) -> None:
    await add(people.product.db, operation(0), operation(1), operation(2))
    span = {"from": "2026-11-21T12:00:00Z", "to": "2026-11-21T12:02:00Z"}
    assert len(await found(admin, OPERATIONS, **span)) == 2


@pytest.mark.parametrize(
    "filters",
    [
        {"status": "999"},
        {"status": "ok"},
        {"method": "G E T"},
        {"user_id": "ana"},
        {"from": "yesterday"},
        {"from": "2026-11-21T12:00:00"},
        {"from": "2026-11-21T12:00:00Z", "to": "2026-11-21T12:00:00Z"},
        {"to": "9999-12-31T23:59:59Z"},
        {"who": "a\x00"},
        {"limit": "0"},
        {"limit": "501"},
        {"cursor": "nonsense"},
        {"actor": "ana"},
    ],
)
@pytest.mark.parametrize("url", [OPERATIONS, f"{OPERATIONS}/export"])
async def test_bad_filters_are_refused(admin: httpx.AsyncClient, url: str, filters: dict[str, str]) -> None:
    answer = await admin.get(url, params=filters)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


async def test_pages_lead_through_the_whole_log_once_although_it_grows(
    people: People, admin: httpx.AsyncClient
) -> None:
    # Many of one instant: their ids decide.
    await add(people.product.db, *(operation(number // 5) for number in range(23)))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": 4} | ({"cursor": cursor} if cursor else {})
        page = (await admin.get(OPERATIONS, params=params)).json()
        seen += [entry["id"] for entry in page["items"]]
        await add(people.product.db, operation(99))
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 23


async def test_an_export_holds_every_entry_of_the_filter(people: People, admin: httpx.AsyncClient) -> None:
    await add(people.product.db, *(operation(number, request={"body": {"n": number}}) for number in range(2_345)))
    await add(people.product.db, operation(actor="bea"))
    answer = await admin.get(f"{OPERATIONS}/export", params={"format": "jsonl", "who": "ana"})
    entries = [json.loads(line) for line in answer.text.splitlines()]
    assert [entry["request"]["body"]["n"] for entry in entries] == list(range(2_344, -1, -1))
    assert answer.headers["content-type"] == "application/jsonl"
    answer = await admin.get(f"{OPERATIONS}/export", params={"who": "ana"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 2_345
    assert (rows[0]["actor"], rows[0]["status"], rows[0]["user_id"]) == ("ana", "200", "")
    assert json.loads(rows[0]["request"]) == {"body": {"n": 2_344}}
    assert answer.headers["content-disposition"] == 'attachment; filename="operations.csv"'


async def test_an_export_of_nothing_has_its_header(admin: httpx.AsyncClient) -> None:
    answer = await admin.get(f"{LOGINS}/export")
    assert answer.text == "id,at,username,outcome,user_id,address,user_agent,request_id\r\n"
    assert (await admin.get(f"{LOGINS}/export", params={"format": "jsonl"})).text == ""


async def test_a_cell_of_an_export_is_no_formula(people: People, admin: httpx.AsyncClient) -> None:
    await add(people.product.db, login(username="=HYPERLINK(1)", user_agent='@SUM("a,\n")', request_id="\x1b[2J"))
    (row,) = csv.DictReader(io.StringIO((await admin.get(f"{LOGINS}/export")).text))
    assert (row["username"], row["user_agent"]) == ("'=HYPERLINK(1)", '\'@SUM("a,\n")')
    assert row["request_id"] == "\ufffd[2J"
