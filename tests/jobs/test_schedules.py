"""Schedules through the API: creating, refusing, listing, editing, pausing, deleting."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from backend.core.clock import utc_now
from backend.scheduling.recurrence import TZDATA_VERSION
from tests.factories.jobs import add_alert, add_run, add_schedule, add_template, run_row, schedule_row
from tests.fixtures.product import Product

URL = "/api/job-schedules"


async def created(product: Product, **fields: Any) -> dict[str, Any]:
    template_id = fields.pop("template_id", None) or await add_template(product.db)
    when = {} if {"interval_seconds", "run_at"} & fields.keys() else {"cron_expression": "0 2 * * *"}
    answer = await product.client.post(URL, json={"template_id": template_id} | when | fields)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_template_cron_and_credential_are_enough(product: Product) -> None:
    template_id = await add_template(product.db, name="Nightly")
    body = {"template_id": template_id, "cron_expression": "0 2 * * *", "credential_id": 7}
    answer = await product.client.post(URL, json=body)
    assert answer.status_code == 201
    schedule = answer.json()
    assert answer.headers["Location"] == f"/api/job-schedules/{schedule['id']}"
    assert answer.headers["ETag"] == '"1"'
    assert schedule["name"] == "Nightly: 0 2 * * * Asia/Kolkata"
    assert (schedule["timezone"], schedule["schedule_type"], schedule["credential_id"]) == ("Asia/Kolkata", "cron", 7)
    assert (schedule["task"], schedule["queue"], schedule["priority"]) == ("noop", "default", "normal")
    assert (schedule["misfire_grace_seconds"], schedule["managed_by"], schedule["is_active"]) == (3600, "user", True)
    assert schedule["next_run_local"].endswith("T02:00:00+05:30")
    next_run = datetime.fromisoformat(schedule["next_run"])
    assert utc_now() < next_run < utc_now() + timedelta(days=1)
    assert datetime.fromisoformat(schedule["alert_after"]) == next_run + timedelta(seconds=600)
    assert (await schedule_row(product.db, schedule["id"])).tzdata_version == TZDATA_VERSION
    again = (await product.client.post(URL, json=body)).json()
    assert again["name"] == "Nightly: 0 2 * * * Asia/Kolkata (2)"
    assert (await product.client.get(f"{URL}/{schedule['id']}")).json() == schedule


async def test_an_interval_counts_from_its_start(product: Product) -> None:
    start = (utc_now() + timedelta(hours=3)).replace(microsecond=0)
    schedule = await created(product, interval_seconds=90, start_at=start.isoformat())
    assert schedule["schedule_type"] == "interval"
    assert datetime.fromisoformat(schedule["anchor"]) == datetime.fromisoformat(schedule["next_run"]) == start
    from_now = await created(product, interval_seconds=90)
    assert utc_now() < datetime.fromisoformat(from_now["next_run"]) <= utc_now() + timedelta(seconds=90)


async def test_a_single_run_without_an_offset_is_local_time(product: Product) -> None:
    schedule = await created(product, run_at="2031-07-01T08:00", timezone="Europe/Berlin")
    assert schedule["schedule_type"] == "once"
    assert schedule["next_run"] == "2031-07-01T06:00:00Z"
    assert schedule["next_run_local"] == "2031-07-01T08:00:00+02:00"


async def test_parameters_are_laid_over_the_templates(product: Product) -> None:
    template_id = await add_template(product.db, "sleep", parameters={"seconds": 3, "fail": "transient"})
    schedule = await created(product, template_id=template_id, parameters={"seconds": 5})
    assert schedule["arguments"] == {"seconds": 5.0, "fail": "transient"}
    assert (schedule["queue"], schedule["priority"]) == ("low_priority", None)


@pytest.mark.parametrize(
    ("priority", "queue"), [("high", "high_priority"), ("normal", "default"), ("low", "low_priority")]
)
async def test_a_priority_is_a_queue(product: Product, priority: str, queue: str) -> None:
    schedule = await created(product, priority=priority)
    assert (schedule["queue"], schedule["priority"]) == (queue, priority)


async def test_a_skipping_schedule_has_a_minutes_grace_and_a_key_lets_one_run_in(product: Product) -> None:
    schedule = await created(product, misfire_policy="skip", concurrency_key="db", alert_grace_seconds=None)
    assert (schedule["misfire_grace_seconds"], schedule["concurrency_limit"]) == (60, 1)
    assert schedule["alert_after"] is None


PAST, FAR = "2020-01-01T00:00:00Z", "2031-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "schedule_type"),
        ({"cron_expression": "0 2 * * *", "interval_seconds": 5}, "interval_seconds"),
        ({"cron_expression": "0 2 * * *", "schedule_type": "once"}, "schedule_type"),
        ({"cron_expression": "0 2 * *"}, "cron_expression"),
        ({"cron_expression": "0 0 2 * * *"}, "cron_expression"),
        ({"cron_expression": "@reboot"}, "cron_expression"),
        ({"cron_expression": "*/0 * * * *"}, "cron_expression"),
        ({"cron_expression": "0 0 31 2 *"}, "cron_expression"),
        ({"cron_expression": ""}, "cron_expression"),
        ({"cron_expression": 5}, "cron_expression"),
        ({"cron_expression": "0 2 * * *", "timezone": "EST"}, "timezone"),
        ({"cron_expression": "0 2 * * *", "timezone": "Europe/Berlln"}, "timezone"),
        ({"cron_expression": "0 2 * * *", "timezone": ""}, None),
        ({"interval_seconds": 0.5}, "interval_seconds"),
        ({"interval_seconds": -1}, "interval_seconds"),
        ({"interval_seconds": 1e300}, "interval_seconds"),
        ({"run_at": PAST}, "run_at"),
        ({"run_at": 5}, "run_at"),
        ({"run_at": "soon"}, "run_at"),
        ({"run_at": "9999-12-31T23:59:59Z"}, "run_at"),
        ({"run_at": "2031-03-30T02:30", "timezone": "Europe/Berlin"}, "run_at"),
        ({"run_at": FAR, "end_at": "2030-01-01T00:00:00Z"}, "end_at"),
        ({"cron_expression": "0 2 * * *", "start_at": FAR, "end_at": "2030-01-01T00:00:00Z"}, "end_at"),
        ({"cron_expression": "0 2 * * *", "end_at": PAST}, "end_at"),
        ({"cron_expression": "0 2 * * *", "name": " "}, "name"),
        ({"cron_expression": "0 2 * * *", "name": "a\u202eb"}, "name"),
        ({"cron_expression": "0 2 * * *", "name": "a\x00b"}, "name"),
        ({"cron_expression": "0 2 * * *", "name": "a" * 256}, "name"),
        ({"cron_expression": "0 2 * * *", "cron": "x"}, "cron"),
        ({"cron_expression": "0 2 * * *", "anchor": FAR}, "anchor"),
        ({"cron_expression": "0 2 * * *", "max_catchup": 1001}, "max_catchup"),
        ({"cron_expression": "0 2 * * *", "max_runs": 0}, "max_runs"),
        ({"cron_expression": "0 2 * * *", "overlap_policy": "never"}, "overlap_policy"),
        ({"cron_expression": "0 2 * * *", "misfire_policy": "maybe"}, "misfire_policy"),
        ({"cron_expression": "0 2 * * *", "concurrency_limit": 2}, "concurrency_limit"),
        ({"cron_expression": "0 2 * * *", "concurrency_key": "a b"}, "concurrency_key"),
        ({"cron_expression": "0 2 * * *", "timeout_seconds": 261}, "timeout_seconds"),
        ({"cron_expression": "0 2 * * *", "parameters": {"odd": 1}}, "parameters.odd"),
        ({"cron_expression": "0 2 * * *", "parameters": {"note": "a\x00b"}}, "parameters"),
        ({"cron_expression": "0 2 * * *", "template_id": 4711}, "template_id"),
        ({"cron_expression": "0 2 * * *", "template_id": 2**63}, "template_id"),
        ({"cron_expression": "0 2 * * *", "credential_id": 0}, "credential_id"),
    ],
)
async def test_bad_input_names_the_field(product: Product, fields: dict[str, Any], field: str | None) -> None:
    template_id = await add_template(product.db)
    answer = await product.client.post(URL, json={"template_id": template_id} | fields)
    if field is None:
        assert answer.status_code == 201
        return
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field
    assert (await product.client.get(URL)).json()["items"] == []


async def test_a_faulty_expression_is_pointed_at(product: Product) -> None:
    template_id = await add_template(product.db)
    answer = await product.client.post(URL, json={"template_id": template_id, "cron_expression": "0 25 * * *"})
    assert (answer.json()["field"], answer.json()["position"]) == ("cron_expression", 3)


async def test_a_single_run_in_the_past_is_told_what_time_it_is(product: Product) -> None:
    template_id = await add_template(product.db)
    detail = (await product.client.post(URL, json={"template_id": template_id, "run_at": PAST})).json()["detail"]
    assert detail.startswith("run_at: 2020-01-01T00:00:00+00:00 is in the past")
    assert str(utc_now().year) in detail


async def test_a_kind_with_a_queue_of_its_own_takes_no_priority(product: Product) -> None:
    template_id = await add_template(product.db, "call_expiring_policies")
    body = {"template_id": template_id, "cron_expression": "0 2 * * *", "priority": "high"}
    answer = await product.client.post(URL, json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, "priority")


async def test_a_name_is_taken_once(product: Product) -> None:
    schedule = await created(product, name="  Nightly ")
    assert schedule["name"] == "Nightly"
    body = {"template_id": schedule["template_id"], "cron_expression": "0 3 * * *", "name": "Nightly"}
    answer = await product.client.post(URL, json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
    other = await created(product)
    answer = await product.client.patch(f"{URL}/{other['id']}", json={"name": "Nightly"})
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")


async def test_schedules_are_listed_and_filtered(product: Product) -> None:
    ids = [(await created(product, name=f"Nightly {n}"))["id"] for n in range(3)]
    system = await add_schedule(product.db, name="advance-calls", task="advance_calls", queue="scheduled")
    daily = await add_schedule(product.db, task="call_expiring_policies", queue="scheduled")
    await product.client.post(f"{URL}/{ids[0]}/pause")
    seen: list[int] = []
    cursor: str | None = None
    while True:
        paging: dict[str, str | int] = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await product.client.get(URL, params=paging)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [daily, system, *reversed(ids)]
    for query, wanted in (
        ({"managed_by": "system"}, [daily, system]),
        ({"kind": "call_expiring_policies"}, [daily]),
        ({"kind": "noop"}, ids[::-1]),
        ({"kind": "odd"}, []),
        ({"is_active": "false"}, ids[:1]),
        ({"q": "NIGHTLY 2"}, ids[2:]),
        ({"q": "%"}, []),
    ):
        page = (await product.client.get(URL, params=query)).json()
        assert [item["id"] for item in page["items"]] == wanted
    summary = (await product.client.get(f"{URL}/summary")).json()
    assert summary == {"active": 4, "paused": 1, "runs": {}}


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"cursor": "odd"}, {"managed_by": "me"}, {"q": "a\x00"}, {"is_active": "x"}]
)
async def test_a_malformed_query_names_the_field(product: Product, query: dict[str, str]) -> None:
    answer = await product.client.get(URL, params=query)
    assert answer.status_code == 422
    assert next(iter(query)) in answer.json()["detail"]


async def test_an_unknown_schedule_is_not_found(product: Product) -> None:
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/run-now"),
        ("GET", "/occurrences"),
    ):
        answer = await product.client.request(method, f"{URL}/4711{path}", json={} if method == "PATCH" else None)
        assert answer.status_code == 404
    assert (await product.client.get(f"{URL}/0")).status_code == 422
    assert (await product.client.get(f"{URL}/{2**63}")).status_code == 422


async def test_without_the_service_key_nothing_is_answered(product: Product) -> None:
    for path in (URL, "/api/job-templates", "/api/job-kinds", "/api/job-runs", "/api/job-alerts"):
        assert (await product.client.get(path, headers={"Authorization": "Bearer x"})).status_code == 401


async def test_an_edit_of_the_time_takes_effect_at_once_and_withdraws_what_is_not_sent(product: Product) -> None:
    schedule = await created(product)
    waiting = await add_run(product.db, schedule["id"], "waiting")
    jittered = await add_run(product.db, schedule["id"], "pending")
    retrying = await add_run(product.db, schedule["id"], "pending", attempt=1)
    manual = await add_run(product.db, schedule["id"], "waiting", trigger="manual")
    queued = await add_run(product.db, schedule["id"], "queued")
    answer = await product.client.patch(f"{URL}/{schedule['id']}", json={"cron_expression": "30 4 * * *"})
    assert answer.status_code == 200
    edited = answer.json()
    assert (edited["cron_expression"], edited["version"], answer.headers["ETag"]) == ("30 4 * * *", 2, '"2"')
    assert edited["next_run_local"].endswith("T04:30:00+05:30")
    next_run = datetime.fromisoformat(edited["next_run"])
    assert datetime.fromisoformat(edited["alert_after"]) == next_run + timedelta(seconds=600)
    states = {run: await run_row(product.db, run) for run in (waiting, jittered, retrying, manual, queued)}
    assert [states[run].state for run in states] == ["cancelled", "cancelled", "pending", "waiting", "queued"]
    assert states[waiting].reason == "schedule_edited"
    story = (await product.client.get(f"/api/job-runs/{waiting}")).json()["timeline"]
    assert ("cancelled", "the schedule was edited by service") in [
        (entry["event"], entry["message"]) for entry in story
    ]


async def test_an_edit_of_the_name_leaves_time_and_runs_alone(product: Product) -> None:
    schedule = await created(product, interval_seconds=90)
    waiting = await add_run(product.db, schedule["id"], "waiting")
    edited = (await product.client.patch(f"{URL}/{schedule['id']}", json={"name": "Other", "max_catchup": 7})).json()
    changed = {name for name in schedule if edited[name] != schedule[name]}
    assert changed == {"name", "max_catchup", "version", "updated_at"}
    assert (await run_row(product.db, waiting)).state == "waiting"
    same = await product.client.patch(f"{URL}/{schedule['id']}", json={})
    assert same.json() == edited


async def test_a_schedule_changes_its_type(product: Product) -> None:
    schedule = await created(product)
    edited = (await product.client.patch(f"{URL}/{schedule['id']}", json={"interval_seconds": 60})).json()
    assert (edited["schedule_type"], edited["cron_expression"]) == ("interval", None)
    edited = (await product.client.patch(f"{URL}/{schedule['id']}", json={"run_at": FAR})).json()
    assert (edited["schedule_type"], edited["interval_seconds"], edited["anchor"]) == ("once", None, None)
    assert edited["next_run"] == FAR


async def test_a_schedule_changes_template_parameters_and_priority(product: Product) -> None:
    schedule = await created(product, priority="low")
    template_id = await add_template(product.db, "http_request", parameters={"url": "https://example.com/"})
    body = {"template_id": template_id, "parameters": {"method": "HEAD"}}
    edited = (await product.client.patch(f"{URL}/{schedule['id']}", json=body)).json()
    assert (edited["task"], edited["queue"], edited["kind"]) == ("http_request", "low_priority", "http_request")
    assert edited["arguments"] == {"url": "https://example.com/", "method": "HEAD"}
    edited = (await product.client.patch(f"{URL}/{schedule['id']}", json={"priority": None})).json()
    assert edited["queue"] == "default"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cron_expression": None}, "schedule_type"),
        ({"cron_expression": "x"}, "cron_expression"),
        ({"cron_expression": "0 2 * * *", "run_at": FAR}, "run_at"),
        ({"end_at": PAST}, "end_at"),
        ({"name": None}, "name"),
        ({"is_active": None}, "is_active"),
        ({"template_id": 4711}, "template_id"),
        ({"parameters": {"odd": 1}}, "parameters.odd"),
        ({"timeout_seconds": 500}, "timeout_seconds"),
        ({"concurrency_limit": 3}, "concurrency_limit"),
        ({"task": "sleep"}, "task"),
        ({"next_run": FAR}, "next_run"),
    ],
)
async def test_a_bad_edit_names_the_field_and_changes_nothing(
    product: Product, changes: dict[str, Any], field: str
) -> None:
    schedule = await created(product)
    answer = await product.client.patch(f"{URL}/{schedule['id']}", json=changes)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert (await product.client.get(f"{URL}/{schedule['id']}")).json() == schedule


async def test_an_edit_of_an_old_version_is_refused(product: Product) -> None:
    schedule = await created(product)
    url = f"{URL}/{schedule['id']}"
    first = await product.client.patch(url, json={"name": "First"}, headers={"If-Match": '"1"'})
    assert first.status_code == 200
    for body, headers in (({"name": "Late"}, {"If-Match": '"1"'}), ({"name": "Late", "version": 1}, {})):
        answer = await product.client.patch(url, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"], answer.json()["version"]) == (412, "stale", 2)
    assert (await product.client.patch(url, json={"name": "Any"}, headers={"If-Match": "*"})).status_code == 200
    assert (await product.client.patch(url, json={"name": "Odd"}, headers={"If-Match": "odd"})).status_code == 422


async def test_what_belongs_to_the_system_can_be_tuned_but_not_replaced(product: Product) -> None:
    schedule_id = await add_schedule(product.db, task="call_expiring_policies", queue="scheduled")
    url = f"{URL}/{schedule_id}"
    tuned = await product.client.patch(url, json={"cron_expression": "0 9 * * *", "overlap_policy": "allow"})
    assert tuned.status_code == 200
    assert tuned.json()["next_run"].endswith("T09:00:00Z")
    replacing: list[dict[str, Any]] = [{"name": "Mine"}, {"template_id": 1}, {"parameters": {}}, {"priority": "low"}]
    for body in replacing:
        answer = await product.client.patch(url, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "system_schedule")
    answer = await product.client.delete(url)
    assert (answer.status_code, answer.json()["code"]) == (409, "system_schedule")
    assert "pause" in answer.json()["detail"]
    assert (await product.client.post(f"{url}/pause")).json()["is_active"] is False


async def test_pausing_closes_the_alert_and_resuming_goes_on_from_now(product: Product) -> None:
    overdue = utc_now() - timedelta(hours=5)
    schedule_id = await add_schedule(product.db, await add_template(product.db), next_run=overdue, last_error="odd")
    alert_id = await add_alert(product.db, schedule_id)
    for _ in range(2):
        paused = (await product.client.post(f"{URL}/{schedule_id}/pause")).json()
        assert (paused["is_active"], paused["alert_after"], paused["version"]) == (False, None, 2)
    assert (await product.client.get(f"/api/job-alerts/{alert_id}")).json()["resolved_at"] is not None
    for _ in range(2):
        resumed = (await product.client.post(f"{URL}/{schedule_id}/resume")).json()
        assert (resumed["is_active"], resumed["version"], resumed["last_error"]) == (True, 3, None)
        assert datetime.fromisoformat(resumed["next_run"]) > utc_now()
        assert resumed["alert_after"] is not None


async def test_resuming_with_catch_up_keeps_what_came_due(product: Product) -> None:
    overdue = utc_now() - timedelta(hours=5)
    schedule_id = await add_schedule(product.db, await add_template(product.db), next_run=overdue, is_active=False)
    resumed = (await product.client.post(f"{URL}/{schedule_id}/resume", json={"catch_up": True})).json()
    assert datetime.fromisoformat(resumed["next_run"]) == overdue
    assert datetime.fromisoformat(resumed["alert_after"]) > utc_now()


async def test_a_schedule_that_is_over_is_not_resumed(product: Product) -> None:
    schedule_id = await add_schedule(
        product.db, await add_template(product.db), is_active=False, next_run=None, max_runs=2, run_count=2
    )
    answer = await product.client.post(f"{URL}/{schedule_id}/resume")
    assert (answer.status_code, answer.json()["code"]) == (409, "over")
    more = (await product.client.patch(f"{URL}/{schedule_id}", json={"max_runs": 3, "is_active": True})).json()
    assert datetime.fromisoformat(more["next_run"]) > utc_now()
    less = (await product.client.patch(f"{URL}/{schedule_id}", json={"max_runs": 1})).json()
    assert less["next_run"] is None


async def test_pausing_and_resuming_by_an_edit_is_the_same(product: Product) -> None:
    schedule = await created(product)
    url = f"{URL}/{schedule['id']}"
    paused = (await product.client.patch(url, json={"is_active": False})).json()
    assert (paused["is_active"], paused["alert_after"]) == (False, None)
    resumed = (await product.client.patch(url, json={"is_active": True})).json()
    assert (resumed["next_run"], resumed["alert_after"]) == (schedule["next_run"], schedule["alert_after"])


async def test_a_deleted_schedule_leaves_its_runs(product: Product) -> None:
    schedule = await created(product)
    done = await add_run(product.db, schedule["id"])
    waiting = await add_run(product.db, schedule["id"], "waiting")
    running = await add_run(product.db, schedule["id"], "running")
    assert (await product.client.delete(f"{URL}/{schedule['id']}")).status_code == 204
    assert (await product.client.delete(f"{URL}/{schedule['id']}")).status_code == 404
    rows = [await run_row(product.db, run) for run in (done, waiting, running)]
    assert [(row.state, row.schedule_id) for row in rows] == [
        ("succeeded", None),
        ("cancelled", None),
        ("running", None),
    ]
