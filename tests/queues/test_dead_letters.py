"""What a real worker cannot end becomes a dead letter; what people do with it."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import col, select

from backend.celery_app import app
from backend.core import dead_letters
from backend.core.db import Database
from backend.core.dead_letters import Kind, letter
from backend.queues.models import DeadLetter
from backend.scheduling.publisher import Message, Publisher
from devstack.servers import PostgresServer, ValkeyServer
from tests.factories.jobs import add_run, run_row
from tests.fixtures.command import beatline
from tests.fixtures.product import Product, eventually
from tests.queues.conftest import publish_malformed

LETTERS = "/api/dead-letters"


def send(name: str, *args: Any, queue: str = "default", **kwargs: Any) -> str:
    return str(app.send_task(name, args=args, kwargs=kwargs, queue=queue, ignore_result=True).id)


async def letters(db: Database) -> list[DeadLetter]:
    async with db.transaction() as session:
        return list((await session.exec(select(DeadLetter).order_by(col(DeadLetter.first_seen)))).all())


async def letter_of(db: Database, task_id: str, *, within: float = 20.0) -> DeadLetter:
    async def look() -> DeadLetter | None:
        return next((one for one in await letters(db) if task_id in {one.task_id, one.requeued_task_id}), None)

    found = await eventually(look, within=within)
    assert isinstance(found, DeadLetter)
    return found


async def add(db: Database, task: str = "sleep", **fields: Any) -> DeadLetter:
    """A letter as a worker would leave it."""
    task_id = fields.pop("task_id", str(uuid4()))
    defaults: dict[str, Any] = {"kind": Kind.PERMANENT, "args": [], "kwargs": {"seconds": 0}, "error": "E: no"}
    await dead_letters.record(db, letter(task, task_id, fields.pop("queue", "low_priority"), **(defaults | fields)))
    return await letter_of(db, task_id)


@pytest.mark.parametrize(
    ("task", "arguments", "kind", "error", "retries"),
    [
        ("end_for_good", {"order": 7}, "permanent", "PermanentError: order 7 cannot be;  was tried", 0),
        ("end_exhausted", {"order": 8}, "exhausted", "TransientError: order 8 is not ready", 1),
        ("end_by_fault", {}, "error", "ZeroDivisionError: division by zero", 0),
        ("end_by_soft_limit", {}, "timed_out", "SoftTimeLimitExceeded", 0),
        ("end_by_hard_limit", {}, "timed_out", "not done within its hard time limit of 2 s", 0),
        ("end_for_good", {"unknown": 1}, "error", "TypeError: end_for_good() ", 0),
    ],
)
async def test_a_task_that_ends_for_good_leaves_a_dead_letter(
    db: Database, worker: Path, task: str, arguments: dict[str, Any], kind: str, error: str, retries: int
) -> None:
    task_id = send(task, **arguments)
    found = await letter_of(db, task_id)
    assert (found.task, found.queue, found.kind, found.state, found.count) == (task, "default", kind, "open", 1)
    assert found.error.startswith(error)
    assert found.arguments == {"args": [], "kwargs": arguments}
    assert found.retries == retries
    assert found.incomplete is None
    if "hard" not in task:
        assert task in found.traceback or "Soft" in found.traceback
    rows = await letters(db)
    assert [(one.task, one.task_id) for one in rows] == [(task, task_id)]


async def test_a_tracked_run_keeps_its_own_record_and_leaves_no_letter(db: Database, worker: Path) -> None:
    arguments = {"seconds": 0, "fail": "permanent"}
    run_id = await add_run(db, state="queued", task="sleep", queue="low_priority", arguments=arguments)
    publisher = Publisher(app)
    await asyncio.to_thread(publisher.publish, [Message(run_id, "sleep", "low_priority")])
    publisher.close()

    async def failed() -> bool:
        return (await run_row(db, run_id)).state == "failed"

    await eventually(failed)
    assert await letters(db) == []


async def test_secrets_are_in_no_column(db: Database, worker: Path) -> None:
    task_id = send("end_for_good", order=1, password="swordfish-4711")
    found = await letter_of(db, task_id)
    assert "swordfish" not in str(found.model_dump())
    assert found.arguments["kwargs"] == {"order": 1, "password": "[redacted]"}
    assert found.error == "PermanentError: order 1 cannot be; [redacted] was tried"
    assert found.incomplete == "redacted"


async def test_an_unknown_task_leaves_a_dead_letter_on_redis_too(db: Database, worker: Path) -> None:
    task_id = send("no_such_task", 1, two=2)
    found = await letter_of(db, task_id)
    assert (found.kind, found.task) == ("rejected", "no_such_task")
    assert found.arguments == {"args": [1], "kwargs": {"two": 2}}
    assert "NotRegistered" in found.error or "KeyError" in found.error


async def test_malformed_messages_are_kept_as_text_on_redis_too(db: Database, worker: Path) -> None:
    await asyncio.to_thread(publish_malformed, app)

    async def all_kept() -> bool:
        return len(await letters(db)) == 5

    await eventually(all_kept)
    assert {(one.kind, one.incomplete) for one in await letters(db)} == {("malformed", "malformed")}
    assert any("{no json" in str(one.arguments) for one in await letters(db))
    task_id = send("end_for_good", order=1)
    await letter_of(db, task_id)


async def test_a_letter_is_kept_although_the_database_is_away_for_a_moment(
    db: Database, postgres: PostgresServer, worker: Path
) -> None:
    postgres.stop()
    task_id = send("end_for_good", order=3)
    await asyncio.sleep(2)
    postgres.start()
    assert (await letter_of(db, task_id)).kind == "permanent"


async def test_what_cannot_be_stored_is_logged_in_full(caplog: pytest.LogCaptureFixture) -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:9/none", pool_size=1)
    try:
        await dead_letters.record(
            nowhere, letter("sleep", "t-1", "default", kind=Kind.ERROR, args=[], kwargs={"order": 12}, error="E: x")
        )
    finally:
        await nowhere.close()
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"]
    assert "t-1" in line
    assert "order" in line


async def test_the_same_end_told_twice_counts_once(db: Database) -> None:
    ended = letter("sleep", "t-1", "default", kind=Kind.ERROR, args=[], kwargs={}, error="E")
    await dead_letters.record(db, ended)
    await dead_letters.record(db, ended)
    assert [one.count for one in await letters(db)] == [1]
    await dead_letters.record(db, letter("sleep", "t-1", "default", kind=Kind.ERROR, args=[], kwargs={}, error="F"))
    assert [(one.count, one.error) for one in await letters(db)] == [(2, "F")]


async def test_what_no_table_can_hold_is_cut_and_cleaned(db: Database) -> None:
    found = await add(db, kwargs={"a": "x\x00\ud800", "b": float("nan")}, error="bad \x00")
    assert found.arguments["kwargs"] == {"a": "x\ufffd\ufffd", "b": "nan"}
    assert found.error == "bad \ufffd"
    huge = await add(db, kwargs={"a": "x" * 70_000})
    assert huge.incomplete == "too_large"


async def test_the_list_filters_and_pages(product: Product) -> None:
    first = await add(product.db)
    second = await add(product.db, task="noop", queue="default", kind=Kind.ERROR)
    third = await add(product.db)
    page = (await product.client.get(LETTERS, params={"limit": 2})).json()
    assert [one["id"] for one in page["items"]] == [str(third.id), str(second.id)]
    rest = (await product.client.get(LETTERS, params={"limit": 2, "cursor": page["next_cursor"]})).json()
    assert ([one["id"] for one in rest["items"]], rest["next_cursor"]) == ([str(first.id)], None)
    for field, value in (("task", "noop"), ("queue", "default"), ("kind", "error")):
        found = (await product.client.get(LETTERS, params={field: value})).json()["items"]
        assert [one["id"] for one in found] == [str(second.id)]
    since = (await product.client.get(LETTERS, params={"since": third.last_seen.isoformat()})).json()["items"]
    assert [one["id"] for one in since] == [str(third.id)]
    assert (await product.client.get(LETTERS, params={"state": "discarded"})).json()["items"] == []
    assert (await product.client.get(LETTERS, params={"kind": "x"})).status_code == 422
    assert (await product.client.get(LETTERS, headers={"Authorization": "Bearer x"})).status_code == 401


async def test_a_letter_shows_arguments_and_traceback(product: Product) -> None:
    found = await add(product.db, trace="Traceback: token=abcdefgh")
    read = (await product.client.get(f"{LETTERS}/{found.id}")).json()
    assert read["arguments"] == {"args": [], "kwargs": {"seconds": 0}}
    assert read["traceback"] == "Traceback: token=[redacted]"
    assert (read["can_requeue"], read["state"], read["count"]) == (True, "open", 1)
    assert (await product.client.get(f"{LETTERS}/{uuid4()}")).status_code == 404


async def test_a_letter_that_was_sent_again_and_ends_again_is_open_again(product: Product, worker: Path) -> None:
    task_id = send("sleep", queue="low_priority", seconds=0, fail="permanent")
    found = await letter_of(product.db, task_id)
    answer = await product.client.post(f"{LETTERS}/{found.id}/requeue")
    assert answer.status_code == 200
    again = answer.json()["requeued_task_id"]
    assert again not in {None, task_id}

    async def ended(times: int) -> bool:
        return (await letter_of(product.db, task_id)).count == times

    await eventually(lambda: ended(2))
    (row,) = await letters(product.db)
    assert (row.id, row.task_id, row.requeued_task_id, row.state) == (found.id, task_id, again, "open")
    assert row.last_seen > row.first_seen
    answer = await product.client.post(f"{LETTERS}/{found.id}/requeue")
    assert answer.json()["requeued_task_id"] != again
    # What is still under way would end in the next test.
    await eventually(lambda: ended(3))


async def test_requeue_and_discard_twice_are_once(product: Product, valkey: ValkeyServer) -> None:
    app.control.purge()
    # No worker of this file reads that queue.
    found = await add(product.db, queue="audio")
    answers = await asyncio.gather(*(product.client.post(f"{LETTERS}/{found.id}/requeue") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["requeued_task_id"] for answer in answers}) == 1
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        assert channel.client.llen("audio") == 1
    refused = await product.client.post(f"{LETTERS}/{found.id}/discard")
    assert (refused.status_code, refused.json()["code"]) == (409, "requeued")
    other = await add(product.db)
    for _ in range(2):
        answer = await product.client.post(f"{LETTERS}/{other.id}/discard")
        assert (answer.status_code, answer.json()["state"]) == (200, "discarded")
    app.control.purge()


async def test_what_is_not_whole_or_unknown_is_not_sent(product: Product) -> None:
    redacted = await add(product.db, kwargs={"token": "abcdefgh"})
    unknown = await add(product.db, task="no_such_task")
    for found, code in ((redacted, "incomplete"), (unknown, "unknown_task")):
        answer = await product.client.post(f"{LETTERS}/{found.id}/requeue")
        assert (answer.status_code, answer.json()["code"]) == (409, code)
    assert {one.state for one in await letters(product.db)} == {"open"}


async def test_many_are_sent_again_at_a_pace_by_a_task(product: Product, worker: Path) -> None:
    for _ in range(6):
        await add(product.db)
    await add(product.db, task="noop", queue="default", kwargs={})
    await add(product.db, kwargs={"token": "abcdefgh"})
    wish, headers = {"task": "sleep", "limit": 5, "per_second": 5}, {"Idempotency-Key": "again-1"}
    answer = await product.client.post(f"{LETTERS}/requeue", json=wish, headers=headers)
    assert answer.status_code == 202
    replay = await product.client.post(f"{LETTERS}/requeue", json=wish, headers=headers)
    assert (replay.status_code, replay.json()["id"]) == (200, answer.json()["id"])

    async def done() -> Any:
        read = (await product.client.get(answer.headers["Location"])).json()
        return read if read["state"] not in {"PENDING", "STARTED"} else None

    read: Any = await eventually(done)
    assert (read["state"], read["result"]) == ("SUCCESS", {"requeued": 5, "refused": 0, "reasons": []})
    rows = await letters(product.db)
    assert [one.state for one in rows] == ["requeued"] * 5 + ["open"] * 3
    instants = [one.closed_at for one in rows[:5] if one.closed_at is not None]
    assert (instants[-1] - instants[0]).total_seconds() >= 0.7


async def test_too_slow_a_pace_is_refused(product: Product) -> None:
    answer = await product.client.post(f"{LETTERS}/requeue", json={"limit": 1000, "per_second": 0.1})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


async def test_the_command_lists_shows_requeues_and_discards(
    db: Database, postgres: PostgresServer, valkey: ValkeyServer
) -> None:
    app.control.purge()
    nothing = await beatline("dead-letters", "list", url=postgres.url)
    assert (nothing.exit_code, nothing.stdout) == (0, "no open dead letters\n")
    one, two, three = [await add(db, trace="Traceback of it") for _ in range(3)]
    listed = await beatline("dead-letters", "list", "--task", "sleep", url=postgres.url)
    assert all(str(found.id) in listed.stdout for found in (one, two, three))
    shown = await beatline("dead-letters", "show", str(one.id), url=postgres.url)
    assert "Traceback of it" in shown.stdout
    assert '{"args": [], "kwargs": {"seconds": 0}}' in shown.stdout
    requeued = await beatline("dead-letters", "requeue", str(one.id), str(uuid4()), url=postgres.url)
    assert requeued.exit_code == 2
    assert "sleep is sent again as task " in requeued.stdout
    assert "no dead letter" in requeued.stderr
    discarded = await beatline("dead-letters", "discard", str(two.id), url=postgres.url)
    assert (discarded.exit_code, discarded.stdout) == (0, f"sleep {two.task_id} is discarded\n")
    rest = await beatline("dead-letters", "requeue", "--all", "--queue", "low_priority", url=postgres.url)
    assert (rest.exit_code, rest.stdout) == (0, "1 sent again\n")
    both = await beatline("dead-letters", "requeue", url=postgres.url)
    assert (both.exit_code, both.stderr) == (2, "beatline: give ids, or --all with filters\n")
    assert [found.state for found in await letters(db)] == ["requeued", "discarded", "requeued"]
    app.control.purge()
