"""What becomes of a recording that a worker transcribes, on real PostgreSQL."""

import asyncio
import wave
from pathlib import Path
from uuid import uuid4

import pytest
from sqlmodel import update

from backend.recordings import service
from backend.recordings.models import Recording, RecordingState, SegmentRow, SpeakerRow, Stage, SummaryRow
from backend.recordings.voice_samples import voice_samples
from backend.recordings.work import running
from tests.recordings.desk import Desk, Held, Killed, die
from tests.recordings.notes import owner_of, scripted_note, standing_of


async def test_a_note_becomes_segments_speakers_and_a_summary(desk: Desk, note: Path) -> None:
    recording = await desk.note(note, filename="Monday.wav")
    assert await desk.transcribe(recording, scripted_note()) == RecordingState.READY
    done = await desk.now()
    assert (done.title, done.duration_ms, done.error) == ("A greeting", 8000, None)
    segments = sorted(await desk.rows(SegmentRow), key=lambda row: row.number)
    assert [(row.number, row.start_ms, row.end_ms, row.speaker) for row in segments[:1] + segments[-1:]] == [
        (0, 0, 500, "Speaker 1"),
        (7, 7000, 7500, "Speaker 2"),
    ]
    assert {(row.version, row.config) for row in segments} == {(1, "english")}
    speakers = sorted(await desk.rows(SpeakerRow), key=lambda row: row.position)
    assert [(row.label, row.position, row.spoken_ms) for row in speakers] == [
        ("Speaker 1", 0, 2000),
        ("Speaker 2", 1, 2000),
    ]
    (summary,) = await desk.rows(SummaryRow)
    assert (summary.title, summary.backend, summary.action_items) == ("A greeting", "scripted", ["Answer."])
    transcript = await desk.transcript()
    assert transcript is not None
    assert (transcript.diarizer, transcript.usage, float(transcript.cost_usd or 0)) == ("none", {"parts": 4.0}, 1.0)
    assert (await desk.checkpoints(), list(desk.work.iterdir())) == ([], [])


async def test_a_clip_of_each_voice_is_kept(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    tools = scripted_note().tools(voice_samples=voice_samples)
    assert await running.transcribe(desk.db, tools, desk.place, recording_id=recording.id) == RecordingState.READY
    speakers = sorted(await desk.rows(SpeakerRow), key=lambda row: row.position)
    for row in speakers:
        with wave.open(str(desk.storage.path(row.sample_key or "")), "rb") as clip:
            assert (clip.getnchannels(), clip.getframerate()) == (1, 16_000)
            assert clip.getnframes() > 16_000
    assert len({row.sample_key for row in speakers}) == 2


async def test_a_title_that_somebody_gave_stays(desk: Desk, note: Path) -> None:
    recording = await desk.note(note, title="My own")
    await desk.transcribe(recording, scripted_note())
    assert (await desk.now()).title == "My own"


async def test_a_title_that_somebody_gives_meanwhile_stays_too(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    held = Held()
    working = asyncio.create_task(desk.transcribe(recording, scripted_note("summary", held)))
    assert await asyncio.to_thread(held.began.wait, 20)
    async with desk.db.transaction() as session:
        await session.exec(update(Recording).values(title="My own"))
    held.let_go.set()
    assert await working == RecordingState.READY
    assert (await desk.now()).title == "My own"


async def test_what_was_reserved_is_settled_by_the_length(desk: Desk, note: Path) -> None:
    key = uuid4()
    owner = await owner_of(desk, 100.0, key)
    recording = await desk.note(note, owner=owner, id=key)
    assert await standing_of(desk, owner) == (0, 100_000, 0)
    held = Held()
    working = asyncio.create_task(desk.transcribe(recording, scripted_note("words", held)))
    assert await asyncio.to_thread(held.began.wait, 20)
    # The length was known after the first look.
    assert await standing_of(desk, owner) == (0, 8_000, 0)
    held.let_go.set()
    await working
    assert await standing_of(desk, owner) == (8_000, 0, 1)


async def test_a_failure_costs_nothing(desk: Desk, tmp_path: Path) -> None:
    key = uuid4()
    owner = await owner_of(desk, 100.0, key)
    (tmp_path / "x.wav").write_bytes(b"no sound at all")
    recording = await desk.note(tmp_path / "x.wav", owner=owner, id=key)
    assert await desk.transcribe(recording) == RecordingState.FAILED
    assert (await desk.now()).error_code == "not_audio"
    assert await standing_of(desk, owner) == (0, 0, 0)


async def test_stage_percent_and_time_are_seen_while_it_runs(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    held, told = Held(), []

    async def report(done: int, total: int) -> None:
        told.append((done, total))

    working = asyncio.create_task(desk.transcribe(recording, scripted_note("words", held), report=report))
    await asyncio.sleep(1.5)
    now = await desk.now()
    assert (now.state, now.stage) == (RecordingState.TRANSCRIBING, Stage.WORDS)
    assert 10 < (now.percent or 0) < 40
    held.let_go.set()
    await working
    assert told
    assert all(0 <= done <= 100 and total == 100 for done, total in told)


async def test_a_worker_that_follows_a_lost_one_does_not_begin_at_nothing_again(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    with pytest.raises(Killed):
        await desk.transcribe(recording, scripted_note("words", die))
    await desk.change(percent=60)
    await desk.pass_time(service.LEASE)
    held = Held()
    working = asyncio.create_task(desk.transcribe(recording, scripted_note("words", held)))
    await asyncio.sleep(1.5)
    assert ((await desk.now()).stage, (await desk.now()).percent) == (Stage.WORDS, 60)
    held.let_go.set()
    await working
    assert (await desk.now()).percent == 100


async def test_only_what_failed_or_was_cancelled_is_tried_again(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    async with desk.db.transaction() as session:
        assert await service.retry(session, recording.id) is None
        assert await service.retry(session, uuid4()) is None


async def test_options_that_are_not_valid_fail_the_recording_and_no_worker(desk: Desk, note: Path) -> None:
    recording = await desk.note(note, options={"speakers": 99})
    assert await desk.transcribe(recording) == RecordingState.FAILED
    assert "options" in ((await desk.now()).error or "")
