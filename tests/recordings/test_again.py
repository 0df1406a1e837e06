"""What becomes of a recording that is transcribed again, on real PostgreSQL: nothing is lost before there is something new."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import col, update

from backend.config import load
from backend.core.errors import PermanentError
from backend.notifications.models import Notification
from backend.quotas.service import QuotaExceeded
from backend.recordings import service
from backend.recordings.keeping.removing import Places, delete_files, perhaps_written
from backend.recordings.models import (
    Recording,
    RecordingState,
    SegmentRow,
    SegmentVersion,
    SpeakerRow,
    SummaryRow,
    TranscriptRow,
)
from backend.recordings.repository.removals import RemovalRepository
from backend.recordings.speech.base import Tick, Turn, Word, said
from backend.recordings.voice_samples import voice_samples
from backend.recordings.work import running
from tests.recordings.desk import Desk, Held, Killed, Scripted, die
from tests.recordings.notes import owner_of, scripted_note, standing_of

OTHERWISE = [[said([Word(at, at + 0.5, f" Other {at}.", 0.9)]) for at in range(4)]]


def otherwise(**given: Any) -> Scripted:
    """Hears other words, of one voice."""
    return Scripted(script=OTHERWISE, told=(Turn(0.0, 8.0, 0),), length=2.0, model="other", **given)


def refuse(_: Tick) -> None:
    raise PermanentError("the service refused it")


async def _ready(desk: Desk, note: Path, **values: Any) -> Recording:
    """A note that has been transcribed."""
    recording = await desk.note(note, **values)
    tools = scripted_note().tools(voice_samples=voice_samples)
    assert await running.transcribe(desk.db, tools, desk.place, recording_id=recording.id) == RecordingState.READY
    return recording


async def _asked(desk: Desk, recording: Recording, **options: Any) -> Recording | None:
    async with desk.db.transaction() as session:
        return await service.transcribe_again(session, recording.id, options)


async def _again(desk: Desk, recording: Recording, scripted: Scripted | None = None) -> RecordingState | None:
    tools = (scripted or otherwise()).tools(voice_samples=voice_samples)
    return await running.transcribe(desk.db, tools, desk.place, recording_id=recording.id)


async def _said(desk: Desk) -> list[str]:
    return [row.text for row in sorted(await desk.rows(SegmentRow), key=lambda row: row.number)]


async def test_the_new_transcript_takes_the_place_of_the_old_one(desk: Desk, note: Path) -> None:
    recording = await _ready(desk, note)
    async with desk.db.transaction() as session:
        await session.exec(update(SegmentRow).where(col(SegmentRow.number) == 0).values(version=2, text="Mine."))
        session.add(SegmentVersion(recording_id=recording.id, number=0, version=1, text="Part 0."))
        await session.exec(update(SpeakerRow).values(name="Anika"))
    again = await _asked(desk, recording, language="fr")
    assert again is not None
    assert (again.state, again.options) == (RecordingState.FETCHED, {"language": "fr"})
    assert desk.sent.named("probe_recording")[-1:] == [{"recording_id": str(recording.id)}]
    # Until then everything is there.
    assert (await _said(desk))[:2] == ["Mine.", "Part 1."]
    heard = otherwise()
    assert await _again(desk, recording, heard) == RecordingState.READY
    assert set(heard.languages) == {"fr"}
    assert await _said(desk) == [f"Other {at}." for at in range(4)]
    assert await desk.rows(SegmentVersion) == []
    assert [(row.label, row.name) for row in await desk.rows(SpeakerRow)] == [("Speaker 1", None)]
    assert [row.model for row in await desk.rows(TranscriptRow)] == ["other"]
    assert len(await desk.rows(SummaryRow)) == 1
    assert (await desk.checkpoints(), list(desk.work.iterdir())) == ([], [])


async def test_one_that_fails_leaves_what_was_there_and_says_why(desk: Desk, note: Path) -> None:
    key = uuid4()
    owner = await owner_of(desk, 100.0, key)
    recording = await _ready(desk, note, owner=owner, id=key)
    before = await _said(desk)
    await _asked(desk, recording)
    assert await _again(desk, recording, otherwise(words=refuse)) == RecordingState.READY
    now = await desk.now()
    assert (now.state, now.error, now.error_code) == (RecordingState.READY, "the service refused it", "failed")
    assert await _said(desk) == before
    samples = [desk.storage.path(row.sample_key or "") for row in await desk.rows(SpeakerRow)]
    assert len(samples) == 2
    assert all(path.exists() for path in samples)
    # The first time was paid for, this one was not.
    assert await standing_of(desk, owner) == (8_000, 0, 1)
    assert [told.subject for told in await desk.rows(Notification)] == [
        f"Not transcribed again: recording of {recording.created_at:%Y-%m-%d}"
    ]
    await _asked(desk, recording)
    assert await _again(desk, recording) == RecordingState.READY
    assert ((await desk.now()).error, len(await _said(desk))) == (None, 4)


async def test_one_that_is_cancelled_leaves_what_was_there(desk: Desk, note: Path) -> None:
    key = uuid4()
    owner = await owner_of(desk, 100.0, key)
    recording = await _ready(desk, note, owner=owner, id=key)
    before = await _said(desk)
    await _asked(desk, recording)
    waiting = await desk.cancel(recording)
    assert waiting is not None
    assert waiting.state == RecordingState.READY
    assert await standing_of(desk, owner) == (8_000, 0, 1)
    await _asked(desk, recording)
    held = Held()
    working = asyncio.create_task(_again(desk, recording, otherwise(speech=held)))
    assert await asyncio.to_thread(held.began.wait, 20)
    await desk.cancel(recording)
    assert await working == RecordingState.READY
    assert ((await desk.now()).error, await _said(desk)) == (None, before)
    assert await standing_of(desk, owner) == (8_000, 0, 1)


async def test_it_costs_as_much_as_a_new_one(desk: Desk, note: Path) -> None:
    key = uuid4()
    owner = await owner_of(desk, 100.0, key)
    recording = await _ready(desk, note, owner=owner, id=key)
    await _asked(desk, recording)
    assert await standing_of(desk, owner) == (8_000, 8_000, 1)
    await _again(desk, recording)
    assert await standing_of(desk, owner) == (16_000, 0, 2)
    # A second message of the same finds nothing to do.
    assert await _again(desk, recording) is None
    assert await standing_of(desk, owner) == (16_000, 0, 2)


async def test_a_quota_that_is_used_up_refuses_it_and_changes_nothing(desk: Desk, note: Path) -> None:
    key = uuid4()
    # The standard plan has 600 minutes.
    owner = await owner_of(desk, 100.0, key)
    recording = await _ready(desk, note, owner=owner, id=key)
    async with desk.db.transaction() as session:
        await session.exec(update(Recording).values(duration_ms=36_000_001))
    with pytest.raises(QuotaExceeded):
        await _asked(desk, recording)
    assert (await desk.now()).state == RecordingState.READY
    assert await standing_of(desk, owner) == (8_000, 0, 1)


async def test_a_title_of_the_machines_is_made_anew_and_a_persons_stays(desk: Desk, note: Path) -> None:
    recording = await _ready(desk, note)
    assert (await desk.now()).title == "A greeting"
    async with desk.db.transaction() as session:
        await session.exec(update(SummaryRow).values(title="An older title"))
        await session.exec(update(Recording).values(title="An older title"))
    await _asked(desk, recording)
    await _again(desk, recording)
    assert (await desk.now()).title == "A greeting"
    async with desk.db.transaction() as session:
        await session.exec(update(Recording).values(title="My own"))
    await _asked(desk, recording)
    await _again(desk, recording)
    assert (await desk.now()).title == "My own"


async def test_a_title_of_the_machines_goes_with_its_summary(desk: Desk, note: Path) -> None:
    recording = await _ready(desk, note)
    await _asked(desk, recording, summary=False)
    await _again(desk, recording)
    assert ((await desk.now()).title, await desk.rows(SummaryRow)) == (None, [])


async def _swept(desk: Desk) -> None:
    """What is to be deleted is, by now."""
    config = load({"RECORDINGS_DIR": str(_folder(desk))})
    await delete_files(desk.db, Places(desk.storage, None), config=config)


def _folder(desk: Desk) -> Path:
    """The storage's."""
    return desk.storage.path("x").parent


