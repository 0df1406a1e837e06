"""From the API's memory to the log by a real broker and a real worker, and without them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.audit import service as audit
from backend.audit.service import Recorder
from backend.celery_app import app
from backend.core.db import Database
from backend.core.queue import send_task
from devstack.servers import PostgresServer, ValkeyServer
from tests.audit.conftest import operations, waiting
from tests.factories.notes import noted
from tests.fixtures.product import eventually
from tests.queues.conftest import running_worker


@pytest.fixture
async def real(db: Database, postgres: PostgresServer) -> AsyncIterator[Database]:
    """The same database; what is enqueued goes to the real broker."""
    database = Database(postgres.url)
    yield database
    await database.close()


async def note_and_log_in(db: Database, recorder: Recorder, times: int) -> None:
    for number in range(times):
        recorder.note(noted(path=f"/api/things/{number}"))
        async with db.transaction() as session:
            await audit.record_login(
                session, username="ana", outcome="success", user_id=None, address=None, user_agent=None
            )


async def test_a_worker_logs_and_a_broker_that_was_away_loses_nothing(
    real: Database, valkey: ValkeyServer, postgres: PostgresServer, tmp_path: Path
) -> None:
    app.control.purge()
    recorder = Recorder(real, send_task)
    recorder.start()
    with running_worker(tmp_path, name="audit", DATABASE_URL=postgres.url):
        await note_and_log_in(real, recorder, 20)

        async def logged() -> bool:
            return len(await operations(real)) == 20 and not await waiting(real)

        await eventually(logged, within=30)
        await asyncio.to_thread(valkey.stop)
        try:
            await note_and_log_in(real, recorder, 2)

            async def stored() -> bool:
                return len(await waiting(real)) == 4

            await eventually(stored, within=30)
            assert len(await operations(real)) == 20
        finally:
            await asyncio.to_thread(valkey.start)
        app.send_task("sweep_audit_outbox", ignore_result=True)

        async def caught_up() -> bool:
            return len(await operations(real)) == 22 and not await waiting(real)

        await eventually(caught_up, within=30)
    await recorder.close()
    app.control.purge()
