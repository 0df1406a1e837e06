"""PostgreSQL dies or freezes while a recording is worked on: the work goes on, and what was done is recorded once."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from backend.core.db import Base, Database
from backend.core.storage import FolderStorage
from backend.recordings.models import RecordingState, SegmentRow
from backend.recordings.service import LEASE
from backend.recordings.speech.base import Tick
from devstack.servers import PostgresServer, embedded_postgres
from tests.chaos.recordings.story import SECONDS, heard, scripted
from tests.fixtures.sent import Sent
from tests.recordings.desk import Desk
from tests.recordings.notes import owner_of, standing_of
from tests.recordings.sounds import noise, write_wav

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

AWAY_SECONDS = 10.0


@pytest.fixture
async def desk(tmp_path: Path, sent: Sent) -> AsyncIterator[tuple[Desk, PostgresServer]]:
    """A desk with a server of its own, which may be taken away."""
    (tmp_path / "egress").mkdir()
    with embedded_postgres(tmp_path / "postgres", fast=True) as server:
        db = Database(server.url, send=sent)
        async with db.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield Desk(db, sent, tmp_path / "egress", FolderStorage(tmp_path / "recordings"), tmp_path / "work"), server
        await db.close()


def take_away(server: PostgresServer, how: str) -> None:
    server.kill() if how == "killed" else server.pause()
    time.sleep(AWAY_SECONDS)
    server.start() if how == "killed" else server.resume()


@pytest.mark.parametrize(
    ("how", "lease"), [("killed", LEASE), ("frozen", LEASE), ("killed", timedelta(seconds=6))], ids=str
)
async def test_a_database_that_is_away_for_ten_seconds_costs_a_transcription_nothing(
    desk: tuple[Desk, PostgresServer], tmp_path: Path, how: str, lease: timedelta
) -> None:
    work, server = desk
    key = uuid4()
    owner = await owner_of(work, float(SECONDS), key)
    recording = await work.note(write_wav(tmp_path / "note.wav", noise(SECONDS)), id=key, owner=owner)
    loop, started = asyncio.get_running_loop(), list[int]()
    gone: list[asyncio.Future[None]] = []

    def hear_slowly(tick: Tick) -> None:
        started.append(len(heard(tmp_path)))
        if len(started) == 3:
            loop.call_soon_threadsafe(lambda: gone.append(loop.run_in_executor(None, take_away, server, how)))
        for _ in range(15):
            time.sleep(0.1)
            tick(0.1)

    tools = scripted(tmp_path)
    tools.acting("words", hear_slowly)
    before = time.monotonic()
    state = await work.transcribe(recording, tools, lease=lease)
    assert (state, time.monotonic() - before > AWAY_SECONDS) == (RecordingState.READY, True)
    await asyncio.wait_for(gone[0], 30)
    assert heard(tmp_path) == list(range(SECONDS)), "each part once"
    now = await work.now()
    assert (now.attempts, now.error) == (1, None)
    assert len(await work.rows(SegmentRow)) == SECONDS
    assert await standing_of(work, owner) == (SECONDS * 1000, 0, 1), "paid for once"
    assert await work.transcribe(recording, scripted(tmp_path)) is None
