"""Recordings that have been kept long enough are deleted, files and all."""

import os
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlmodel import select

from backend.config import Config, load
from backend.core.errors import PermanentError
from backend.recordings import cleaning
from backend.recordings.models import Recording, TranscriptRow
from tests.recordings.desk import Desk

SHORT = {"CALLS_RECORDING_RETENTION_DAYS": "30"}


def settings(desk: Desk, **given: str) -> Config:
    folders = {"EGRESS_DIR": str(desk.egress), "RECORDINGS_DIR": str(desk.storage.path("x").parent)}
    return load(folders | (given or SHORT))


async def grow_old(desk: Desk, recording: Recording, days: int) -> None:
    async with desk.db.transaction() as session:
        connection = await session.connection()
        change = text("update recordings set created_at = now() - cast(:age as interval) where id = :id")
        await connection.execute(change, {"age": timedelta(days=days), "id": recording.id})


async def made(desk: Desk, name: str, days: int) -> tuple[Recording, Path, Path]:
    """A transcribed recording of that many days ago; its row, its file in the storage, the file that it came as."""
    source = desk.write(name)
    recording = await desk.register(source, subject=uuid4())
    await desk.transcribe(recording)
    await grow_old(desk, recording, days)
    async with desk.db.transaction() as session:
        blob = (await session.exec(select(Recording.blob_key).where(Recording.id == recording.id))).one()
    assert blob is not None
    return recording, desk.storage.path(blob), source


async def left(desk: Desk) -> tuple[int, int]:
    async with desk.db.transaction() as session:
        recordings, transcripts = await session.exec(select(Recording)), await session.exec(select(TranscriptRow))
        return len(recordings.all()), len(transcripts.all())


async def test_old_recordings_go_with_their_files_and_transcripts_and_young_ones_stay(desk: Desk) -> None:
    old = [await made(desk, f"old-{number}.ogg", 31) for number in range(5)]
    _, young_file, young_source = await made(desk, "young.ogg", 29)
    assert await cleaning.clean(desk.db, settings(desk), batch=2) == {"deleted": 5, "kept": 0}
    assert [path for _, *files in old for path in files if path.exists()] == []
    assert (young_file.exists(), young_source.exists()) == (True, True)
    assert await left(desk) == (1, 1)
    assert await cleaning.clean(desk.db, settings(desk)) == {"deleted": 0, "kept": 0}


@pytest.mark.parametrize(
    ("given", "deleted"),
    [
        ({"CALLS_RECORDING_RETENTION_DAYS": "0"}, 0),
        ({"CALLS_RETENTION_DAYS": "30"}, 1),
        ({"CALLS_RETENTION_DAYS": "30", "CALLS_RECORDING_RETENTION_DAYS": "300"}, 1),
        ({"CALLS_RETENTION_DAYS": "300", "CALLS_RECORDING_RETENTION_DAYS": "30"}, 1),
        ({"CALLS_RETENTION_DAYS": "300"}, 0),
    ],
)
async def test_a_recording_is_kept_no_longer_than_its_call(desk: Desk, given: dict[str, str], deleted: int) -> None:
    await made(desk, "a.ogg", 31)
    assert (await cleaning.clean(desk.db, settings(desk, **given)))["deleted"] == deleted


async def test_what_is_not_finished_is_left_alone(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    await grow_old(desk, recording, 40)
    assert recording.state == "registered"
    assert await cleaning.clean(desk.db, settings(desk)) == {"deleted": 0, "kept": 0}


async def test_a_file_that_is_gone_already_is_no_obstacle(desk: Desk) -> None:
    _, file, source = await made(desk, "a.ogg", 31)
    file.unlink()
    source.unlink()
    assert (await cleaning.clean(desk.db, settings(desk)))["deleted"] == 1


async def test_a_file_that_cannot_be_deleted_keeps_its_row_and_holds_up_no_other(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    recording, file, _ = await made(desk, "stuck.ogg", 33)
    file.unlink()
    # No file can be unlinked that is a folder, whoever asks.
    file.mkdir()
    for number in range(3):
        await made(desk, f"old-{number}.ogg", 32)
    assert await cleaning.clean(desk.db, settings(desk), batch=2) == {"deleted": 3, "kept": 1}
    assert await left(desk) == (1, 1)
    assert f"recording {recording.id} is kept" in caplog.text
    file.rmdir()
    assert await cleaning.clean(desk.db, settings(desk)) == {"deleted": 1, "kept": 0}


async def test_without_the_storage_no_row_is_deleted(desk: Desk, tmp_path: Path) -> None:
    await made(desk, "a.ogg", 31)
    config = load(SHORT | {"EGRESS_DIR": str(desk.egress), "RECORDINGS_DIR": str(tmp_path / "not-mounted")})
    with pytest.raises(PermanentError, match="not-mounted is not a folder here"):
        await cleaning.clean(desk.db, config)
    assert await left(desk) == (1, 1)


async def test_a_path_that_leads_out_of_the_egress_folder_is_not_followed(desk: Desk, tmp_path: Path) -> None:
    recording, _, _ = await made(desk, "a.ogg", 31)
    outside = tmp_path / "precious"
    outside.write_text("kept")
    async with desk.db.transaction() as session:
        connection = await session.connection()
        path = os.path.relpath(outside, desk.egress)
        await connection.execute(
            text("update recordings set source_path = :path where id = :id"), {"path": path, "id": recording.id}
        )
    assert (await cleaning.clean(desk.db, settings(desk)))["deleted"] == 1
    assert outside.exists()
