"""Cancelling a recording, wherever its worker is, on real PostgreSQL."""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from backend.core.errors import TransientError
from backend.core.storage import Blob, FolderStorage
from backend.recordings import service
from backend.recordings.models import RecordingState, Stage
from backend.recordings.speech.base import Tick
from backend.recordings.work import running
from backend.recordings.work.running import Place
from tests.recordings.desk import Desk, Held, Killed, Scripted, die
from tests.recordings.notes import owner_of, scripted_note, standing_of
from tests.recordings.sounds import noise, write_encoded

STAGES = ("speech", "words", "speakers", "summary")


@pytest.mark.parametrize("stage", STAGES)
async def test_a_cancelled_recording_stops_within_seconds_in_every_stage(desk: Desk, note: Path, stage: str) -> None:
    key = uuid4()
    owner = await owner_of(desk, 100.0, key)
    recording = await desk.note(note, owner=owner, id=key)
    held = Held()
    working = asyncio.create_task(desk.transcribe(recording, scripted_note(stage, held)))
    assert await asyncio.to_thread(held.began.wait, 20)
    asked = await desk.cancel(recording)
    assert asked is not None
    assert asked.state == RecordingState.TRANSCRIBING
    began = time.monotonic()
    assert await working == RecordingState.CANCELLED
    assert time.monotonic() - began < 5
    now = await desk.now()
    assert (now.state, now.error, now.claimed_until) == (RecordingState.CANCELLED, None, None)
    assert (await desk.checkpoints(), list(desk.work.iterdir()), await desk.transcript()) == ([], [], None)
    # What was heard by then is used: all of it behind the words, at most half of the first of four parts among them.
    heard = {"speech": [(0, 0, 0)], "words": [(0, 0, 0), (1_000, 0, 1)]}.get(stage, [(8_000, 0, 1)])
    assert await standing_of(desk, owner) in heard
    assert await desk.transcribe(recording) is None


async def test_half_of_the_words_cost_half_of_the_length(desk: Desk, note: Path) -> None:
    key = uuid4()
    owner = await owner_of(desk, 100.0, key)
    recording = await desk.note(note, owner=owner, id=key)
    held, parts = Held(), []

    def at_the_third(tick: Tick) -> None:
        parts.append(tick)
        if len(parts) == 3:
            held(lambda _: tick(0.0))

    working = asyncio.create_task(desk.transcribe(recording, scripted_note("words", at_the_third)))
    assert await asyncio.to_thread(held.began.wait, 20)
    await desk.cancel(recording)
    assert await working == RecordingState.CANCELLED
    used, reserved, files = await standing_of(desk, owner)
    assert (reserved, files) == (0, 1)
    assert used == pytest.approx(4_000, abs=100)
    # Once more is once more: nobody hears for nothing by stopping in time.
    async with desk.db.transaction() as session:
        await service.retry(session, key)
    assert await desk.transcribe(recording, scripted_note()) == RecordingState.READY
    assert await standing_of(desk, owner) == (used + 8_000, 0, 2)


async def test_what_was_heard_before_a_worker_was_lost_is_used_too(desk: Desk, note: Path) -> None:
    key = uuid4()
    owner = await owner_of(desk, 100.0, key)
    recording = await desk.note(note, owner=owner, id=key)
    with pytest.raises(Killed):
        await desk.transcribe(recording, scripted_note("summary", die))
    await desk.change(percent=96)
    await desk.pass_time(service.LEASE)
    await desk.cancel(recording)
    assert (await desk.now()).state == RecordingState.CANCELLED
    assert await standing_of(desk, owner) == (8_000, 0, 1)


@pytest.mark.parametrize("fault", [TransientError("the service is away"), KeyError("ours")])
async def test_a_wish_that_meets_a_fault_of_the_worker_is_fulfilled_at_once(
    desk: Desk, note: Path, fault: Exception
) -> None:
    recording = await desk.note(note, tries=6)
    loop = asyncio.get_running_loop()

    def cancel_and_stumble(_: Tick) -> None:
        asyncio.run_coroutine_threadsafe(desk.cancel(recording), loop).result(20)
        raise fault

    working = desk.transcribe(recording, scripted_note("words", cancel_and_stumble))
    if isinstance(fault, TransientError):
        assert await working == RecordingState.CANCELLED
    else:
        # It is a fault of ours all the same, and said so.
        with pytest.raises(KeyError):
            await working
    assert (await desk.now()).state == RecordingState.CANCELLED
    assert (await desk.checkpoints(), list(desk.work.iterdir())) == ([], [])


