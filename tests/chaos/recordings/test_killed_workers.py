"""kill -9 in each stage of a recording; the next worker goes on from there."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import text

from backend.core.db import Database
from backend.core.storage import FolderStorage
from backend.recordings import service
from backend.recordings.models import Recording, RecordingState
from backend.recordings.work import running
from backend.recordings.work.running import Place
from devstack.environment import ROOT
from devstack.servers import PostgresServer
from tests.chaos.recordings.story import SECONDS, heard, scripted
from tests.chaos.recordings.victim import voices
from tests.recordings.sounds import noise, write_wav

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

_LEASE_OVER = "update recordings set claimed_until = now() - interval '1 second', next_attempt_at = now()"


@pytest.fixture
async def recording(db: Database, tmp_path: Path) -> Recording:
    (tmp_path / "egress").mkdir()
    write_wav(tmp_path / "egress" / "note.wav", noise(SECONDS))
    async with db.transaction() as session:
        return await service.register(
            session,
            kind="call",
            subject_id=uuid4(),
            source_path="note.wav",
            duration_ms=None,
            channel_speakers=[],
            then_task=None,
        )


def _victim(postgres: PostgresServer, recording: Recording, stage: str, folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.chaos.recordings.victim"]
    return subprocess.Popen([*command, postgres.url, str(recording.id), stage, str(folder)], cwd=ROOT)


async def _killed_once(victim: "subprocess.Popen[bytes]", reached: Callable[[], bool], *, after: float) -> None:
    end = time.monotonic() + 60
    while not reached():
        assert victim.poll() is None, "ended by itself"
        assert time.monotonic() < end, "never got there"
        await asyncio.sleep(0.01)
    # What is done is written every second.
    await asyncio.sleep(after)
    victim.send_signal(signal.SIGKILL)
    victim.wait(20)


async def _finish(db: Database, recording: Recording, folder: Path) -> tuple[RecordingState | None, tuple[int, ...]]:
    """The state, and how often the next worker listened, told voices apart and summed up."""
    tools = scripted(folder)
    place = Place(FolderStorage(folder / "recordings"), folder / "egress", folder / "work")
    state = await running.transcribe(db, tools.tools(voice_samples=voices), place, recording_id=recording.id)
    return state, (tools.listened, len(tools.counts), tools.summed_up)


async def _is_whole(db: Database, folder: Path) -> None:
    async with db.engine.connect() as connection:
        said = (await connection.execute(text("select text, speaker from transcript_segments order by number"))).all()
        left = (await connection.execute(text("select count(*) from recording_checkpoints"))).scalar_one()
    assert [(row[0], row[1]) for row in said] == [(f"Part {at}.", f"Speaker {1 + at // 4}") for at in range(SECONDS)]
    assert (left, list((folder / "work").iterdir())) == (0, [])


@pytest.mark.parametrize(
    ("stage", "parts", "again"),
    [
        ("fetch", 0, (1, 1, 1)),
        ("speech", 0, (1, 1, 1)),
        ("words", 3, (0, 1, 1)),
        ("speakers", SECONDS, (0, 1, 1)),
        ("summary", SECONDS, (0, 0, 1)),
        ("store", SECONDS, (0, 0, 0)),
    ],
)
async def test_a_worker_that_is_killed_loses_what_it_was_at_and_no_more(
    db: Database,
    postgres: PostgresServer,
    recording: Recording,
    tmp_path: Path,
    stage: str,
    parts: int,
    again: tuple[int, ...],
) -> None:
    victim = _victim(postgres, recording, stage, tmp_path)
    await _killed_once(victim, (tmp_path / "reached").exists, after=2.5)
    assert heard(tmp_path) == list(range(parts))

    # Its lease still stands, then ends.
    assert (await _finish(db, recording, tmp_path))[0] is None
    async with db.transaction() as session:
        await (await session.connection()).execute(text(_LEASE_OVER))
    assert await service.sweep(db) == 1
    assert await _finish(db, recording, tmp_path) == (RecordingState.READY, again)
    assert heard(tmp_path) == list(range(SECONDS))
    await _is_whole(db, tmp_path)


async def test_half_of_a_decoded_file_is_never_taken_for_all_of_it(
    db: Database, postgres: PostgresServer, recording: Recording, tmp_path: Path
) -> None:
    # Long, and of another rate, so that there is time to be killed in.
    write_wav(tmp_path / "egress" / "note.wav", np.tile(noise(60.0), 40), rate=44_100)
    folder = tmp_path / "work" / str(recording.id)
    victim = _victim(postgres, recording, "decode", tmp_path)
    await _killed_once(victim, lambda: any(folder.glob(".decoding-*/0.s16")), after=0.2)
    assert not (folder / "0.s16").exists()
    # The rest of the story need not take as long.
    write_wav(_stored(tmp_path), noise(SECONDS))
    async with db.transaction() as session:
        await (await session.connection()).execute(text(_LEASE_OVER))
    assert await _finish(db, recording, tmp_path) == (RecordingState.READY, (1, 1, 1))
    await _is_whole(db, tmp_path)


def _stored(folder: Path) -> Path:
    (path,) = (folder / "recordings" / "calls").rglob("*.wav")
    return path


async def test_many_workers_that_are_killed_in_turn_end_it_all_the_same(
    db: Database, postgres: PostgresServer, recording: Recording, tmp_path: Path
) -> None:
    for stage in ("fetch", "speech", "words", "speakers", "summary", "store"):
        (tmp_path / "reached").unlink(missing_ok=True)
        victim = _victim(postgres, recording, stage, tmp_path)
        await _killed_once(victim, (tmp_path / "reached").exists, after=1.5)
        async with db.transaction() as session:
            await (await session.connection()).execute(text(_LEASE_OVER))
    assert await _finish(db, recording, tmp_path) == (RecordingState.READY, (0, 0, 0))
    assert sorted(heard(tmp_path)) == list(range(SECONDS))
    await _is_whole(db, tmp_path)
