"""Deleting: for everybody at once, and the files as soon as that is possible; nothing is left half-done."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel import select

from backend.config import Config
from backend.core.clock import utc_now
from backend.core.db import Base
from backend.core.storage import FolderStorage
from backend.quotas import service as quotas
from backend.recordings import tasks
from backend.recordings.keeping import removing
from backend.recordings.keeping.removing import Places
from backend.recordings.models import RemovedFile
from tests.factories.recordings import at
from tests.recordings.reading.conftest import Library

OF_RECORDINGS = [
    "recordings",
    "transcripts",
    "transcript_segments",
    "segment_versions",
    "recording_speakers",
    "recording_summaries",
    "recording_shares",
    "recording_checkpoints",
]


async def counted(library: Library) -> dict[str, int]:
    async with library.db.transaction() as session:
        connection = await session.connection()
        tables = [*OF_RECORDINGS, "removed_files"]
        found = {
            table: (await connection.execute(text(f"select count(*) from {table}"))).scalar_one() for table in tables
        }
    return {table: count for table, count in found.items() if count}


async def change(library: Library, sql: str, **values: Any) -> None:
    async with library.db.transaction() as session:
        await (await session.connection()).execute(text(sql), values)


async def finish(library: Library) -> dict[str, int]:
    """The task, as a worker runs it."""
    product = library.people.product
    places = Places(FolderStorage(library.folder), product.config.egress_dir)
    return await removing.delete_files(library.db, places, config=product.config)


def test_every_table_of_recordings_is_looked_at() -> None:
    known = {name for name, table in Base.metadata.tables.items() if _refers_to_recordings(table)}
    assert known == set(OF_RECORDINGS) - {"recordings"}


def _refers_to_recordings(table: Any) -> bool:
    return any(key.column.table.name == "recordings" for key in table.foreign_keys)


async def test_everything_of_a_recording_goes_and_the_answer_says_what(library: Library) -> None:
    other = await library.note()
    rest = await counted(library)
    files = set(library.files())
    note, client = await library.note(), library.owner.client
    await client.put(at(note, "/segments/0"), json={"version": 1, "text": "Other"})
    await client.post(at(note, "/shares"), json={})
    answer = await client.delete(at(note))
    assert answer.status_code == 200
    assert answer.json() == {
        "id": str(note.id),
        "transcript": True,
        "segments": 3,
        "segment_versions": 1,
        "speakers": 2,
        "shares": 1,
        "files_deleted": 3,
        "files_pending": 0,
    }
    assert await counted(library) == rest
    assert set(library.files()) == files
    found = (await client.get("/api/recordings/search", params={"q": "insurance"})).json()["items"]
    assert {hit["recording_id"] for hit in found} == {str(other.id)}
    for path in ("", "/audio", "/transcript", "/segments", "/shares"):
        assert (await client.get(at(note, path))).status_code == 404
    assert (await client.delete(at(note))).status_code == 404


async def test_an_admin_may_delete_what_they_may_not_read_and_others_may_not(library: Library) -> None:
    people, note = library.people, await library.note(shared_role="viewer")
    for person, status in ((await people.viewer(), 403), (await people.operator(), 403), (await people.admin(), 200)):
        assert (await person.client.delete(at(note))).status_code == status


async def test_while_the_store_is_away_nobody_finds_it_and_its_files_follow_later(library: Library) -> None:
    note, client = await library.note(), library.owner.client
    away = library.folder.with_name("away")
    library.folder.rename(away)
    answer = (await client.delete(at(note))).json()
    assert (answer["files_deleted"], answer["files_pending"]) == (0, 3)
    assert (await client.get(at(note))).status_code == 404
    assert await counted(library) == {"removed_files": 3}
    assert await finish(library) == {"files": 0, "files_left": 3}
    away.rename(library.folder)
    await change(library, "update removed_files set next_attempt_at = now()")
    assert await finish(library) == {"files": 3, "files_left": 0}
    assert library.files() == []


async def test_a_file_that_cannot_be_deleted_is_tried_again_later_and_later(library: Library) -> None:
    note = await library.note()
    path = library.folder / str(note.blob_key)
    path.unlink()
    # No file can be unlinked that is a folder, whoever asks.
    path.mkdir()
    answer = (await library.owner.client.delete(at(note))).json()
    assert (answer["files_deleted"], answer["files_pending"]) == (2, 1)
    waits = []
    for _ in range(3):
        await change(library, "update removed_files set next_attempt_at = now()")
        await finish(library)
        async with library.db.transaction() as session:
            (file,) = (await session.exec(select(RemovedFile))).all()
        waits.append((file.next_attempt_at - utc_now()).total_seconds())
        assert file.problem
    assert waits == sorted(waits)
    assert waits[0] > 30
    path.rmdir()
    path.write_bytes(b"sound")
    await change(library, "update removed_files set next_attempt_at = now()")
    assert await finish(library) == {"files": 1, "files_left": 0}


async def test_what_a_worker_still_writes_after_the_deletion_is_deleted_too(library: Library) -> None:
    library.people.product.config.egress_dir.mkdir(parents=True, exist_ok=True)
    call = await library.note(
        owner_id=None,
        kind="call",
        state="transcribing",
        attempts=1,
        source_path="calls/a.ogg",
        claimed_until=utc_now() + timedelta(minutes=1),
        created_at=utc_now(),
        storage=None,
    )
    operator = await library.people.operator()
    assert (await operator.client.delete(at(call))).status_code == 200
    stem = f"calls/{call.created_at:%Y/%m}/{call.id}"
    late = [library.folder / f"{stem}.ogg", library.folder / f"{stem}-voice-0.wav"]
    for path in late:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"late")
    # A quarter of an hour later no worker holds it any more.
    await change(library, "update removed_files set until = now(), next_attempt_at = now()")
    assert (await finish(library))["files_left"] == 0
    assert [path for path in late if path.exists()] == []


async def test_a_calls_file_in_the_egress_folder_goes_by_the_worker(library: Library) -> None:
    config = library.people.product.config
    source = config.egress_dir / "calls" / "a.ogg"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(b"OggS")
    outside = config.egress_dir.parent / "precious"
    outside.write_text("kept")
    call = await library.note(owner_id=None, kind="call", source_path="calls/a.ogg")
    other = await library.note(owner_id=None, kind="call", source_path="../precious")
    operator = await library.people.operator()
    for recording in (call, other):
        answer = (await operator.client.delete(at(recording))).json()
        assert (answer["files_deleted"], answer["files_pending"]) == (3, 1)
    assert library.people.product.sent.named("remove_recording_files") == [{}, {}]
    assert source.exists()
    assert (await finish(library))["files_left"] == 0
    assert (source.exists(), outside.exists()) == (False, True)


async def test_what_was_reserved_of_a_quota_is_given_back(library: Library) -> None:
    note, user = await library.note(state="fetched"), library.owner.id
    async with library.db.transaction() as session:
        await quotas.reserve(session, user_id=user, key=note.id, seconds=60)
        before = await quotas.standing(session, user)
    await library.owner.client.delete(at(note))
    async with library.db.transaction() as session:
        after = await quotas.standing(session, user)
    assert after.reserved_ms == before.reserved_ms - 60_000


async def test_of_two_who_delete_at_once_one_has_done_it(library: Library) -> None:
    note = await library.note()
    answers = await asyncio.gather(*(library.owner.client.delete(at(note)) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404]


async def test_an_edit_and_a_deletion_at_once_leave_nothing_behind(library: Library) -> None:
    for _ in range(5):
        note, client = await library.note(), library.owner.client
        edited, named, gone = await asyncio.gather(
            client.put(at(note, "/segments/0"), json={"version": 1, "text": "Other"}),
            client.put(at(note, "/speakers/Speaker 1"), json={"name": "Anna"}),
            client.delete(at(note)),
        )
        assert gone.status_code == 200
        assert {edited.status_code, named.status_code} <= {200, 404}
    assert await counted(library) == {}


async def test_the_sweep_sends_the_task_again_while_files_wait(library: Library) -> None:
    sent = library.people.product.sent
    library.folder.mkdir(parents=True)
    assert await removing.sweep(library.db) is False
    async with library.db.transaction() as session:
        session.add(RemovedFile(place="storage", path="notes/a.ogg", until=utc_now()))
    assert await removing.sweep(library.db) is True
    assert len(sent.named("remove_recording_files")) == 1
    assert (await finish(library))["files_left"] == 0


async def test_the_tasks_delete_what_is_on_the_list(library: Library) -> None:
    runtime = library.people.product.runtime
    runtime.config.egress_dir.mkdir(parents=True, exist_ok=True)
    for age in (timedelta(), timedelta(days=40)):
        note = await library.note(age=age)
        async with library.db.transaction() as session:
            session.add(RemovedFile(place="storage", path=str(note.blob_key), until=utc_now()))
        assert await tasks.sweep_recordings(runtime) == 0
    assert len(library.people.product.sent.named("remove_recording_files")) == 2
    assert await tasks.remove_recording_files(runtime) == {"files": 2, "files_left": 0, "work_folders": 0}
    done = await tasks.cleanup_recordings(replace(runtime, config=short(runtime.config)))
    assert (done["deleted"], done["files_left"]) == (1, 0)


async def test_what_a_killed_worker_had_decoded_goes_with_its_recording(library: Library) -> None:
    runtime = library.people.product.runtime
    gone, kept = await library.note(), await library.note(state="transcribing")
    work = runtime.config.recordings.storage.work
    for note in (gone, kept):
        (work / str(note.id)).mkdir(parents=True)
        (work / str(note.id) / "0.s16").write_bytes(b"every word")
    (work / ".probe-1").mkdir()
    assert (await library.owner.client.delete(at(gone))).status_code == 200
    assert (await tasks.remove_recording_files(runtime))["work_folders"] == 1
    assert sorted(path.name for path in work.iterdir()) == sorted([str(kept.id), ".probe-1"])


def short(config: Config) -> Config:
    recordings = config.recordings
    return replace(config, recordings=replace(recordings, uploads=replace(recordings.uploads, retention_days=30)))


async def test_a_broker_that_is_away_deletes_nothing_less(library: Library) -> None:
    note = await library.note()
    library.people.product.sent.away = True
    assert (await library.owner.client.delete(at(note))).status_code == 200
    library.people.product.sent.away = False
    assert (await counted(library), library.files()) == ({}, [])
