"""Recordings through the door, on real PostgreSQL; the engine is one that hears what it is told."""

import asyncio
import errno
import hashlib
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, delete

from backend.accounts.models import User
from backend.core.errors import TransientError
from backend.recordings import fetching, service
from backend.recordings.models import Recording, RecordingState
from backend.recordings.sound.unreadable import NotAudio
from backend.recordings.speech.base import Tick
from tests.fixtures.people import add_user
from tests.recordings.desk import Desk, Held, Killed, Scripted, die


async def test_a_registered_recording_is_sent_to_be_transcribed_once(desk: Desk) -> None:
    first = await desk.register("/egress/call.ogg")
    again = await desk.register("/egress/other.ogg")
    assert (again.id, again.source_path) == (first.id, "/egress/call.ogg")
    assert desk.sent.named("transcribe_recording") == [{"recording_id": str(first.id)}]
    assert (first.state, first.channel_speakers) == (RecordingState.REGISTERED, ["agent", "customer"])


async def test_registering_at_the_same_time_makes_one_recording(desk: Desk) -> None:
    made = await asyncio.gather(*(desk.register("/egress/call.ogg") for _ in range(5)))
    assert len({recording.id for recording in made}) == 1
    assert len(desk.sent.named("transcribe_recording")) == 1


async def test_a_recording_is_fetched_transcribed_and_handed_on(desk: Desk) -> None:
    source = desk.write()
    recording = await desk.register(source)
    engine = Scripted()
    assert await desk.transcribe(recording, engine) == RecordingState.READY

    done = await desk.now()
    assert (done.state, done.error, done.claimed_until, done.attempts) == (RecordingState.READY, None, None, 1)
    assert (done.duration_ms, done.channels, done.size_bytes) == (2_250, 2, source.stat().st_size)
    assert (done.codec, done.percent, done.stage, done.seconds_left) == ("pcm_s16le", 100, None, None)
    assert done.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert done.blob_key == f"calls/{done.created_at:%Y/%m}/{done.id}.wav"
    assert [(part.channel, part.isolated) for part in engine.heard] == [(0, True), (1, True)]
    assert desk.storage.path(done.blob_key).read_bytes() == source.read_bytes()

    transcript = await desk.transcript()
    assert transcript is not None
    assert transcript.text == "agent: Good morning.\ncustomer: Yes?"
    assert (transcript.language, transcript.backend, transcript.model) == ("en", "scripted", "none")
    assert transcript.segments[0] == {
        "start": 0.0,
        "end": 1.0,
        "speaker": "agent",
        "channel": 0,
        "text": "Good morning.",
        "confidence": 0.8,
        "words": [
            {"start": 0.0, "end": 0.5, "text": " Good", "confidence": 0.9},
            {"start": 0.5, "end": 1.0, "text": " morning.", "confidence": 0.7},
        ],
    }
    assert desk.sent.named("extract_call_outcome") == [{"call_id": str(desk.subject)}]


