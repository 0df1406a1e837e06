"""Recordings that have been kept long enough are deleted, files and all: calls' by the setting, notes as their owners say."""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlmodel import select

from backend.config import Config, load
from backend.core.clock import utc_now
from backend.core.errors import PermanentError
from backend.quotas import service as quotas
from backend.recordings.keeping import cleaning
from backend.recordings.models import OwnerRetention, Recording, RemovedFile, ShareLink, TranscriptRow
from tests.factories.recordings import add_recording
from tests.fixtures.people import add_user
from tests.recordings.desk import Desk

SHORT = {"CALLS_RECORDING_RETENTION_DAYS": "30"}
DONE = {"deleted": 0, "files": 0, "files_left": 0, "shares": 0, "work_folders": 0}


def settings(desk: Desk, **given: str) -> Config:
    folders = {
        "EGRESS_DIR": str(desk.egress),
        "RECORDINGS_DIR": str(desk.storage.path("x").parent),
        "RECORDINGS_WORK_DIR": str(desk.work),
    }
    return load(folders | (given or SHORT))


async def clean(desk: Desk, given: dict[str, str] | None = None, *, batch: int = cleaning.BATCH) -> dict[str, int]:
    desk.storage.path("x").parent.mkdir(parents=True, exist_ok=True)
    return await cleaning.clean(desk.db, desk.storage, settings(desk, **(given or {})), batch=batch)


async def change(desk: Desk, sql: str, **values: Any) -> None:
    async with desk.db.transaction() as session:
        await (await session.connection()).execute(text(sql), values)


async def made(desk: Desk, name: str, days: int) -> tuple[Recording, Path, Path]:
    """A transcribed recording of that many days ago; its row, its file in the storage, the file that it came as."""
    source = desk.write(name)
    recording = await desk.register(source, subject=uuid4())
    await desk.transcribe(recording)
    sql = "update recordings set created_at = now() - cast(:age as interval) where id = :id"
    await change(desk, sql, age=timedelta(days=days), id=recording.id)
    async with desk.db.transaction() as session:
        blob = (await session.exec(select(Recording.blob_key).where(Recording.id == recording.id))).one()
    assert blob is not None
    return recording, desk.storage.path(blob), source


async def left(desk: Desk) -> tuple[int, int]:
    async with desk.db.transaction() as session:
        recordings, transcripts = await session.exec(select(Recording)), await session.exec(select(TranscriptRow))
        return len(recordings.all()), len(transcripts.all())


async def test_old_recordings_go_with_their_files_and_transcripts_and_young_ones_stay(desk: Desk) -> None:
    old = [await made(desk, f"old-{number}.wav", 31) for number in range(5)]
    _, young_file, young_source = await made(desk, "young.wav", 29)
    done = await clean(desk, batch=2)
    assert (done["deleted"], done["files_left"]) == (5, 0)
    assert [path for _, *files in old for path in files if path.exists()] == []
    assert (young_file.exists(), young_source.exists()) == (True, True)
    assert await left(desk) == (1, 1)
    assert await clean(desk) == DONE


@pytest.mark.parametrize(
    ("given", "deleted"),
    [
        ({"CALLS_RECORDING_RETENTION_DAYS": "0"}, 0),
        ({"CALLS_RETENTION_DAYS": "30"}, 1),
        ({"CALLS_RETENTION_DAYS": "30", "CALLS_RECORDING_RETENTION_DAYS": "300"}, 1),
        ({"CALLS_RETENTION_DAYS": "300", "CALLS_RECORDING_RETENTION_DAYS": "30"}, 1),
        ({"CALLS_RETENTION_DAYS": "300", "NOTES_RETENTION_DAYS": "1"}, 0),
    ],
)
async def test_a_recording_is_kept_no_longer_than_its_call(desk: Desk, given: dict[str, str], deleted: int) -> None:
    await made(desk, "a.wav", 31)
    assert (await clean(desk, given))["deleted"] == deleted


async def test_notes_are_kept_as_the_setting_says_or_their_owner(desk: Desk) -> None:
    careful, keeper, other = [await add_user(desk.db, name) for name in ("careful", "keeper", "other")]
    async with desk.db.transaction() as session:
        session.add(OwnerRetention(owner_id=careful.id, kind="note", days=7, updated_by="careful"))
        session.add(OwnerRetention(owner_id=keeper.id, kind="note", days=0, updated_by="ada"))
    kept = {}
    for owner in (careful.id, keeper.id, other.id, None):
        for days in (5, 10, 40):
            note = await add_recording(desk.db, owner, age=timedelta(days=days))
            kept[owner, days] = note.id
    assert (await clean(desk, {"NOTES_RETENTION_DAYS": "30"}))["deleted"] == 4
    async with desk.db.transaction() as session:
        ids = set((await session.exec(select(Recording.id))).all())
    gone = {key for key, recording_id in kept.items() if recording_id not in ids}
    assert gone == {(careful.id, 10), (careful.id, 40), (other.id, 40), (None, 40)}
    # The setting is shortened: what is due then goes with the next cleaning.
    assert (await clean(desk, {"NOTES_RETENTION_DAYS": "6"}))["deleted"] == 2


