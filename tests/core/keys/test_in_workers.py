"""Idempotent tasks, limits and locks in real worker processes, some of which are killed."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import psutil
import pytest
from celery.result import AsyncResult
from redis import Redis
from sqlalchemy import func
from sqlmodel import select

from backend.celery_app import app, settings
from backend.core.db import Database
from backend.examples.models import ExampleCharge
from backend.scheduling.publisher import Message, Publisher
from devstack.servers import PostgresServer, ValkeyServer
from tests.core.worker.idempotent_tasks import LEASE

ROOT = Path(__file__).parents[3]
Send = Callable[..., AsyncResult[Any]]
_INSERT = """
insert into job_runs (id, name, scheduled_for, trigger, task, queue, arguments, state, published_at)
values ($1, 'test', now(), 'manual', $2, 'default', $3::jsonb, 'queued', now())
"""


@contextmanager
def working(postgres: PostgresServer, log: Path, queues: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "celery", "-A", "backend.celery_app", "worker"]
    command += [
        "--include=backend.tasks,tests.core.worker.idempotent_tasks",
        "-c",
        "4",
        "-Q",
        queues,
        "-n",
        f"{uuid4().hex}@%h",
    ]
    command += ["-l", "info", "--without-mingle", "--without-gossip"]
    with log.open("a") as output:
        worker = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"DATABASE_URL": postgres.url}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield worker
    finally:
        worker.terminate()
        worker.wait(30)


@pytest.fixture(scope="module")
def worker(
    valkey: ValkeyServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[bytes]]:
    app.control.purge()
    with working(postgres, tmp_path_factory.mktemp("worker") / "worker.log", "default,high_priority") as process:
        yield process
    app.control.purge()


@pytest.fixture
def keys(valkey: ValkeyServer) -> Iterator[Redis]:
    with Redis.from_url(settings.redis_url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return tmp_path / "book"


def send(name: str, **arguments: object) -> AsyncResult[Any]:
    return app.send_task(name, kwargs=arguments, queue="default")


def lines(book: Path, beginning: str) -> list[str]:
    return [line for line in book.read_text().splitlines() if line.startswith(beginning)] if book.exists() else []


def first_pid(book: Path, beginning: str) -> int:
    deadline = time.monotonic() + 30
    while not (found := lines(book, beginning)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(found[0].split()[1])


@pytest.mark.usefixtures("worker", "keys")
def test_ten_calls_at_once_are_charged_once_and_all_answer_alike(book: Path) -> None:
    calls = [send("pay", order="order-123", book=str(book), seconds=1.0) for _ in range(10)]
    assert [call.get(timeout=40) for call in calls] == [{"charged": "order-123"}] * 10
    assert lines(book, "charged") == ["charged order-123"]


@pytest.mark.usefixtures("worker", "keys")
def test_ten_calls_in_sequence_are_charged_once(book: Path) -> None:
    answers = [send("pay", order="order-123", book=str(book)).get(timeout=20) for _ in range(10)]
    assert answers == [{"charged": "order-123"}] * 10
    assert lines(book, "charged") == ["charged order-123"]


@pytest.mark.usefixtures("worker")
def test_a_retry_keeps_the_key_and_is_charged_once(book: Path, keys: Redis) -> None:
    first = send("pay_at_second_try", order="order-9", book=str(book))
    while not lines(book, "tried"):
        time.sleep(0.02)
    second = send("pay_at_second_try", order="order-9", book=str(book))
    assert first.get(timeout=30) == second.get(timeout=30) == {"charged": "order-9"}
    assert lines(book, "") == ["tried", "tried", "charged order-9"]
    assert f'"task_id": "{first.id}"' in str(keys.get("beatline:idem:pay_at_second_try:order-9"))


@pytest.mark.usefixtures("worker", "db")
def test_a_failure_frees_the_key_for_the_next_call(book: Path, keys: Redis) -> None:
    for _ in range(2):
        with pytest.raises(Exception, match="the card is refused"):
            send("refuse", order="order-9", book=str(book)).get(timeout=20)
    assert lines(book, "refused") == ["refused"] * 2
    assert keys.keys("beatline:idem:*") == []


@pytest.mark.usefixtures("worker", "keys")
def test_a_killed_process_of_a_worker_blocks_nobody_longer_than_its_lease(book: Path) -> None:
    holder = send("pay", order="order-1", book=str(book), seconds=6.0)
    os.kill(first_pid(book, "began"), signal.SIGKILL)
    killed = time.monotonic()
    duplicate = send("pay", order="order-1", book=str(book), seconds=0.0)
    while len(lines(book, "began")) < 2:
        assert time.monotonic() - killed < LEASE + 4
        time.sleep(0.05)
    # Celery gives the killed message back to the queue: it is the same task, not a duplicate to be dropped.
    assert duplicate.get(timeout=30) == holder.get(timeout=30) == {"charged": "order-1"}
    assert lines(book, "charged") == ["charged order-1"]


@pytest.mark.usefixtures("valkey", "keys")
def test_a_killed_worker_blocks_nobody_longer_than_its_lease(
    postgres: PostgresServer, book: Path, tmp_path: Path
) -> None:
    task_id = str(uuid4())

    def send_it() -> AsyncResult[Any]:
        arguments = {"order": "order-2", "book": str(book), "seconds": 60.0}
        return app.send_task("pay", kwargs=arguments, queue="audio", task_id=task_id)

    with working(postgres, tmp_path / "first.log", "audio") as first:
        send_it()
        first_pid(book, "began")
        for process in [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]:
            process.kill()
        killed = time.monotonic()
    with working(postgres, tmp_path / "second.log", "audio"):
        # Redis hands the message out again when its visibility timeout is over, which nobody waits for here; RabbitMQ at once.
        assert send_it().get(timeout=30) == {"charged": "order-2"}
    # Until the lease is over, or until the second worker has started.
    assert time.monotonic() - killed < LEASE + 15
    assert lines(book, "charged") == ["charged order-2"]


@pytest.mark.usefixtures("worker", "keys")
def test_a_limit_shared_by_processes_spreads_tasks_and_costs_none_of_their_tries(book: Path) -> None:
    begun = time.monotonic()
    calls = [send("send_message", number="+911", book=str(book)) for _ in range(6)]
    assert [call.get(timeout=60) for call in calls] == ["sent"] * 6
    assert time.monotonic() - begun >= 2


@pytest.mark.usefixtures("worker", "keys")
def test_a_lock_of_a_killed_process_is_free_after_its_lease(book: Path) -> None:
    killed_one = send("hold_lock", lock="job", book=str(book), seconds=60.0)
    pid = first_pid(book, "held")
    waiting = send("hold_lock", lock="job", book=str(book))
    app.control.revoke(killed_one.id)
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    assert waiting.get(timeout=30) == 2
    assert time.monotonic() - killed < LEASE + 2


@pytest.mark.usefixtures("worker", "keys")
async def test_an_order_is_paid_once_however_often_it_is_sent(db: Database) -> None:
    at_once = [app.send_task("process_payment", kwargs={"order_id": "order-123"}) for _ in range(10)]
    answers = [await asyncio.to_thread(call.get, 40) for call in at_once]
    for _ in range(10):
        call = app.send_task("process_payment", kwargs={"order_id": "order-123"})
        answers.append(await asyncio.to_thread(call.get, 20))
    order = [app.send_task("process_order", kwargs={"order_id": "order-124"}) for _ in range(3)]
    sent = [await asyncio.to_thread(call.get, 20) for call in order]
    assert sorted(answer is None for answer in sent) == [False, True, True]
    async with asyncio.timeout(20):
        while len(book := await charges(db)) < 2:
            await asyncio.sleep(0.1)
    assert book == {"order-123": 1, "order-124": 1}
    assert answers == [{"order_id": "order-123", "charge": 1}] * 20


async def charges(db: Database) -> dict[str, int]:
    async with db.transaction() as session:
        rows = await session.exec(select(ExampleCharge.order_id, func.count()).group_by(ExampleCharge.order_id))
        return dict(rows.all())


@pytest.mark.usefixtures("worker", "keys", "db")
async def test_tracked_runs_with_one_key_are_charged_once(postgres: PostgresServer, book: Path) -> None:
    runs = [uuid4() for _ in range(3)]
    arguments = f'{{"order": "order-3", "book": "{book}", "seconds": 1.0}}'
    connection = await asyncpg.connect(postgres.url)
    publisher = Publisher(app)
    try:
        for run in runs:
            await connection.execute(_INSERT, run, "pay", arguments)
        publisher.publish([Message(run, "pay", "default") for run in runs])
        states = await ended(connection, publisher, runs)
    finally:
        publisher.close()
        await connection.close()
    assert states == {"succeeded": '{"charged": "order-3"}'}
    assert lines(book, "charged") == ["charged order-3"]


async def ended(connection: Any, publisher: Publisher, runs: list[UUID]) -> dict[str, str]:
    """State and result of all runs once they have ended; those that were put back are sent again, as the relay does."""
    async with asyncio.timeout(40):
        while True:
            rows = await connection.fetch("select id, state, result, publish_after <= now() as due from job_runs")
            if all(row["state"] in {"succeeded", "failed", "dead"} for row in rows):
                return {row["state"]: row["result"] for row in rows}
            due = [row["id"] for row in rows if row["state"] == "pending" and row["due"]]
            publisher.publish([Message(run, "pay", "default") for run in due])
            await asyncio.sleep(0.5)
