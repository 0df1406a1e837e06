import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from backend.recordings import service
from tests.recordings.desk import Desk, Killed, Scripted, die


async def test_the_sweep_sends_what_the_broker_lost(desk: Desk) -> None:
    desk.sent.away = True
    recording = await desk.register(desk.write())
    desk.sent.away = False
    assert await service.sweep(desk.db) == 0, "its message may still be on its way"
    await desk.pass_time(timedelta(seconds=61))
    assert await service.sweep(desk.db) == 1
    assert desk.sent.named("transcribe_recording") == [{"recording_id": str(recording.id)}]
    assert await service.sweep(desk.db) == 0, "and now it is on its way again"


async def test_the_sweep_leaves_finished_and_claimed_recordings_alone(desk: Desk) -> None:
    ready = await desk.register(desk.write())
    await desk.transcribe(ready)
    claimed = await desk.register(desk.write(), subject=uuid4())
    with pytest.raises(Killed):
        await desk.transcribe(claimed, Scripted(die), lease=timedelta(hours=1))
    await desk.pass_time(timedelta(minutes=30))
    assert await service.sweep(desk.db) == 0


async def test_sweeps_at_the_same_time_send_each_recording_once(desk: Desk) -> None:
    for _ in range(6):
        await desk.register("/egress/call.ogg", subject=uuid4())
    await desk.pass_time(timedelta(minutes=2))
    desk.sent.clear()
    counts = await asyncio.gather(*(service.sweep(desk.db) for _ in range(3)))
    assert sum(counts) == len(desk.sent) == 6


async def test_a_long_queue_is_not_filled_with_copies(desk: Desk) -> None:
    for number in range(20):
        await desk.register(f"calls/{number}.wav", subject=uuid4())
    desk.sent.clear()
    # A night behind long recordings, and a sweep every two minutes.
    sent = []
    for _ in range(8 * 30):
        await desk.pass_time(timedelta(minutes=2))
        sent.append(await service.sweep(desk.db))
    # After 2, 12, 24, 48, 96, 192, 312 and 432 minutes.
    assert len(desk.sent) == sum(sent) == 20 * 8
    assert sum(sent[-60:]) == 20, "once in two hours at last"


async def test_whoever_waited_long_and_lost_its_worker_is_sent_soon(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    for _ in range(6):
        await desk.pass_time(timedelta(hours=2))
        assert await service.sweep(desk.db) == 1
    with pytest.raises(Killed):
        await desk.transcribe(recording, Scripted(die))
    await desk.pass_time(service.LEASE)
    assert await service.sweep(desk.db) == 1
