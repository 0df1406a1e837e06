"""Deleting a recording while a worker is at it: the worker stops, and nothing that it has written stays."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import text

from backend.config import load
from backend.core.principal import SERVICE
from backend.recordings import removing
from backend.recordings.removing import Places
from tests.recordings.desk import Desk, Held, Scripted


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_worker_stops_and_what_it_had_stored_goes(desk: Desk) -> None:
    root = desk.storage.path("x").parent
    config = load({"EGRESS_DIR": str(desk.egress), "RECORDINGS_DIR": str(root), "RECORDINGS_WORK_DIR": str(desk.work)})
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
