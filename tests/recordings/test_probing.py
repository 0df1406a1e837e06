"""The first look at an upload, on real PostgreSQL and real files."""

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from backend.core.errors import TransientError
from backend.quotas import service as quotas
from backend.recordings import service
from backend.recordings.models import Recording, RecordingState
from backend.recordings.work import probing
from tests.fixtures.people import add_user
from tests.recordings.desk import Desk, Held, Scripted
from tests.recordings.sounds import noise, silence, write_encoded, write_wav


async def _probe(desk: Desk, recording: Recording, max_seconds: float = 3600.0) -> RecordingState | None:
    return await probing.probe(
        desk.db,
        desk.storage,
        recording_id=recording.id,
        work=desk.work,
        max_seconds=max_seconds,
        then=service.TASK,
    )


async def _note_of(desk: Desk, source: Path, *, reserved: float) -> tuple[Recording, UUID]:
    user, key = await add_user(desk.db, "nora"), uuid4()
    async with desk.db.transaction() as session:
        await quotas.reserve(session, user_id=user.id, key=key, seconds=reserved)
    return await desk.note(source, owner=user.id, id=key), user.id


async def _left(desk: Desk, owner: UUID) -> tuple[float, float]:
    """Seconds used and reserved."""
    async with desk.db.transaction() as session:
        standing = await quotas.standing(session, owner)
    return standing.used_seconds, standing.reserved_seconds


async def test_an_upload_that_can_be_read_is_sent_to_be_transcribed(desk: Desk, tmp_path: Path) -> None:
    path = write_encoded(tmp_path / "a.mp3", "libmp3lame", noise(3.0))
    recording, owner = await _note_of(desk, path, reserved=0.0)
    assert await _probe(desk, recording) == RecordingState.FETCHED
    seen = await desk.now()
    assert (seen.codec, seen.channels, seen.state) == ("mp3", 1, RecordingState.FETCHED)
    assert seen.duration_ms == pytest.approx(3_000, abs=100)
    assert desk.sent.named("transcribe_recording") == [{"recording_id": str(recording.id)}]
    used, reserved = await _left(desk, owner)
    assert (used, reserved) == (0.0, (seen.duration_ms or 0) / 1000)
    assert list(desk.work.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "empty_audio"), (b"%PDF-1.7 no sound", "not_audio"), (b"Salted__ nothing to hear", "encrypted_audio")],
)
async def test_an_upload_that_cannot_be_read_fails_at_once(
    desk: Desk, tmp_path: Path, content: bytes, code: str
) -> None:
    (tmp_path / "a.mp3").write_bytes(content)
    recording, owner = await _note_of(desk, tmp_path / "a.mp3", reserved=60.0)
    assert await _probe(desk, recording) == RecordingState.FAILED
    assert ((await desk.now()).error_code, desk.sent.named("transcribe_recording")) == (code, [])
    assert await _left(desk, owner) == (0.0, 0.0)


async def test_silence_is_told_at_once(desk: Desk, tmp_path: Path) -> None:
    recording, _ = await _note_of(desk, write_wav(tmp_path / "a.wav", silence(30.0)), reserved=30.0)
    assert await _probe(desk, recording) == RecordingState.FAILED
    silent = await desk.now()
    assert (silent.error_code, silent.error) == ("silent_audio", "the file holds digital silence and nothing else")


@pytest.mark.parametrize(
    ("seconds", "limit", "said"),
    [
        (90.0, 60.0, "the file is 1 min 30 s long, over the limit of 1 min"),
        (7_260.4, 7_260.0, "the file is longer than the limit of 2 h 1 min"),
    ],
)
async def test_a_refusal_says_minutes_and_no_name_that_only_the_storage_knows(
    desk: Desk, tmp_path: Path, seconds: float, limit: float, said: str
) -> None:
    # At a tenth of the rate: what is long here is not large.
    source = write_wav(tmp_path / "a.wav", silence(seconds / 10), rate=1_600)
    recording = await desk.note(source)
    assert await _probe(desk, recording, max_seconds=limit) == RecordingState.FAILED
    assert (await desk.now()).error == said


async def test_what_is_longer_than_the_allowance_fails_and_costs_nothing(desk: Desk, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", noise(90.0))
    recording, owner = await _note_of(desk, path, reserved=0.0)
    async with desk.db.transaction() as session:
        left = (await quotas.standing(session, owner)).left_seconds
        assert left is not None
        await quotas.reserve(session, user_id=owner, key=uuid4(), seconds=left - 60.0)
    before = await _left(desk, owner)
    assert await _probe(desk, recording) == RecordingState.FAILED
    refused = await desk.now()
    assert refused.error_code == "quota_exceeded"
    assert await _left(desk, owner) == before
    assert desk.sent.named("transcribe_recording") == []


async def test_a_second_look_changes_nothing_once_a_worker_is_at_it(desk: Desk, tmp_path: Path) -> None:
    recording = await desk.note(write_wav(tmp_path / "a.wav", noise(3.0)))
    held = Held()
    working = asyncio.create_task(desk.transcribe(recording, Scripted(words=held, script=[[]])))
    assert await asyncio.to_thread(held.began.wait, 20)
    assert await _probe(desk, recording) is None
    held.let_go.set()
    assert await working == RecordingState.READY
    assert await _probe(desk, recording) is None
    assert await _probe(desk, Recording(kind="note", subject_id=uuid4(), source_path="")) is None


async def test_a_file_that_is_not_in_the_storage_is_waited_for(desk: Desk, tmp_path: Path) -> None:
    recording = await desk.note(write_wav(tmp_path / "a.wav", noise(1.0)))
    await desk.storage.delete(recording.blob_key or "")
    with pytest.raises(TransientError):
        await _probe(desk, recording)
    with pytest.raises(TransientError, match="not in the storage"):
        await desk.transcribe(recording)
    assert (await desk.now()).state == RecordingState.FETCHED


async def test_an_upload_whose_look_was_lost_is_looked_at_by_the_worker(desk: Desk, tmp_path: Path) -> None:
    recording, owner = await _note_of(desk, write_wav(tmp_path / "a.wav", noise(3.0)), reserved=0.0)
    await desk.pass_time(timedelta(minutes=2))
    assert await service.sweep(desk.db) == 1
    assert await desk.transcribe(recording, Scripted(script=[[]])) == RecordingState.READY
    assert await _left(desk, owner) == (3.0, 0.0)