async def test_a_recording_that_nobody_is_at_is_cancelled_at_once(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    asked = await desk.cancel(recording)
    assert asked is not None
    assert asked.state == RecordingState.CANCELLED
    # Whoever waits for the transcript is told that there will be none.
    assert desk.sent.named("extract_call_outcome") == [{"call_id": str(desk.subject)}]
    assert await desk.transcribe(recording) is None
    assert await desk.cancel(recording) is None


async def test_a_finished_recording_is_not_cancelled(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    await desk.transcribe(recording)
    assert await desk.cancel(recording) is None
    assert (await desk.now()).state == RecordingState.READY


@dataclass
class SlowStorage(FolderStorage):
    """A storage that takes a minute for a file."""

    root: Path

    def __post_init__(self) -> None:
        super().__init__(self.root)

    async def put(self, key: str, source: Path) -> Blob:
        await asyncio.sleep(60)
        return await super().put(key, source)


async def test_a_copy_that_takes_long_is_cancelled_too(desk: Desk, tmp_path: Path) -> None:
    recording = await desk.register(desk.write())
    place = Place(SlowStorage(tmp_path / "slow"), desk.egress, desk.work)
    working = asyncio.create_task(running.transcribe(desk.db, Scripted().tools(), place, recording_id=recording.id))
    while (await desk.now()).claimed_until is None:
        await asyncio.sleep(0.05)
    await desk.cancel(recording)
    assert await asyncio.wait_for(working, 5) == RecordingState.CANCELLED


async def test_a_wish_to_cancel_that_a_lost_worker_did_not_see_is_fulfilled_by_the_next(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    with pytest.raises(Killed):
        await desk.transcribe(recording, Scripted(words=die))
    asked = await desk.cancel(recording)
    assert asked is not None
    assert asked.state == RecordingState.TRANSCRIBING
    await desk.pass_time(service.LEASE)
    engine = Scripted()
    assert await desk.transcribe(recording, engine) == RecordingState.CANCELLED
    assert engine.heard == []


async def test_the_sweep_sees_to_a_cancelled_one_as_soon_as_its_lost_workers_lease_ends(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    await desk.pass_time(timedelta(minutes=2))
    # Its turn comes again in ten minutes.
    assert await service.sweep(desk.db) == 1
    with pytest.raises(Killed):
        await desk.transcribe(recording, Scripted(words=die))
    await desk.cancel(recording)
    assert await service.sweep(desk.db) == 0
    await desk.pass_time(service.LEASE)
    assert await service.sweep(desk.db) == 1
    assert await desk.transcribe(recording) == RecordingState.CANCELLED


async def test_decoding_is_cancelled_within_seconds_too(desk: Desk, tmp_path: Path) -> None:
    second = write_encoded(tmp_path / "second.mp3", "libmp3lame", noise(10.0)).read_bytes()
    # Frames of MP3 may follow each other: two hours, which take far longer to decode than the test waits.
    (tmp_path / "long.mp3").write_bytes(second * 720)
    recording = await desk.note(tmp_path / "long.mp3")
    working = asyncio.create_task(desk.transcribe(recording))
    async with asyncio.timeout(20):
        while (await desk.now()).stage != Stage.DECODE:
            await asyncio.sleep(0.05)
    await desk.cancel(recording)
    began = time.monotonic()
    assert await working == RecordingState.CANCELLED
    assert time.monotonic() - began < 5
    assert (await desk.checkpoints(), list(desk.work.iterdir())) == ([], [])


async def test_a_wish_to_cancel_beats_a_result_that_is_just_there(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    loop = asyncio.get_running_loop()

    def cancel_now(_: Tick) -> None:
        asyncio.run_coroutine_threadsafe(desk.cancel(recording), loop).result(20)

    assert await desk.transcribe(recording, Scripted(summary=cancel_now)) == RecordingState.CANCELLED
    assert await desk.transcript() is None