async def test_a_second_delivery_changes_nothing(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    await desk.transcribe(recording)
    before = await desk.now()
    engine = Scripted()
    assert await desk.transcribe(recording, engine) is None
    assert engine.heard == []
    assert (await desk.now()).model_dump() == before.model_dump()
    assert len(desk.sent.named("extract_call_outcome")) == 1


async def test_of_deliveries_at_the_same_time_one_works(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    engine = Scripted()
    states = await asyncio.gather(*(desk.transcribe(recording, engine) for _ in range(4)))
    assert sorted(map(str, states)) == ["None", "None", "None", "ready"]
    assert len(engine.heard) == 2


async def test_an_unknown_recording_is_nothing_to_do(desk: Desk) -> None:
    assert await desk.transcribe(Recording(kind="call", subject_id=uuid4(), source_path="")) is None


async def test_a_recording_of_a_lost_worker_is_taken_over_once_its_lease_ends(desk: Desk) -> None:
    source = desk.write()
    recording = await desk.register(source)
    with pytest.raises(Killed):
        await desk.transcribe(recording, Scripted(words=die))
    assert (await desk.now()).state == RecordingState.TRANSCRIBING
    # The broker hands the message out again at once; the lease still stands.
    assert await desk.transcribe(recording) is None
    assert await service.sweep(desk.db) == 0

    await desk.pass_time(service.LEASE + timedelta(seconds=61))
    assert await service.sweep(desk.db) == 1
    # What was fetched is kept, so the source may be gone.
    source.unlink()
    assert await desk.transcribe(recording) == RecordingState.READY
    assert (await desk.now()).attempts == 2


async def test_a_recording_that_keeps_killing_workers_is_given_up(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    # The first one gets as far as finding the speech, and the count begins anew.
    for _ in range(service.MAX_ATTEMPTS + 1):
        with pytest.raises(Killed):
            await desk.transcribe(recording, Scripted(words=die))
        await desk.pass_time(service.LEASE)
    engine = Scripted()
    assert await desk.transcribe(recording, engine) == RecordingState.FAILED
    assert engine.heard == []
    assert "given up" in ((await desk.now()).error or "")
    assert (await desk.now()).error_code == "given_up"


async def test_a_lease_is_renewed_while_the_work_goes_on(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    held, lease = Held(), timedelta(seconds=0.8)
    working = asyncio.create_task(desk.transcribe(recording, Scripted(words=held), lease=lease))
    await asyncio.sleep(1.6)
    assert await desk.transcribe(recording) is None
    held.let_go.set()
    assert await working == RecordingState.READY
    assert (await desk.now()).attempts == 1


async def test_a_worker_that_lost_its_lease_records_nothing(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    held = Held()
    late = asyncio.create_task(desk.transcribe(recording, Scripted(words=held)))
    assert await asyncio.to_thread(held.began.wait, 20)
    await desk.pass_time(service.LEASE)
    assert await desk.transcribe(recording) == RecordingState.READY
    before = await desk.now()
    held.let_go.set()
    assert await late is None
    assert (await desk.now()).model_dump() == before.model_dump()
    assert len(desk.sent.named("extract_call_outcome")) == 1


async def test_a_file_that_is_not_there_yet_is_waited_for(desk: Desk) -> None:
    recording = await desk.register(desk.egress / "calls" / "call.wav")
    with pytest.raises(TransientError, match="is not there") as waiting:
        await desk.transcribe(recording)
    assert waiting.value.after == 2.0
    put_off = await desk.now()
    assert (put_off.state, put_off.claimed_until) == (RecordingState.REGISTERED, None)
    assert "call.wav is not there" in (put_off.error or "")

    desk.write()
    assert await desk.transcribe(recording) == RecordingState.READY
    assert (await desk.now()).error is None


async def test_a_file_without_content_yet_is_waited_for(desk: Desk) -> None:
    recording = await desk.register(desk.write(content=b""))
    with pytest.raises(TransientError, match="is empty"):
        await desk.transcribe(recording)


async def test_a_file_that_never_comes_fails_with_the_reason(desk: Desk) -> None:
    recording = await desk.register(desk.egress / "calls" / "call.wav")
    for _ in range(service.MAX_ATTEMPTS - 1):
        with pytest.raises(TransientError):
            await desk.transcribe(recording)
    assert await desk.transcribe(recording) == RecordingState.FAILED
    lost = await desk.now()
    assert (lost.state, lost.attempts) == (RecordingState.FAILED, service.MAX_ATTEMPTS)
    assert "call.wav is not there" in (lost.error or "")
    assert await desk.transcript() is None
    # Whoever waits for the transcript is told that there will be none.
    assert desk.sent.named("extract_call_outcome") == [{"call_id": str(desk.subject)}]


def _refuse(_: Tick) -> None:
    raise NotAudio("call.wav is not a recording")


async def test_a_file_that_cannot_be_read_fails_at_once(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    assert await desk.transcribe(recording, Scripted(words=_refuse)) == RecordingState.FAILED
    assert (await desk.now()).error == "call.wav is not a recording"
    assert (await desk.now()).error_code == "not_audio"
    assert await desk.transcribe(recording) is None


def _disk_full(_: Tick) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_worker_without_space_leaves_the_recording_for_later(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    with pytest.raises(TransientError, match="No space left"):
        await desk.transcribe(recording, Scripted(words=_disk_full))
    assert (await desk.now()).claimed_until is None
    assert await desk.transcribe(recording) == RecordingState.READY


@pytest.mark.parametrize("path", ["/etc/hostname", "../secret.ogg", "calls/../../secret.ogg", "link.ogg", "calls"])
async def test_only_files_of_the_egress_folder_are_read(desk: Desk, path: str) -> None:
    (desk.egress.parent / "secret.ogg").write_bytes(b"secret")
    (desk.egress / "link.ogg").symlink_to(desk.egress.parent / "secret.ogg")
    (desk.egress / "calls").mkdir()
    engine = Scripted()
    assert await desk.transcribe(await desk.register(path), engine) == RecordingState.FAILED
    assert engine.heard == []
    assert not (desk.egress.parent / "recordings").exists()


async def test_a_path_within_the_egress_folder_may_be_relative(desk: Desk) -> None:
    desk.write("call.wav")
    assert await desk.transcribe(await desk.register("calls/call.wav")) == RecordingState.READY


@pytest.mark.parametrize(
    ("source", "ending"), [("a/b.OGG", ".ogg"), ("a/b", ""), ("a/b.o;rm", ""), ("a/b.toolong", "")]
)
def test_a_key_takes_only_a_plain_ending_from_the_source(source: str, ending: str) -> None:
    recording = Recording(kind="call", subject_id=uuid4(), source_path=source)
    key = fetching.blob_key(recording.kind, recording.id, recording.created_at, source)
    assert key == f"calls/{recording.created_at:%Y/%m}/{recording.id}{ending}"


async def test_a_recording_that_was_lost_is_known_as_failed(desk: Desk) -> None:
    async with desk.db.transaction() as session:
        lost = await service.fail(session, kind="call", subject_id=desk.subject, error="egress aborted")
    assert (lost.state, lost.error) == (RecordingState.FAILED, "egress aborted")
    # A late file changes nothing.
    await desk.register(desk.write())
    assert desk.sent == []
    assert (await desk.now()).state == RecordingState.FAILED


def _away(_: Tick) -> None:
    raise TransientError("the service is away")


async def test_failing_an_open_recording_stops_it_and_a_finished_one_stays(desk: Desk) -> None:
    recording = await desk.register(desk.write())
    with pytest.raises(TransientError):
        await desk.transcribe(recording, Scripted(summary=_away))
    assert await desk.checkpoints()
    async with desk.db.transaction() as session:
        await service.fail(session, kind="call", subject_id=desk.subject, error="egress aborted")
    assert await desk.transcribe(recording) is None
    # They hold what was heard.
    assert await desk.checkpoints() == []
    assert desk.sent.named("extract_call_outcome") == [{"call_id": str(desk.subject)}]

    desk.subject = uuid4()
    await desk.transcribe(await desk.register(desk.write()))
    async with desk.db.transaction() as session:
        kept = await service.fail(session, kind="call", subject_id=desk.subject, error="too late")
    assert (kept.state, kept.error) == (RecordingState.READY, None)


async def test_lists_show_the_state_and_what_was_said_first(desk: Desk) -> None:
    waiting, silent = uuid4(), uuid4()
    await desk.transcribe(await desk.register(desk.write()))
    await desk.register(desk.write(), subject=waiting)
    async with desk.db.transaction() as session:
        found = await service.briefs(session, kind="call", subject_ids=[desk.subject, waiting, silent])
        nothing = await service.briefs(session, kind="call", subject_ids=[])
    assert {subject: (brief.state, brief.first_line) for subject, brief in found.items()} == {
        desk.subject: ("ready", "Good morning."),
        waiting: ("registered", None),
    }
    assert nothing == {}


async def test_a_user_who_owns_a_recording_is_not_deleted_and_so_it_never_becomes_everybodys(desk: Desk) -> None:
    owner = await add_user(desk.db, "nora")
    await desk.note(desk.write(), owner=owner.id)
    with pytest.raises(IntegrityError, match="fk_recordings_owner_id_users"):
        async with desk.db.transaction() as session:
            await session.exec(delete(User).where(col(User.id) == owner.id))
    assert (await desk.now()).owner_id == owner.id
