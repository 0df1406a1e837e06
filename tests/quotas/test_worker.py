"""Through a worker of its own: the task by either name, as `celery call` sends it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from backend.celery_app import app
from backend.core.db import Database
from devstack.servers import PostgresServer, ValkeyServer
from tests.fixtures.people import add_user
from tests.queues.conftest import running_worker
from tests.quotas.conftest import pass_days, reserve, rows, settle

NAMES = ("reset_daily_quotas", "backend.tasks.reset_daily_quotas_task")


@pytest.fixture(scope="module")
def worker(valkey: ValkeyServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    app.control.purge()
    with running_worker(tmp_path_factory.mktemp("worker"), name="quotas", DATABASE_URL=postgres.url) as log:
        yield log
    app.control.purge()


def test_the_message_is_the_tasks_name_and_no_arguments(valkey: ValkeyServer) -> None:
    app.control.purge()
    # A queue that no worker of these tests reads.
    app.send_task("reset_daily_quotas", queue="audio")
    with app.connection_for_read() as connection:
        message = app.amqp.queues["audio"](connection.default_channel).get(no_ack=True)
    assert message is not None
    assert message.headers["task"] == "reset_daily_quotas"
    assert list(message.decode())[:2] == [[], {}]


async def test_a_worker_finds_the_task_by_either_name_and_updates_the_database_once(db: Database, worker: Path) -> None:
    listed = worker.read_text()
    assert all(f"  . {name}\n" in listed for name in NAMES)
    vera, key = await add_user(db, "vera"), uuid4()
    await reserve(db, vera, key, 60)
    await settle(db, key, 60)
    await pass_days(db)
    sent = [app.send_task(name) for name in NAMES * 2]
    answers = [await asyncio.to_thread(each.get, timeout=30) for each in sent]
    assert sorted(answer["reset"] for answer in answers) == [False, False, False, True]
    assert {(answer["users"], answer["used_seconds"]) for answer in answers} == {(1, 60)}
    assert await rows(db, "select count(*) from quota_counters") == [(0,)]
    assert await rows(db, "select users, used_ms, used_files from quota_resets") == [(1, 60_000, 1)]
