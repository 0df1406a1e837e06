"""Workers that are lost, services that are away, and what the next worker makes of it, on real PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError
from sqlmodel import update

from backend.core.db import Database
from backend.core.errors import PermanentError, TransientError
from backend.recordings import service
from backend.recordings.models import Recording, RecordingState, SegmentRow
from backend.recordings.speech.base import Tick, Word, said
from devstack.servers import PostgresServer
from tests.recordings.desk import Desk, Held, Killed, Scripted, die
from tests.recordings.line import Line, line_to
from tests.recordings.notes import scripted_note


@pytest.mark.parametrize(
    ("stage", "again"),
    [("speech", (1, 4, 1, 1)), ("words", (0, 4, 1, 1)), ("speakers", (0, 0, 1, 1)), ("summary", (0, 0, 0, 1))],
)
async def test_the_next_worker_goes_on_from_the_last_checkpoint(
    desk: Desk, note: Path, stage: str, again: tuple[int, int, int, int], tmp_path: Path
) -> None:
    recording = await desk.note(note)
    with pytest.raises(Killed):
        await desk.transcribe(recording, scripted_note(stage, die))
    await desk.pass_time(service.LEASE)
    # On another machine: what was decoded is not there.
    desk.work = tmp_path / "elsewhere"
    scripted = scripted_note()
    assert await desk.transcribe(recording, scripted) == RecordingState.READY
    assert (scripted.listened, len(scripted.heard), len(scripted.counts), scripted.summed_up) == again
    assert len(await desk.rows(SegmentRow)) == 8


async def test_a_service_that_is_away_gives_the_recording_back_with_what_is_done(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    parts: list[int] = []

    def away_at_the_third(_: Tick) -> None:
        parts.append(1)
        if len(parts) == 3:
            raise TransientError("the service is away", after=40.0)

    with pytest.raises(TransientError) as waiting:
        await desk.transcribe(recording, scripted_note("words", away_at_the_third))
    assert waiting.value.after == 40.0
    now = await desk.now()
    assert (now.claimed_until, now.error, now.tries) == (None, "the service is away", 0)
    scripted = scripted_note()
    assert await desk.transcribe(recording, scripted) == RecordingState.READY
    assert [part.start for part in scripted.heard] == [4.0, 6.0]


async def test_a_service_that_stays_away_fails_it_and_a_retry_goes_on(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)

    def away(_: Tick) -> None:
        raise TransientError("the service is away")

    with pytest.raises(TransientError):
        await desk.transcribe(recording, scripted_note("speakers", away))
    for _ in range(service.MAX_ATTEMPTS - 1):
        with pytest.raises(TransientError):
            await desk.transcribe(recording, scripted_note("speakers", away))
    assert await desk.transcribe(recording, scripted_note("speakers", away)) == RecordingState.FAILED
    async with desk.db.transaction() as session:
        again = await service.retry(session, recording.id)
    assert again is not None
    assert (again.state, again.error, again.error_code, again.tries) == (RecordingState.FETCHED, None, None, 0)
    assert desk.sent.named("probe_recording") == [{"recording_id": str(recording.id)}]
    scripted = scripted_note()
    assert await desk.transcribe(recording, scripted) == RecordingState.READY
    assert scripted.heard == []


async def test_a_recording_longer_than_a_task_goes_on_in_another(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)

    def slow(tick: Tick) -> None:
        for _ in range(12):
            time.sleep(0.1)
            tick(0.5)

    assert await desk.transcribe(recording, scripted_note("words", slow), stretch=2.0) is None
    now = await desk.now()
    assert (now.claimed_until, now.error) == (None, None)
    assert desk.sent.named("transcribe_recording") == [{"recording_id": str(recording.id)}]
    scripted = scripted_note()
    assert await desk.transcribe(recording, scripted) == RecordingState.READY
    assert 0 < len(scripted.heard) < 4


async def test_of_two_workers_that_lose_sight_of_each_other_one_records(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    held = Held()
    late = asyncio.create_task(desk.transcribe(recording, scripted_note("words", held)))
    assert await asyncio.to_thread(held.began.wait, 20)
    await desk.pass_time(service.LEASE)
    assert await desk.transcribe(recording, scripted_note()) == RecordingState.READY
    # The first one is stopped, and what it has is thrown away.
    assert await asyncio.wait_for(late, 10) is None
    assert len(await desk.rows(SegmentRow)) == 8


async def test_a_recording_that_is_deleted_stops_its_worker(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    held = Held()
    working = asyncio.create_task(desk.transcribe(recording, scripted_note("words", held)))
    assert await asyncio.to_thread(held.began.wait, 20)
    async with desk.db.transaction() as session:
        await session.delete(await session.get(Recording, recording.id))
    assert list(desk.work.iterdir())
    assert await asyncio.wait_for(working, 10) is None
    assert list(desk.work.iterdir()) == []


@pytest.fixture
async def over_a_line(desk: Desk, postgres: PostgresServer) -> AsyncIterator[tuple[Desk, Line]]:
    """The desk, whose database is reached over a line that can be cut."""
    async with line_to(postgres.url) as (line, url):
        db = Database(url, send=desk.sent)
        desk.db, direct = db, desk.db
        yield desk, line
        desk.db = direct
        await db.close()


@pytest.mark.parametrize("stage", ["words", "summary"])
async def test_a_database_that_is_away_in_the_middle_stops_nothing(
    over_a_line: tuple[Desk, Line], note: Path, stage: str
) -> None:
    desk, line = over_a_line
    recording = await desk.note(note)
    loop = asyncio.get_running_loop()
    cut: list[float] = []

    def cut_the_line(_: Tick) -> None:
        if not cut:
            cut.append(time.monotonic())
            loop.call_soon_threadsafe(line.cut)
            loop.call_soon_threadsafe(loop.call_later, 4.0, line.mend)

    assert await desk.transcribe(recording, scripted_note(stage, cut_the_line)) == RecordingState.READY
    assert time.monotonic() - cut[0] >= 4.0
    now = await desk.now()
    assert (now.attempts, now.state) == (1, RecordingState.READY)
    assert len(await desk.rows(SegmentRow)) == 8


async def test_checkpoints_that_could_not_be_written_are_written_later(
    over_a_line: tuple[Desk, Line], note: Path
) -> None:
    desk, line = over_a_line
    recording = await desk.note(note)
    loop, parts = asyncio.get_running_loop(), [0]

    def cut_and_die(tick: Tick) -> None:
        parts[0] += 1
        if parts[0] == 1:
            loop.call_soon_threadsafe(line.cut)
            loop.call_soon_threadsafe(loop.call_later, 2.5, line.mend)
        elif parts[0] == 4:
            for _ in range(50):
                time.sleep(0.1)
                tick(0.5)
            raise Killed

    with pytest.raises(Killed):
        await desk.transcribe(recording, scripted_note("words", cut_and_die))
    assert [part for stage, part in await desk.checkpoints() if stage == "words"] == [0, 1, 2, 3]


async def test_a_fault_of_ours_stands_on_the_row_and_the_sweep_tries_again(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)

    def stumble(_: Tick) -> None:
        raise ZeroDivisionError("float division by zero")

    with pytest.raises(ZeroDivisionError):
        await desk.transcribe(recording, scripted_note("speakers", stumble))
    now = await desk.now()
    assert (now.claimed_until, now.error) == (None, "ZeroDivisionError")
    assert await service.sweep(desk.db) == 0
    await desk.pass_time(timedelta(seconds=301))
    assert await service.sweep(desk.db) == 1
    for _ in range(service.MAX_ATTEMPTS):
        with pytest.raises(ZeroDivisionError):
            await desk.transcribe(recording, scripted_note("speakers", stumble))
    assert await desk.transcribe(recording, scripted_note("speakers", stumble)) == RecordingState.FAILED
    assert (await desk.now()).error == "given up: 8 attempts ended without a result, ZeroDivisionError"


async def test_a_fault_of_ours_quotes_nothing_that_was_said(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    loop = asyncio.get_running_loop()

    async def store_what_does_not_fit() -> None:
        async with desk.db.transaction() as session:
            session.add(SegmentRow(recording_id=recording.id, number=0, start_ms=0, end_ms=0, text="my secret\x00"))

    def stumble(_: Tick) -> None:
        asyncio.run_coroutine_threadsafe(store_what_does_not_fit(), loop).result(20)

    with pytest.raises(DBAPIError) as fault:
        await desk.transcribe(recording, scripted_note("summary", stumble))
    assert "secret" not in str(fault.value)
    assert (await desk.now()).error == "DBAPIError"


async def test_words_with_signs_that_postgresql_does_not_take_are_stored_without_them(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    words = [Word(0.0, 0.5, " Good", 0.9), Word(0.5, 1.0, " morn\x00ing\ud800.", 0.7)]
    assert await desk.transcribe(recording, Scripted(script=[[said(words)]])) == RecordingState.READY
    (segment,) = await desk.rows(SegmentRow)
    assert segment.text == "Good morn\ufffding\ufffd."
    transcript = await desk.transcript()
    assert transcript is not None
    assert transcript.segments[0]["words"][1]["text"] == " morn\ufffding\ufffd."


@pytest.mark.parametrize("kind", [PermanentError, TransientError])
async def test_reasons_with_signs_that_postgresql_does_not_take_are_kept_without_them(
    desk: Desk, note: Path, kind: type[PermanentError | TransientError]
) -> None:
    recording = await desk.note(note)

    def refused(_: Tick) -> None:
        raise kind("no \x00 today")

    with suppress(TransientError):
        await desk.transcribe(recording, scripted_note("words", refused))
    now = await desk.now()
    assert (now.error, now.claimed_until) == ("no \ufffd today", None)


async def test_a_file_that_kills_workers_is_given_up_where_what_they_decoded_is_lost_with_them(
    desk: Desk, note: Path, tmp_path: Path
) -> None:
    recording = await desk.note(note)
    for attempt in range(service.MAX_ATTEMPTS + 1):
        desk.work = tmp_path / f"machine-{attempt}"
        with pytest.raises(Killed):
            await desk.transcribe(recording, scripted_note("words", die))
        await desk.pass_time(service.LEASE)
    assert await desk.transcribe(recording, scripted_note()) == RecordingState.FAILED
    assert (await desk.now()).error_code == "given_up"


async def test_a_worker_that_comes_back_after_cancel_and_retry_writes_nothing(desk: Desk, note: Path) -> None:
    recording = await desk.note(note)
    held = Held()
    late = asyncio.create_task(desk.transcribe(recording, scripted_note("summary", held), lease=timedelta(hours=1)))
    assert await asyncio.to_thread(held.began.wait, 20)
    async with desk.db.transaction() as session:
        # As if it had not been heard of for an hour.
        await session.exec(update(Recording).values(claimed_until=None))
        assert await service.cancel(session, recording.id) is not None
        assert await service.retry(session, recording.id) is not None
    held.let_go.set()
    assert await asyncio.wait_for(late, 10) is None
    now = await desk.now()
    assert (now.state, now.cancel_requested_at, await desk.transcript()) == (RecordingState.FETCHED, None, None)