def _voices(desk: Desk) -> list[str]:
    """Clips of voices, by name."""
    return sorted(path.name for path in _folder(desk).rglob("*-*-*-*-*-*-*.wav"))


async def test_clips_of_voices_change_with_the_transcript_and_never_before(desk: Desk, note: Path) -> None:
    recording = await _ready(desk, note)
    first = [f"{recording.id}-voice-0.wav", f"{recording.id}-voice-1.wav"]
    assert _voices(desk) == first
    await _asked(desk, recording)
    await _again(desk, recording)
    assert [row.sample_key for row in await desk.rows(SpeakerRow)] == [
        f"notes/{recording.created_at:%Y/%m}/{recording.id}-again-0.wav"
    ]
    assert _voices(desk) == [f"{recording.id}-again-0.wav", *first]
    # The third time comes before the sweep: its clips lie where the first ones did, and stay.
    await _asked(desk, recording)
    assert await _again(desk, recording, scripted_note()) == RecordingState.READY
    await _swept(desk)
    assert _voices(desk) == first
    assert all(desk.storage.path(row.sample_key or "").exists() for row in await desk.rows(SpeakerRow))


async def test_a_recording_that_is_deleted_meanwhile_leaves_no_clip(desk: Desk, note: Path) -> None:
    recording = await _ready(desk, note)
    await _asked(desk, recording)
    with pytest.raises(Killed):
        await _again(desk, recording, otherwise(summary=die))
    await desk.storage.put(f"notes/{recording.created_at:%Y/%m}/{recording.id}-again-0.wav", note)
    now = await desk.now()
    async with desk.db.transaction() as session:
        from_there = await RemovalRepository(session).remove([now.id], perhaps_written([now]))
    assert len(from_there.files) > 3
    await _swept(desk)
    assert [path for path in _folder(desk).rglob("*") if path.is_file()] == []


