"""Runs through the API: run now, backfill, cancel, again, reading."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from backend.core.clock import utc_now
from backend.scheduling.occurrences import run_id
from tests.factories.jobs import add_event, add_run, add_schedule, add_template, run_row
from tests.fixtures.product import Product

RUNS, SCHEDULES = "/api/job-runs", "/api/job-schedules"


async def scheduled(product: Product, **fields: Any) -> int:
    return await add_schedule(product.db, await add_template(product.db), **fields)


async def test_run_now_makes_a_run_out_of_the_schedule(product: Product) -> None:
    schedule_id = await scheduled(product, arguments={"note": "x"}, max_attempts=4, timeout_seconds=9, is_active=False)
    answer = await product.client.post(f"{SCHEDULES}/{schedule_id}/run-now")
    assert answer.status_code == 202
    run = answer.json()
    assert answer.headers["Location"] == f"{RUNS}/{run['id']}"
    assert (run["state"], run["trigger"], run["triggered_by"], run["kind"]) == ("pending", "manual", "service", "noop")
    row = await run_row(product.db, run["id"])
    assert (row.arguments, row.max_attempts, row.timeout_seconds, row.serial) == ({"note": "x"}, 4, 9, True)
    assert row.relay_until is None
    assert abs(row.scheduled_for - utc_now()) < timedelta(seconds=10)


async def test_a_key_starts_one_run(product: Product) -> None:
    schedule_id, other = await scheduled(product), await scheduled(product)
    url, headers = f"{SCHEDULES}/{schedule_id}/run-now", {"Idempotency-Key": "k-1"}
    answers = await asyncio.gather(*(product.client.post(url, headers=headers) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    replays = [answer.headers.get("Idempotent-Replay") for answer in answers if answer.status_code == 200]
    assert replays == ["true"] * 3
    answer = await product.client.post(f"{SCHEDULES}/{other}/run-now", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key")
    answer = await product.client.post(url, headers={"Idempotency-Key": "a b"})
    assert answer.status_code == 422


async def test_skip_lets_no_second_run_in_and_names_the_first(product: Product) -> None:
    schedule_id = await scheduled(product, overlap_policy="skip")
    running = await add_run(product.db, schedule_id, "running")
    answer = await product.client.post(f"{SCHEDULES}/{schedule_id}/run-now")
    assert (answer.status_code, answer.json()["code"], answer.json()["run_id"]) == (409, "overlap", str(running))


async def test_allow_lets_every_run_in(product: Product) -> None:
    schedule_id = await scheduled(product, overlap_policy="allow")
    await add_run(product.db, schedule_id, "running")
    run = (await product.client.post(f"{SCHEDULES}/{schedule_id}/run-now")).json()
    assert run["state"] == "pending"


async def test_queue_one_lets_one_wait(product: Product) -> None:
    schedule_id = await scheduled(product, overlap_policy="queue_one")
    running = await add_run(product.db, schedule_id, "running")
    run = (await product.client.post(f"{SCHEDULES}/{schedule_id}/run-now")).json()
    assert (run["state"], run["blocked_by"], run["reason_code"]) == ("waiting", str(running), "overlap")
    assert str(running) in run["reason"]
    answer = await product.client.post(f"{SCHEDULES}/{schedule_id}/run-now")
    assert (answer.status_code, answer.json()["run_id"]) == (409, run["id"])


async def test_queue_all_lets_all_wait(product: Product) -> None:
    schedule_id = await scheduled(product, overlap_policy="queue_all")
    states = [(await product.client.post(f"{SCHEDULES}/{schedule_id}/run-now")).json()["state"] for _ in range(3)]
    assert states == ["pending", "waiting", "waiting"]


async def test_cancel_previous_cancels_what_is_under_way(product: Product) -> None:
    schedule_id = await scheduled(product, overlap_policy="cancel_previous")
    queued, running = [await add_run(product.db, schedule_id, state) for state in ("queued", "running")]
    behind = await add_run(product.db, schedule_id, "waiting", trigger="backfill")
    run = (await product.client.post(f"{SCHEDULES}/{schedule_id}/run-now")).json()
    assert (run["state"], run["blocked_by"]) == ("waiting", str(running))
    assert (await run_row(product.db, queued)).state == "cancelled"
    assert (await run_row(product.db, behind)).state == "waiting"
    stopping = await run_row(product.db, running)
    assert stopping.state == "running"
    assert stopping.cancel_requested_at is not None
    kinds = [entry["event"] for entry in (await product.client.get(f"{RUNS}/{running}")).json()["timeline"]]
    assert "cancel_requested" in kinds


async def test_a_concurrency_key_is_let_in_by_the_engine(product: Product) -> None:
    schedule_id = await scheduled(product, overlap_policy="allow", concurrency_key="db", concurrency_limit=1)
    run = (await product.client.post(f"{SCHEDULES}/{schedule_id}/run-now")).json()
    assert (run["state"], run["reason_code"]) == ("waiting", "concurrency_key")


async def test_only_one_of_many_gets_in_under_skip(product: Product) -> None:
    schedule_id = await scheduled(product, overlap_policy="skip")
    url = f"{SCHEDULES}/{schedule_id}/run-now"
    answers = await asyncio.gather(*(product.client.post(url) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409, 409]


FIRST = datetime(2026, 3, 1, tzinfo=UTC)


async def test_a_backfill_runs_what_has_no_run_and_repeating_adds_nothing(product: Product) -> None:
    schedule_id = await scheduled(product)
    await add_run(product.db, schedule_id, "succeeded", scheduled_for=FIRST)
    await add_run(product.db, schedule_id, "running", scheduled_for=FIRST + timedelta(hours=1))
    await add_run(product.db, schedule_id, "missed", scheduled_for=FIRST + timedelta(hours=2))
    body = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-01T04:30:00Z"}
    url = f"{SCHEDULES}/{schedule_id}/backfill"
    answer = await product.client.post(url, json=body)
    assert (answer.status_code, answer.json()) == (
        202,
        {"occurrences": 5, "created": 3, "present": 2, "next_from": None},
    )
    row = await run_row(product.db, run_id(schedule_id, FIRST + timedelta(hours=2), "backfill"))
    assert (row.state, row.trigger, row.triggered_by) == ("waiting", "backfill", "service")
    assert (await product.client.post(url, json=body)).json()["created"] == 0


async def test_a_backfill_says_where_its_limit_stopped_it(product: Product) -> None:
    schedule_id = await scheduled(product, overlap_policy="allow", timezone="Asia/Kolkata")
    body = {"from": "2026-03-01T00:00", "to": "2026-03-01T06:00", "limit": 3}
    answer = (await product.client.post(f"{SCHEDULES}/{schedule_id}/backfill", json=body)).json()
    assert answer == {"occurrences": 3, "created": 3, "present": 0, "next_from": "2026-02-28T21:30:00Z"}
    runs = (await product.client.get(RUNS, params={"schedule_id": schedule_id})).json()["items"]
    assert {run["state"] for run in runs} == {"pending"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"to": "2026-03-01T00:00:00Z"}, "from"),
        ({"from": "2026-03-01T00:00:00Z", "to": "2031-03-01T00:00:00Z"}, "to"),
        ({"from": "2026-03-02T00:00:00Z", "to": "2026-03-01T00:00:00Z"}, "from"),
        ({"from": "2026-03-01T00:00:00Z", "to": "2026-03-01T00:00:00Z", "limit": 1001}, "limit"),
        ({"from": 1, "to": "2026-03-01T00:00:00Z"}, "from"),
    ],
)
async def test_a_malformed_backfill_names_the_field(product: Product, body: dict[str, Any], field: str) -> None:
    schedule_id = await scheduled(product)
    answer = await product.client.post(f"{SCHEDULES}/{schedule_id}/backfill", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


@pytest.mark.parametrize("state", ["waiting", "pending", "queued"])
async def test_a_run_that_no_worker_has_is_cancelled_at_once(product: Product, state: str) -> None:
    run = await add_run(product.db, await scheduled(product), state)
    for _ in range(2):
        answer = await product.client.post(f"{RUNS}/{run}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    read = (await product.client.get(f"{RUNS}/{run}")).json()
    assert [entry["event"] for entry in read["timeline"]].count("cancelled") == 1
    assert read["finished_at"] is not None


async def test_a_run_under_way_is_asked_to_stop(product: Product) -> None:
    run = await add_run(product.db, None, "running", attempt=1, started_at=utc_now())
    for _ in range(2):
        answer = await product.client.post(f"{RUNS}/{run}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "running")
        assert answer.json()["cancel_requested_at"] is not None
    events = [entry["event"] for entry in (await product.client.get(f"{RUNS}/{run}")).json()["timeline"]]
    assert events.count("cancel_requested") == 1


@pytest.mark.parametrize("state", ["succeeded", "failed", "dead", "missed", "skipped", "coalesced"])
async def test_a_run_that_has_ended_is_not_cancelled(product: Product, state: str) -> None:
    run = await add_run(product.db, None, state)
    answer = await product.client.post(f"{RUNS}/{run}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "finished")


@pytest.mark.parametrize("state", ["succeeded", "failed", "dead", "cancelled", "missed", "skipped"])
async def test_a_finished_run_can_be_run_again(product: Product, state: str) -> None:
    old = await add_run(product.db, await scheduled(product), state, arguments={"note": "x"}, error="odd", attempt=3)
    answer = await product.client.post(f"{RUNS}/{old}/retry")
    assert answer.status_code == 202
    run = answer.json()
    assert answer.headers["Location"] == f"{RUNS}/{run['id']}"
    assert (run["state"], run["trigger"], run["replay_of"], run["attempt"]) == ("pending", "replay", str(old), 0)
    assert (run["error"], run["finished_at"], run["reason"]) == (None, None, None)
    new = await run_row(product.db, run["id"])
    assert (new.arguments, new.scheduled_for) == ({"note": "x"}, (await run_row(product.db, old)).scheduled_for)
    story = (await product.client.get(f"{RUNS}/{old}")).json()["timeline"]
    assert story[-1]["event"] == "replayed"
    assert story[-1]["detail"] == {"run_id": run["id"]}


async def test_a_key_repeats_a_run_once(product: Product) -> None:
    schedule_id = await scheduled(product)
    old, other = await add_run(product.db, schedule_id, "failed"), await add_run(product.db, schedule_id, "failed")
    headers = {"Idempotency-Key": "again-1"}
    answers = await asyncio.gather(*(product.client.post(f"{RUNS}/{old}/retry", headers=headers) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    for url in (f"{RUNS}/{other}/retry", f"{SCHEDULES}/{schedule_id}/run-now"):
        answer = await product.client.post(url, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key")


async def test_a_key_repeats_a_run_without_a_schedule_once(product: Product) -> None:
    url = f"{RUNS}/{await add_run(product.db, None, 'failed')}/retry"
    headers = {"Idempotency-Key": "again-2"}
    answers = await asyncio.gather(*(product.client.post(url, headers=headers) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 202]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_repeated_run_waits_for_the_one_under_way(product: Product) -> None:
    schedule_id = await scheduled(product)
    old = await add_run(product.db, schedule_id, "failed", serial=True)
    running = await add_run(product.db, schedule_id, "running", serial=True)
    run = (await product.client.post(f"{RUNS}/{old}/retry")).json()
    assert (run["state"], run["blocked_by"]) == ("waiting", str(running))


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("waiting", "active"),
        ("pending", "active"),
        ("queued", "active"),
        ("running", "active"),
        ("coalesced", "merged"),
    ],
)
async def test_what_has_not_ended_is_not_run_again(product: Product, state: str, code: str) -> None:
    run = await add_run(product.db, None, state)
    answer = await product.client.post(f"{RUNS}/{run}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, code)


async def test_runs_come_newest_first_and_are_filtered(product: Product) -> None:
    schedule_id = await scheduled(product)
    at = utc_now() - timedelta(days=1)
    ids = [
        str(await add_run(product.db, schedule_id, state, created_at=at + timedelta(minutes=n), trigger=trigger))
        for n, (state, trigger) in enumerate(
            [("succeeded", "schedule"), ("failed", "schedule"), ("dead", "manual"), ("running", "schedule")]
        )
    ]
    other = str(await add_run(product.db, None, job_template_id=77))
    first = (await product.client.get(RUNS, params={"limit": 3})).json()
    rest = (await product.client.get(RUNS, params={"cursor": first["next_cursor"]})).json()
    assert [run["id"] for run in first["items"] + rest["items"]] == [other, *reversed(ids)]
    since = (at + timedelta(minutes=1)).isoformat()
    until = (at + timedelta(minutes=2)).isoformat()
    queries: list[tuple[dict[str, Any], list[str]]] = [
        ({"state": ["failed", "dead"]}, [ids[2], ids[1]]),
        ({"schedule_id": schedule_id, "trigger": "manual"}, [ids[2]]),
        ({"template_id": 77}, [other]),
        ({"since": since, "until": until}, [ids[1]]),
    ]
    for query, wanted in queries:
        page = (await product.client.get(RUNS, params=query)).json()
        assert [run["id"] for run in page["items"]] == wanted


@pytest.mark.parametrize(
    "query", [{"state": "odd"}, {"trigger": "odd"}, {"since": "2026-11-21T10:00"}, {"until": "5"}, {"cursor": "odd"}]
)
async def test_a_malformed_query_names_the_field(product: Product, query: dict[str, str]) -> None:
    answer = await product.client.get(RUNS, params=query)
    assert answer.status_code == 422
    assert next(iter(query)) in answer.json()["detail"]


async def test_a_run_tells_its_story(product: Product) -> None:
    at = utc_now() - timedelta(hours=1)

    def minute(n: int) -> datetime:
        return at + timedelta(minutes=n)

    run = await add_run(
        product.db,
        None,
        "succeeded",
        created_at=at,
        published_at=minute(1),
        started_at=minute(2),
        attempt_started_at=minute(6),
        finished_at=minute(8),
        attempt=3,
        result={"sent": 3},
    )
    await add_event(product.db, run, "attempt_failed", "status 500", attempt=1, at=minute(3))
    await add_event(product.db, run, "worker_lost", "w1 stopped renewing its lease", attempt=2, at=minute(5))
    await add_event(product.db, run, "log", "second", attempt=3, level="WARNING", at=minute(7))
    await add_event(product.db, run, "log", "third", attempt=3, level="INFO", at=minute(7))
    read = (await product.client.get(f"{RUNS}/{run}")).json()
    assert [entry["event"] for entry in read["timeline"]] == [
        "created",
        "sent",
        "started",
        "attempt_failed",
        "worker_lost",
        "started",
        "succeeded",
    ]
    assert [(one["number"], one["state"], one["error"]) for one in read["attempts"]] == [
        (1, "failed", "status 500"),
        (2, "lost", "w1 stopped renewing its lease"),
        (3, "succeeded", None),
    ]
    assert [(line["level"], line["message"]) for line in read["log"]] == [("WARNING", "second"), ("INFO", "third")]
    assert (read["result"], read["duration_seconds"], read["log_truncated"]) == ({"sent": 3}, 360.0, False)


async def test_an_unknown_run_is_not_found(product: Product) -> None:
    run: UUID = uuid4()
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry")):
        assert (await product.client.request(method, f"{RUNS}/{run}{path}")).status_code == 404
    assert (await product.client.get(f"{RUNS}/odd")).status_code == 422
