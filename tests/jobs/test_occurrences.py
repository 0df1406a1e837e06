"""Every expected occurrence and its fate; looking ahead; incidents."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import null

from backend.core.clock import utc_now
from tests.factories.jobs import add_alert, add_run, add_schedule, add_template
from tests.fixtures.product import Product

SCHEDULES = "/api/job-schedules"


async def occurrences(product: Product, schedule_id: int, **query: Any) -> list[dict[str, Any]]:
    answer = await product.client.get(f"{SCHEDULES}/{schedule_id}/occurrences", params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def hourly(product: Product, **fields: Any) -> int:
    return await add_schedule(product.db, await add_template(product.db), **fields)


async def test_every_fate_is_told_with_its_reason(product: Product) -> None:
    schedule_id = await hourly(product, timezone="Asia/Kolkata")
    start = utc_now().replace(minute=0, second=0, microsecond=0) - timedelta(days=1)
    blocker = uuid4()
    rows: list[tuple[str, dict[str, Any]]] = [
        ("succeeded", {}),
        ("skipped", {"reason": "overlap", "blocked_by": blocker}),
        ("coalesced", {"reason": "merged", "blocked_by": blocker}),
        ("missed", {"reason": "too_late"}),
        ("cancelled", {"reason": "schedule_edited"}),
        ("failed", {"reason": "something_new"}),
    ]
    for hour, (state, fields) in enumerate(rows):
        await add_run(product.db, schedule_id, state, scheduled_for=start + timedelta(hours=hour), **fields)
    await add_run(product.db, schedule_id, "succeeded", trigger="manual")
    told = await occurrences(product, schedule_id)
    assert [(one["fate"], one["state"]) for one in told] == [
        ("run", "failed"),
        ("run", "cancelled"),
        ("missed", "missed"),
        ("coalesced", "coalesced"),
        ("skipped", "skipped"),
        ("run", "succeeded"),
    ]
    assert told[0]["reason"] == "something new"
    assert told[1]["reason"] == "cancelled: the schedule was edited before it was sent"
    assert told[3]["reason"] == f"merged into a later run of the same backlog (run {blocker})"
    assert told[4]["reason"] == f"skipped: the run before it had not ended (run {blocker})"
    assert told[4]["blocked_by"] == str(blocker)
    assert told[5]["local"].endswith("+05:30")
    assert all(one["count"] == 1 and one["run_id"] for one in told)


async def test_a_row_for_a_range_is_counted(product: Product) -> None:
    schedule_id = await hourly(product, cron_expression="* * * * *")
    last = datetime.fromisoformat("2026-03-02T00:00:00+00:00")
    await add_run(
        product.db,
        schedule_id,
        "missed",
        scheduled_for=last,
        covers_from=last - timedelta(days=7),
        occurrences=null(),
        reason="too_late",
    )
    await add_run(
        product.db, schedule_id, "missed", scheduled_for=last - timedelta(days=8), covers_from=last, occurrences=12
    )
    told = await occurrences(product, schedule_id)
    assert [one["count"] for one in told] == [7 * 24 * 60 + 1, 12]
    assert told[0]["covers_from"] == "2026-02-23T00:00:00Z"


async def test_occurrences_come_page_by_page(product: Product) -> None:
    schedule_id = await hourly(product)
    start = utc_now() - timedelta(days=2)
    ids = [str(await add_run(product.db, schedule_id, scheduled_for=start + timedelta(hours=n))) for n in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    url = f"{SCHEDULES}/{schedule_id}/occurrences"
    while True:
        query = {"limit": 2, "upcoming": 1} | ({"cursor": cursor} if cursor else {})
        page = (await product.client.get(url, params=query)).json()
        seen += [item["run_id"] for item in page["items"] if item["fate"] != "upcoming"]
        assert ("upcoming" in [item["fate"] for item in page["items"]]) == (cursor is None)
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]


async def test_the_next_ones_are_told_up_to_the_end(product: Product) -> None:
    next_run = (utc_now() + timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)
    schedule_id = await hourly(product, next_run=next_run, end_at=next_run + timedelta(hours=1))
    told = await occurrences(product, schedule_id, upcoming=5)
    assert [one["fate"] for one in told] == ["upcoming", "upcoming"]
    assert datetime.fromisoformat(told[1]["scheduled_for"]) == next_run
    last_one = await hourly(product, next_run=next_run, max_runs=3, run_count=2)
    assert len(await occurrences(product, last_one, upcoming=5)) == 1
    paused = await hourly(product, is_active=False)
    assert await occurrences(product, paused, upcoming=5) == []


async def test_what_is_due_and_has_no_row_is_deferred_and_says_why(product: Product) -> None:
    overdue = (utc_now() - timedelta(hours=3)).replace(minute=0, second=0, microsecond=0)
    fields = {"next_run": overdue, "last_error": "no such zone", "deferred_until": utc_now() + timedelta(seconds=60)}
    told = await occurrences(product, await hourly(product, **fields))
    assert len(told) in {3, 4}
    assert {one["fate"] for one in told} == {"deferred"}
    assert all("no such zone" in one["reason"] for one in told)
    assert datetime.fromisoformat(told[-1]["scheduled_for"]) == overdue
    waiting = await occurrences(product, await hourly(product, next_run=overdue))
    assert waiting[0]["reason"] == "due, and not dispatched yet"


async def test_a_long_backlog_is_told_as_a_range(product: Product) -> None:
    overdue = (utc_now() - timedelta(hours=300)).replace(minute=0, second=0, microsecond=0)
    told = await occurrences(product, await hourly(product, next_run=overdue))
    assert len(told) == 101
    assert datetime.fromisoformat(told[-1]["covers_from"]) == overdue
    assert sum(one["count"] for one in told) in {300, 301}


async def test_a_time_that_cannot_be_understood_is_told_once(product: Product) -> None:
    overdue = utc_now() - timedelta(hours=1)
    schedule_id = await hourly(product, next_run=overdue, cron_expression="odd", last_error="cannot be understood")
    told = await occurrences(product, schedule_id, upcoming=3)
    assert [(one["fate"], one["count"]) for one in told] == [("deferred", 1)]
    schedule = (await product.client.get(f"{SCHEDULES}/{schedule_id}")).json()
    assert (schedule["explanation"], schedule["last_error"]) == (None, "cannot be understood")


@pytest.mark.parametrize("query", [{"upcoming": "51"}, {"cursor": "odd"}, {"limit": "0"}])
async def test_a_malformed_query_names_the_field(product: Product, query: dict[str, str]) -> None:
    answer = await product.client.get(f"{SCHEDULES}/{await hourly(product)}/occurrences", params=query)
    assert answer.status_code == 422
    assert next(iter(query)) in answer.json()["detail"]


async def preview(product: Product, **body: Any) -> dict[str, Any]:
    answer = await product.client.post(f"{SCHEDULES}/preview", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_preview_names_the_change_of_the_clock(product: Product) -> None:
    found = await preview(
        product, cron_expression="30 2 * * *", timezone="Europe/Berlin", after="2031-03-28T12:00", count=3
    )
    assert found["timezone"] == "Europe/Berlin"
    assert "02:30" in found["explanation"]
    assert [one["local"] for one in found["occurrences"]] == [
        "2031-03-29T02:30:00+01:00",
        "2031-03-30T03:00:00+02:00",
        "2031-03-31T02:30:00+02:00",
    ]
    shifted = found["occurrences"][1]
    assert (shifted["dst"], shifted["utc"]) == ("shifted", "2031-03-30T01:00:00Z")
    assert "02:30 does not exist" in shifted["note"]


async def test_a_preview_of_an_interval_and_of_a_single_run(product: Product) -> None:
    found = await preview(
        product, interval_seconds=3600, start_at="2031-01-01T00:00:00Z", end_at="2031-01-01T02:00:00Z"
    )
    assert [one["utc"] for one in found["occurrences"]] == [f"2031-01-01T0{hour}:00:00Z" for hour in range(3)]
    assert found["explanation"].startswith("Every 3600 seconds from 2031-01-01T05:30:00+05:30")
    found = await preview(product, run_at="2031-07-01T08:00", timezone="Europe/Berlin")
    assert [one["local"] for one in found["occurrences"]] == ["2031-07-01T08:00:00+02:00"]
    found = await preview(
        product, cron_expression="0 2 * * *", end_at="2031-01-01T00:00:00Z", after="2032-01-01T00:00Z"
    )
    assert found["occurrences"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "schedule_type"),
        ({"cron_expression": "0 25 * * *"}, "cron_expression"),
        ({"cron_expression": "0 2 * * *", "timezone": "Mars/Base"}, "timezone"),
        ({"cron_expression": "0 2 * * *", "count": 51}, "count"),
        ({"run_at": "2020-01-01T00:00:00Z"}, "run_at"),
        ({"interval_seconds": 0}, "interval_seconds"),
        ({"cron_expression": "0 2 * * *", "template_id": 1}, "template_id"),
    ],
)
async def test_a_malformed_preview_names_the_field(product: Product, body: dict[str, Any], field: str) -> None:
    answer = await product.client.post(f"{SCHEDULES}/preview", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


async def test_incidents_are_listed_and_filtered(product: Product) -> None:
    first = await hourly(product, name="Nightly", timezone="Asia/Kolkata")
    second = await hourly(product)
    done = await add_alert(product.db, first, resolved_at=utc_now())
    still, other = await add_alert(product.db, first), await add_alert(product.db, second)
    for query, wanted in (
        ({}, [other, still, done]),
        ({"open": "true"}, [other, still]),
        ({"open": "false"}, [done]),
        ({"schedule_id": first}, [still, done]),
    ):
        page = (await product.client.get("/api/job-alerts", params=query)).json()
        assert [alert["id"] for alert in page["items"]] == wanted
    page = (await product.client.get("/api/job-alerts", params={"limit": 2})).json()
    rest = (await product.client.get("/api/job-alerts", params={"cursor": page["next_cursor"]})).json()
    assert [alert["id"] for alert in rest["items"]] == [done]
    alert = (await product.client.get(f"/api/job-alerts/{still}")).json()
    assert (alert["schedule_name"], alert["expected_local"]) == ("Nightly", "2026-11-22T02:00:00+05:30")
    assert (await product.client.get("/api/job-alerts/4711")).status_code == 404
