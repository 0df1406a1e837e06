"""Deleting a recording while a worker is at it: the worker stops, and nothing that it has written stays."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import update

from backend.config import Config, load
from backend.core.principal import SERVICE
from backend.core.storage import Blob, FolderStorage
from backend.recordings import fetching
from backend.recordings.keeping import removing
from backend.recordings.keeping.removing import Places
from backend.recordings.models import Recording, RecordingState
from backend.recordings.service import LEASE
from backend.recordings.voice_samples import voice_samples
from backend.recordings.work import running
from tests.recordings.desk import Desk, Held, Killed, Scripted, die
from tests.recordings.notes import scripted_note


def settings(desk: Desk) -> Config:
    root = desk.storage.path("x").parent
    return load({"EGRESS_DIR": str(desk.egress), "RECORDINGS_DIR": str(root), "RECORDINGS_WORK_DIR": str(desk.work)})


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_worker_stops_and_what_it_had_stored_goes(desk: Desk) -> None:
    root, config = desk.storage.path("x").parent, settings(desk)
    held = Held()
    recording = await desk.register(desk.write())
    scripted = Scripted().acting("words", held)
    work = asyncio.create_task(desk.transcribe(recording, scripted, lease=timedelta(seconds=2)))
    assert await asyncio.to_thread(held.began.wait, 20)
    assert files(root)
    removed = await removing.remove(desk.db, desk.storage, recording.id, SERVICE, config=config)
    began = time.monotonic()
    assert await asyncio.wait_for(work, 20) is None
    assert time.monotonic() - began < 10
    assert removed.files_deleted > 0
    late = desk.storage.path(f"calls/{recording.created_at:%Y/%m}/{recording.id}-voice-0.wav")
    late.parent.mkdir(parents=True, exist_ok=True)
    late.write_bytes(b"late")
    async with desk.db.transaction() as session:
        connection = await session.connection()
        await connection.execute(text("update removed_files set until = now(), next_attempt_at = now()"))
    done = await removing.delete_files(desk.db, Places(desk.storage, desk.egress), config=config)
    assert done["files_left"] == 0
    assert files(root) == []
    assert files(desk.egress) == []


@dataclass
class Interrupted(FolderStorage):
    """A storage in which something happens as soon as the clip of a voice is there."""

    root: Path
    then: Callable[[], Awaitable[object]]

    def __post_init__(self) -> None:
        super().__init__(self.root)

    async def put(self, key: str, source: Path) -> Blob:
        blob = await super().put(key, source)
        if "-voice-" in key:
            await self.then()
        return blob


async def test_clips_of_voices_of_a_recording_that_was_cancelled_go_with_it(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    root = desk.storage.path("x").parent
    tools = scripted_note().tools(voice_samples=voice_samples)
    place = replace(desk.place, storage=Interrupted(root, lambda: desk.cancel(recording)))
    state = await running.transcribe(desk.db, tools, place, recording_id=recording.id)
    assert (state, len(files(root))) == (RecordingState.CANCELLED, 3)
    removed = await removing.remove(desk.db, desk.storage, recording.id, SERVICE, config=settings(desk))
    assert (removed.files_deleted, removed.files_pending, files(root)) == (3, 0, [])


async def test_clips_of_a_worker_that_was_killed_go_with_what_the_next_has_made(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    root = desk.storage.path("x").parent
    voice = desk.storage.path(fetching.voice_key(recording, 2))
    with pytest.raises(Killed):
        await desk.transcribe(recording, scripted_note("summary", die))
    # Three voices were heard, and where there was no time for a row their clips are there.
    voice.parent.mkdir(parents=True, exist_ok=True)
    voice.write_bytes(b"voice")
    await desk.pass_time(LEASE)
    assert await desk.transcribe(recording, scripted_note()) == RecordingState.READY
    async with desk.db.transaction() as session:
        await removing.remove_held(session, [await desk.now()])
    await removing.delete_files(desk.db, Places(desk.storage, desk.egress), config=settings(desk))
    assert files(root) == []


async def test_a_calls_file_that_no_row_tells_of_goes_with_its_recording(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    assert await desk.transcribe(recording, Scripted()) == RecordingState.READY
    async with desk.db.transaction() as session:
        # As a worker leaves it that was killed just after the copy.
        await session.exec(update(Recording).values(state=RecordingState.FAILED, blob_key=None))
    await removing.remove(desk.db, desk.storage, recording.id, SERVICE, config=settings(desk))
    assert files(desk.storage.path("x").parent) == []