async def test_a_worker_that_is_killed_is_followed_by_one_that_goes_on(desk: Desk, note: Path) -> None:
    recording = await _ready(desk, note)
    before = await _said(desk)
    await _asked(desk, recording)
    with pytest.raises(Killed):
        await _again(desk, recording, otherwise(summary=die))
    assert await _said(desk) == before
    await desk.pass_time(service.LEASE + timedelta(seconds=1))
    successor = otherwise()
    assert await _again(desk, recording, successor) == RecordingState.READY
    assert (successor.heard, len(await _said(desk))) == ([], 4)


async def test_only_what_is_final_is_transcribed_again(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    assert await _asked(desk, recording) is None
    await desk.cancel(recording)
    assert await _asked(desk, recording) is not None
    assert await _asked(desk, recording) is None
    assert await _again(desk, recording) == RecordingState.READY


async def test_of_a_call_the_parties_are_told_and_the_outcome_is_asked_for_again(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    assert await desk.transcribe(recording) == RecordingState.READY
    assert await _asked(desk, recording) is not None
    assert await desk.transcribe(recording) == RecordingState.READY
    assert desk.sent.named("extract_call_outcome") == [{"call_id": str(desk.subject)}] * 2
    assert [row.label for row in await desk.rows(SpeakerRow)] == ["agent", "customer"]
