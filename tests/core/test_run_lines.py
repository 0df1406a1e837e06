"""What handlers log, kept with their runs; and runs through a real worker."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from backend.celery_app import app
from backend.core.runs import Limits, Tracker, install_log_lines
from backend.scheduling.occurrences import Connection
from backend.scheduling.publisher import Message, Publisher
from devstack.servers import PostgresServer, ValkeyServer
from tests.core.conftest import events, row
from tests.factories.schedules import add_run

ROOT = Path(__file__).parents[2]
LIMITS = Limits(attempts=3, seconds=30)

log = logging.getLogger("tests.handler")
log.setLevel(logging.INFO)


@pytest.fixture
def lines() -> Iterator[None]:
    """What handlers log goes to their runs, as in a worker."""
    root = logging.getLogger()
    before = list(root.handlers)
    install_log_lines()
    install_log_lines()
    assert len(root.handlers) == len(before) + 1
    yield
    root.handlers = before


async def test_what_a_handler_logs_is_kept_with_its_run_in_order(
    tracker: Tracker, connection: Connection, lines: None
) -> None:
    run = await add_run(connection)

    def in_a_thread() -> None:
        log.error("from a thread")

    async def work() -> None:
        log.info("begins with %d", 1)
        log.warning("slow")
        await asyncio.to_thread(in_a_thread)
        log.info("x" * 5000)
        log.info("bad \x00 byte \ud83d")

    log.info("before any run")
    await tracker.execute(run, "noop", work, LIMITS)
    log.info("after it")
    kept = [
        (event["kind"], event["attempt"], event["level"], event["message"]) for event in await events(connection, run)
    ]
    assert kept == [
        ("log", 1, "INFO", "begins with 1"),
        ("log", 1, "WARNING", "slow"),
        ("log", 1, "ERROR", "from a thread"),
        ("log", 1, "INFO", "x" * 4000),
        ("log", 1, "INFO", "bad \ufffd byte ?"),
    ]
    assert await connection.fetchval("select count(*) from job_run_events") == 5


async def test_runs_side_by_side_keep_their_lines_apart(tracker: Tracker, connection: Connection, lines: None) -> None:
    async def work(name: str) -> None:
        for number in range(3):
            log.info("%s %d", name, number)
            await asyncio.sleep(0.01)

    runs = [await add_run(connection, arguments={"name": f"run {number}"}) for number in range(5)]
    await asyncio.gather(*(tracker.execute(run, "noop", work, LIMITS) for run in runs))
    for number, run in enumerate(runs):
        assert [event["message"] for event in await events(connection, run)] == [f"run {number} {n}" for n in range(3)]


async def test_lines_are_there_to_be_read_while_the_run_goes_on(
    hasty: Tracker, connection: Connection, lines: None
) -> None:
    run = await add_run(connection)

    async def work() -> list[str]:
        log.info("halfway")
        await asyncio.sleep(1)
        return [event["message"] for event in await events(connection, run)]

    await hasty.execute(run, "noop", work, LIMITS)
    assert json.loads((await row(connection, run))["result"]) == ["halfway"]


async def test_a_handler_that_logs_without_end_is_cut_short(
    tracker: Tracker, connection: Connection, lines: None
) -> None:
    async def work() -> None:
        for number in range(1500):
            log.info("line %d", number)

    run = await add_run(connection)
    await tracker.execute(run, "noop", work, LIMITS)
    kept = await events(connection, run)
    assert len(kept) == 1001
    assert kept[-1]["message"] == "more than 1000 lines: the rest is in the worker's log"


@pytest.fixture(scope="module")
def publisher(
    valkey: ValkeyServer,
    postgres: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Publisher]:
    """Sends runs to a worker."""
    app.control.purge()
    command = [sys.executable, "-m", "celery", "-A", "backend.celery_app", "worker"]
    command += ["--include=tests.core.worker.sample_tasks", "-c", "2", "-Q", "default"]
    command += ["-l", "info", "--without-mingle", "--without-gossip"]
    with (tmp_path_factory.mktemp("worker") / "worker.log").open("w") as output:
        worker = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"DATABASE_URL": postgres.url}, stdout=output, stderr=subprocess.STDOUT
        )
    publisher = Publisher(app)
    yield publisher
    publisher.close()
    worker.terminate()
    worker.wait(30)
    with app.connection_or_acquire():
        app.control.purge()


async def ended(connection: Connection, run: UUID) -> Any:
    for _ in range(3000):
        found = await row(connection, run)
        if found["finished_at"] is not None:
            return found
        await asyncio.sleep(0.01)
    pytest.fail("the run has not ended")


async def test_a_worker_executes_a_run_once_however_often_its_message_arrives(
    publisher: Publisher, connection: Connection, tmp_path: Path
) -> None:
    marker = tmp_path / "tries"
    run = await add_run(connection, task="fail_for_good", arguments={"marker": str(marker)})
    following = await add_run(connection, task="describe_process")
    message = Message(run, "fail_for_good", "default")
    await asyncio.to_thread(
        publisher.publish, [message, message, Message(following, "describe_process", "default"), message]
    )
    found = await ended(connection, run)
    assert (found["state"], found["error"]) == ("failed", "PermanentError: no retry can help")
    described = json.loads((await ended(connection, following))["result"])
    assert described["thread"] == "beatline-loop"
    last = await add_run(connection, task="describe_process")
    await asyncio.to_thread(publisher.publish, [message, Message(last, "describe_process", "default")])
    await ended(connection, last)
    assert marker.read_text() == "x"
    found = await row(connection, run)
    assert (found["state"], found["attempt"], found["epoch"]) == ("failed", 1, 1)


async def test_what_a_handler_logs_in_a_worker_is_kept_with_its_run(
    publisher: Publisher, connection: Connection
) -> None:
    run = await add_run(connection, task="tell_the_log", arguments={"words": ["one", "two"]})
    await asyncio.to_thread(publisher.publish, [Message(run, "tell_the_log", "default")])
    assert json.loads((await ended(connection, run))["result"]) == 2
    assert [event["message"] for event in await events(connection, run)] == ["said one", "said two"]
