"""Idempotent tasks as coroutines, their records on a real Valkey."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from backend.config import Config
from backend.core import delivery
from backend.core.delivery import Delivery, Postponed
from backend.core.errors import PermanentError, TransientError
from backend.core.idempotency import OnDuplicate, idempotent_task
from backend.core.keyspace import LeaseLost
from backend.core.runtime import Runtime, open_runtime
from devstack.servers import embedded_valkey

KEY = "beatline:idem:pay:order-123"
Pay = Callable[..., Coroutine[Any, Any, object]]


class Book:
    """What was charged, and a task that charges."""

    def __init__(self) -> None:
        self.charges: list[str] = []
        self.begun = asyncio.Event()
        self.seconds = 0.0
        self.faults: list[BaseException] = []

    def task(self, **options: Any) -> Pay:
        @idempotent_task(**options)
        async def pay(runtime: Runtime, *, order_id: str, note: str = "") -> dict[str, object]:
            self.begun.set()
            await asyncio.sleep(self.seconds)
            if self.faults:
                raise self.faults.pop(0)
            self.charges.append(order_id)
            return {"charge": len(self.charges), "note": note}

        return pay


@pytest.fixture
def book() -> Book:
    return Book()


def message(task_id: str, *, again: float | None = 60.0, redelivered: bool = False) -> AbstractContextManager[None]:
    """As a task of that id, whose transient errors are tried again within `again` seconds."""

    class Working(AbstractContextManager[None]):
        def __enter__(self) -> None:
            self.token = delivery.current.set(Delivery(task_id, redelivered, self.within))

        def __exit__(self, *_: object) -> None:
            delivery.current.reset(self.token)

        @staticmethod
        def within(fault: BaseException) -> float | None:
            return again if isinstance(fault, TransientError) else None

    return Working()


async def record(redis: Redis, key: str = KEY) -> dict[str, Any] | None:
    text = await redis.get(key)
    return None if text is None else json.loads(text)


async def test_ten_calls_at_once_take_effect_once_and_all_answer_alike(
    runtime: Runtime, redis: Redis, book: Book
) -> None:
    pay = book.task(key="{order_id}", on_duplicate="wait")
    book.seconds = 0.2
    answers = await asyncio.gather(*(pay(runtime, order_id="order-123") for _ in range(10)))
    assert book.charges == ["order-123"]
    assert answers == [{"charge": 1, "note": ""}] * 10


async def test_ten_calls_in_sequence_take_effect_once(runtime: Runtime, redis: Redis, book: Book) -> None:
    pay = book.task(key="{order_id}")
    assert [await pay(runtime, order_id="order-123") for _ in range(10)] == [{"charge": 1, "note": ""}] * 10
    assert await pay(runtime, order_id="order-124") == {"charge": 2, "note": ""}
    assert book.charges == ["order-123", "order-124"]


async def test_the_record_holds_task_id_status_and_result_for_its_time(
    runtime: Runtime, redis: Redis, book: Book
) -> None:
    pay = book.task(ttl=3600, key="{order_id}")
    with message("task-1"):
        await pay(runtime, order_id="order-123")
    assert await record(redis) == {"task_id": "task-1", "status": "completed", "result": {"charge": 1, "note": ""}}
    assert 3590 < await redis.ttl(KEY) <= 3600


async def test_after_its_time_a_call_takes_effect_again(runtime: Runtime, redis: Redis, book: Book) -> None:
    pay = book.task(ttl=0.3, key="{order_id}")
    await pay(runtime, order_id="order-123")
    await asyncio.sleep(0.4)
    await pay(runtime, order_id="order-123")
    assert len(book.charges) == 2


async def test_the_lease_is_short_and_renewed_while_the_work_goes_on(
    runtime: Runtime, redis: Redis, book: Book
) -> None:
    pay = book.task(key="{order_id}", lease=1)
    book.seconds = 1.8
    first = asyncio.create_task(pay(runtime, order_id="order-123"))
    await asyncio.sleep(1.5)
    assert 0 < await redis.pttl(KEY) <= 1000
    with pytest.raises(Postponed, match="is in progress") as postponed:
        await pay(runtime, order_id="order-123")
    assert postponed.value.after is not None
    assert postponed.value.after <= 1.1
    await first
    assert book.charges == ["order-123"]


async def test_a_failure_frees_the_key(runtime: Runtime, redis: Redis, book: Book) -> None:
    pay = book.task(key="{order_id}")
    book.faults = [PermanentError("card refused"), ZeroDivisionError()]
    for expected in (PermanentError, ZeroDivisionError):
        with message("task-1"), pytest.raises(expected):
            await pay(runtime, order_id="order-123")
        assert await record(redis) is None
    assert await pay(runtime, order_id="order-123") == {"charge": 1, "note": ""}


async def test_the_last_try_frees_the_key(runtime: Runtime, redis: Redis, book: Book) -> None:
    pay = book.task(key="{order_id}")
    book.faults = [TransientError("bank away")]
    with message("task-1", again=None), pytest.raises(TransientError):
        await pay(runtime, order_id="order-123")
    assert await record(redis) is None


async def test_a_retry_keeps_the_key_for_its_own_next_try(runtime: Runtime, redis: Redis, book: Book) -> None:
    pay = book.task(key="{order_id}", lease=30)
    book.faults = [TransientError("bank away")]
    with message("task-1", again=60), pytest.raises(TransientError, match="bank away"):
        await pay(runtime, order_id="order-123")
    assert await record(redis) == {"task_id": "task-1", "status": "retrying", "result": None}
    assert 80_000 < await redis.pttl(KEY) <= 90_000
    with message("task-2"), pytest.raises(Postponed):
        await pay(runtime, order_id="order-123")
    with message("task-1"):
        assert await pay(runtime, order_id="order-123") == {"charge": 1, "note": ""}
    with message("task-2"):
        assert await pay(runtime, order_id="order-123") == {"charge": 1, "note": ""}
    assert book.charges == ["order-123"]


async def test_a_cancelled_call_frees_the_key(runtime: Runtime, redis: Redis, book: Book) -> None:
    book.seconds = 30
    call = asyncio.create_task(book.task(key="{order_id}")(runtime, order_id="order-123"))
    await book.begun.wait()
    assert await record(redis) is not None
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await record(redis) is None


async def test_skip_answers_nothing_during_and_after_the_first_call_and_says_so(
    runtime: Runtime, redis: Redis, book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pay = book.task(key="{order_id}", on_duplicate="skip")
    book.seconds = 0.2
    first = asyncio.create_task(pay(runtime, order_id="order-123"))
    await book.begun.wait()
    with message("task-2"):
        assert await pay(runtime, order_id="order-123") is None
    assert "pay:order-123: task task-2 skipped, task" in caplog.text
    await first
    with message("task-3"):
        assert await pay(runtime, order_id="order-123") is None
    assert "pay:order-123: task task-3 is a duplicate of task" in caplog.text
    assert book.charges == ["order-123"]


async def test_retry_fails_as_one_of_the_tasks_own_tries(runtime: Runtime, redis: Redis, book: Book) -> None:
    pay = book.task(key="{order_id}", on_duplicate="retry")
    book.seconds = 0.2
    first = asyncio.create_task(pay(runtime, order_id="order-123"))
    await book.begun.wait()
    with pytest.raises(TransientError) as failed:
        await pay(runtime, order_id="order-123")
    assert not isinstance(failed.value, Postponed)
    assert await first == await pay(runtime, order_id="order-123")


async def test_wait_gives_up_after_its_seconds_and_comes_again(runtime: Runtime, redis: Redis, book: Book) -> None:
    pay = book.task(key="{order_id}", on_duplicate="wait", wait=0.3)
    book.seconds = 1
    first = asyncio.create_task(pay(runtime, order_id="order-123"))
    await book.begun.wait()
    with pytest.raises(Postponed):
        await pay(runtime, order_id="order-123")
    await first
    assert book.charges == ["order-123"]


async def test_who_waits_runs_when_the_first_call_fails(runtime: Runtime, redis: Redis, book: Book) -> None:
    pay = book.task(key="{order_id}", on_duplicate="wait")
    book.seconds = 0.2
    book.faults = [PermanentError("card refused")]
    answers = await asyncio.gather(*(pay(runtime, order_id="order-123") for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(answer, PermanentError) for answer in answers) == 1
    assert answers.count({"charge": 1, "note": ""}) == 2


@pytest.mark.parametrize("mode", ["return", "skip", "wait", "retry"])
async def test_a_copy_of_the_same_message_is_no_duplicate_but_continues_when_the_lease_has_run_out(
    runtime: Runtime, redis: Redis, book: Book, caplog: pytest.LogCaptureFixture, mode: OnDuplicate
) -> None:
    pay = book.task(key="{order_id}", on_duplicate=mode, lease=1)
    killed = {"task_id": "task-1", "status": "processing", "result": None, "owner": "a worker that was killed"}
    await redis.set(KEY, json.dumps(killed), px=500)
    with message("task-1", redelivered=True), pytest.raises(Postponed) as postponed:
        await pay(runtime, order_id="order-123")
    assert postponed.value.after is not None
    await asyncio.sleep(postponed.value.after)
    with message("task-1", redelivered=True):
        assert await pay(runtime, order_id="order-123") == {"charge": 1, "note": ""}
        assert "task task-1 continues after a worker was lost" in caplog.text
        # A third copy, after the end: the answer is the same, in every mode.
        assert await pay(runtime, order_id="order-123") == {"charge": 1, "note": ""}
    assert book.charges == ["order-123"]


async def test_work_is_stopped_when_its_record_is_somebody_elses(runtime: Runtime, redis: Redis, book: Book) -> None:
    book.seconds = 30
    call = asyncio.create_task(book.task(key="{order_id}", lease=1)(runtime, order_id="order-123"))
    await book.begun.wait()
    await redis.set(KEY, json.dumps({"task_id": "another", "status": "processing", "result": None}))
    with pytest.raises(LeaseLost, match="idem:pay:order-123 is somebody else's"):
        await call
    assert book.charges == []
    other = await record(redis)
    assert other is not None
    assert other["task_id"] == "another"


async def test_a_redis_that_has_lost_its_data_is_told_again_what_is_in_progress(
    runtime: Runtime, redis: Redis, book: Book
) -> None:
    book.seconds = 1.5
    pay = book.task(key="{order_id}", lease=1)
    call = asyncio.create_task(pay(runtime, order_id="order-123"))
    await book.begun.wait()
    await redis.flushdb()
    await asyncio.sleep(0.6)
    with pytest.raises(Postponed):
        await pay(runtime, order_id="order-123")
    await call
    assert await pay(runtime, order_id="order-123") == {"charge": 1, "note": ""}
    assert book.charges == ["order-123"]


async def test_nothing_runs_unprotected_while_redis_is_away(config: Config, book: Book, tmp_path: Path) -> None:
    with embedded_valkey(tmp_path, fast=True) as server:
        runtime = open_runtime(replace(config, redis_url=f"redis://127.0.0.1:{server.port}/1"))
        try:
            pay = book.task(key="{order_id}")
            server.stop()
            with pytest.raises(Postponed, match="Redis is away, not run unprotected"):
                await pay(runtime, order_id="order-123")
            assert book.charges == []
            server.start()
            await pay(runtime, order_id="order-123")
            assert book.charges == ["order-123"]
        finally:
            await runtime.close()


async def test_the_end_of_work_waits_for_redis_to_be_recorded(config: Config, book: Book, tmp_path: Path) -> None:
    with embedded_valkey(tmp_path, fast=True) as server:
        runtime = open_runtime(replace(config, redis_url=f"redis://127.0.0.1:{server.port}/1"))
        try:
            pay = book.task(key="{order_id}")
            book.seconds = 0.5
            call = asyncio.create_task(pay(runtime, order_id="order-123"))
            await book.begun.wait()
            server.stop()
            await asyncio.sleep(1.5)
            assert book.charges == ["order-123"]
            assert not call.done()
            server.start()
            assert await call == {"charge": 1, "note": ""}
            assert await pay(runtime, order_id="order-123") == {"charge": 1, "note": ""}
            assert book.charges == ["order-123"]
        finally:
            await runtime.close()


async def test_results_come_back_as_the_types_they_were(runtime: Runtime, redis: Redis) -> None:
    made: list[dict[str, object]] = []

    @idempotent_task()
    async def make(runtime: Runtime, *, number: int) -> dict[str, object]:
        made.append({"at": datetime(2026, 11, 2, 10, tzinfo=UTC), "id": UUID(int=7), "number": number})
        return made[-1]

    assert [await make(runtime, number=1), await make(runtime, number=1)] == made * 2
    assert await redis.exists("beatline:idem:make:1")


async def test_a_result_too_large_is_told_and_not_kept(
    runtime: Runtime, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    @idempotent_task()
    async def make(runtime: Runtime, *, size: int) -> str:
        return "x" * size

    assert await make(runtime, size=70_000) == "x" * 70_000
    assert await make(runtime, size=70_000) is None
    assert "is not kept for duplicates" in caplog.text


async def test_the_key_follows_from_the_arguments_however_they_are_given(
    runtime: Runtime, redis: Redis, book: Book
) -> None:
    pay = book.task()
    await pay(runtime, order_id="order-123")
    await pay(runtime, order_id="order-123", note="")
    await pay(runtime, order_id="order-123", note="other")
    assert len(book.charges) == 2
    keys = sorted(str(key, "utf-8") for key in await redis.keys("*") if isinstance(key, bytes))
    assert keys == [
        "beatline:idem:pay:note=''&order_id='order-123'",
        "beatline:idem:pay:note='other'&order_id='order-123'",
    ]


async def test_a_long_key_is_kept_as_its_digest(runtime: Runtime, redis: Redis, book: Book) -> None:
    def by_order(order_id: str, note: str) -> str:
        return order_id

    await book.task(key=by_order)(runtime, order_id="o" * 5000, note="ignored")
    assert [len(key) for key in await redis.keys("*")] == [len("beatline:idem:pay:sha256-") + 64]


@pytest.mark.parametrize("options", [{"key": "{ordr_id}"}, {"key": "constant"}, {"ttl": 0}, {"lease": 0.1}])
def test_a_mistake_in_the_decorator_is_told_at_import(book: Book, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        book.task(**options)