async def test_what_is_not_finished_is_left_alone(desk: Desk) -> None:
    await desk.register(desk.write())
    await change(desk, "update recordings set created_at = now() - interval '40 days'")
    assert await clean(desk) == DONE


async def test_what_had_been_reserved_of_a_quota_is_given_back(desk: Desk) -> None:
    user = await add_user(desk.db, "olga")
    note = await add_recording(desk.db, user.id, age=timedelta(days=40), state="failed")
    async with desk.db.transaction() as session:
        await quotas.reserve(session, user_id=user.id, key=note.id, seconds=60)
    await clean(desk, {"NOTES_RETENTION_DAYS": "30"})
    async with desk.db.transaction() as session:
        assert (await quotas.standing(session, user.id)).reserved_ms == 0


async def test_a_file_that_is_gone_already_is_no_obstacle(desk: Desk) -> None:
    _, file, source = await made(desk, "a.wav", 31)
    file.unlink()
    source.unlink()
    done = await clean(desk)
    assert (done["deleted"], done["files_left"]) == (1, 0)


async def test_a_file_that_cannot_be_deleted_is_tried_again_and_holds_up_no_other(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    _, file, _ = await made(desk, "stuck.wav", 33)
    file.unlink()
    # No file can be unlinked that is a folder, whoever asks.
    file.mkdir()
    for number in range(3):
        await made(desk, f"old-{number}.wav", 32)
    done = await clean(desk, batch=2)
    assert (done["deleted"], done["files_left"]) == (4, 1)
    assert await left(desk) == (0, 0)
    assert f"{file.name} of a deleted recording is still in storage" in caplog.text
    file.rmdir()
    # Not at once: a store that is away has other things to do.
    assert (await clean(desk))["files_left"] == 1
    await change(desk, "update removed_files set next_attempt_at = now()")
    assert await clean(desk) == DONE


async def test_without_the_storage_no_row_is_deleted(desk: Desk, tmp_path: Path) -> None:
    await made(desk, "a.wav", 31)
    config = load(SHORT | {"EGRESS_DIR": str(desk.egress), "RECORDINGS_DIR": str(tmp_path / "not-mounted")})
    with pytest.raises(PermanentError, match="not-mounted is not a folder here"):
        await cleaning.clean(desk.db, desk.storage, config)
    assert await left(desk) == (1, 1)


async def test_a_path_that_leads_out_of_the_egress_folder_is_not_followed(desk: Desk, tmp_path: Path) -> None:
    await made(desk, "a.wav", 31)
    outside = tmp_path / "precious"
    outside.write_text("kept")
    await change(desk, "update recordings set source_path = :path", path=os.path.relpath(outside, desk.egress))
    assert (await clean(desk))["deleted"] == 1
    assert outside.exists()
    async with desk.db.transaction() as session:
        assert (await session.exec(select(RemovedFile))).all() == []


async def test_links_go_a_month_after_they_are_over(desk: Desk) -> None:
    note, now = await add_recording(desk.db), utc_now()
    day = timedelta(days=1)
    ends = [(now + day, None), (now - 29 * day, None), (now - 31 * day, None), (now + day, now - 31 * day)]
    async with desk.db.transaction() as session:
        for number, (expires, revoked) in enumerate(ends):
            link = ShareLink(recording_id=note.id, token_hash=bytes([number]), created_by="olga", expires_at=expires)
            link.revoked_at = revoked
            session.add(link)
    assert (await clean(desk))["shares"] == 2


async def test_work_folders_that_a_killed_worker_has_left_go_and_those_in_use_stay(desk: Desk) -> None:
    open_one = await desk.register(desk.write())
    done = await add_recording(desk.db)
    names = (str(open_one.id), str(done.id), str(uuid4()), ".probe-x1y2", "not-a-recording")
    folders = {name: desk.work / name for name in names}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "0.s16").write_bytes(b"sound")
    assert (await clean(desk))["work_folders"] == 0
    long_ago = time.time() - 7_200
    for folder in folders.values():
        os.utime(folder, (long_ago, long_ago))
    assert (await clean(desk))["work_folders"] == 3
    assert {name for name, folder in folders.items() if folder.exists()} == {str(open_one.id), "not-a-recording"}
