"""From a recording's end to the call's outcome: also where nothing could be heard, and where it can after all."""

from pathlib import Path

from sqlmodel import select, update

from backend.calls import service as calls
from backend.calls.models import DoNotCall
from backend.core.clock import utc_now
from backend.core.storage import FolderStorage
from backend.recordings import service as recordings
from backend.recordings.models import Recording, RecordingState
from backend.recordings.speech.base import Word, said
from backend.recordings.work import running
from backend.recordings.work.running import Place
from tests.calls.test_reconciling import PAST, change, read
from tests.calls.test_webhooks import accepted
from tests.fixtures.product import Product
from tests.recordings.desk import Scripted, two_parties
from tests.recordings.sounds import silence, write_wav

ASKED = " Please do not call me again. Take me off your list."


async def recorded(product: Product, name: str) -> Recording:
    """The recording of a call that was talked through."""
    call = await accepted(product)
    ended = utc_now() + PAST
    await change(product, status="completed", recording_state="ready", answered_at=ended, ended_at=ended)
    async with product.db.transaction() as session:
        return await recordings.register(
            session,
            kind="call",
            subject_id=call.id,
            source_path=name,
            duration_ms=2_000,
            channel_speakers=["agent", "customer"],
            then_task="extract_call_outcome",
        )


async def transcribe(product: Product, recording: Recording, tmp_path: Path) -> RecordingState | None:
    place = Place(FolderStorage(tmp_path / "storage"), product.config.egress_dir, tmp_path / "work")
    scripted = Scripted(script=((), (said([Word(1.2, 2.0, ASKED, 0.9)]),)))
    return await running.transcribe(product.db, scripted.tools(), place, recording_id=recording.id)


async def extract(product: Product, recording: Recording) -> dict[str, object]:
    """As the task does that was sent; the outcome."""
    assert product.sent.named("extract_call_outcome")[-1] == {"call_id": str(recording.subject_id)}
    async with product.db.transaction() as session:
        await calls.extract_outcome(session, recording.subject_id, config=product.config)
    return (await read(product)).outcome or {}


async def test_a_silent_recording_leads_to_the_outcome_none(product: Product, tmp_path: Path) -> None:
    product.config.egress_dir.mkdir(parents=True, exist_ok=True)
    write_wav(product.config.egress_dir / "a.wav", silence(2.0), silence(2.0))
    recording = await recorded(product, "a.wav")
    assert await transcribe(product, recording, tmp_path) == RecordingState.FAILED
    outcome = await extract(product, recording)
    assert (outcome["intent"], outcome["source"]) == ("unknown", "none")
    assert "silence" in str(outcome["note"])


async def test_what_a_retried_recording_says_takes_the_place_of_none(product: Product, tmp_path: Path) -> None:
    product.config.egress_dir.mkdir(parents=True, exist_ok=True)
    source = product.config.egress_dir / "a.wav"
    source.write_bytes(b"RIFF, not yet a sound")
    recording = await recorded(product, "a.wav")
    assert await transcribe(product, recording, tmp_path) == RecordingState.FAILED
    assert (await extract(product, recording))["source"] == "none"
    two_parties(source)
    async with product.db.transaction() as session:
        await session.exec(update(Recording).values(blob_key=None))
        assert await recordings.retry(session, recording.id) is not None
    assert await transcribe(product, recording, tmp_path) == RecordingState.READY
    outcome = await extract(product, recording)
    assert (outcome["intent"], outcome["source"]) == ("do_not_call", "transcript")
    async with product.db.transaction() as session:
        assert len((await session.exec(select(DoNotCall))).all()) == 1


async def test_a_transcript_that_fails_to_come_again_takes_nothing_back(product: Product, tmp_path: Path) -> None:
    product.config.egress_dir.mkdir(parents=True, exist_ok=True)
    two_parties(product.config.egress_dir / "a.wav")
    recording = await recorded(product, "a.wav")
    assert await transcribe(product, recording, tmp_path) == RecordingState.READY
    before = await extract(product, recording)
    async with product.db.transaction() as session:
        await session.delete(await session.get(Recording, recording.id))
    await change(product, recording_state="deleted")
    assert await extract(product, recording) == before
    assert before["source"] == "transcript"


async def test_deleting_a_recording_that_is_not_transcribed_yet_leaves_the_outcome_none(product: Product) -> None:
    recording = await recorded(product, "a.wav")
    product.sent.clear()
    answer = await product.client.delete(f"/api/recordings/{recording.id}")
    assert answer.status_code == 200
    assert (await read(product)).recording_state == "deleted"
    outcome = await extract(product, recording)
    assert outcome == {"intent": "unknown", "source": "none", "note": "the recording was deleted"}


async def test_no_word_of_a_deleted_recording_stays_in_its_call(product: Product, tmp_path: Path) -> None:
    product.config.egress_dir.mkdir(parents=True, exist_ok=True)
    two_parties(product.config.egress_dir / "a.wav")
    recording = await recorded(product, "a.wav")
    await transcribe(product, recording, tmp_path)
    await extract(product, recording)
    path = f"/api/calls/{recording.subject_id}"
    before = (await product.client.get(path)).json()["outcome"]
    assert "call me again" in before["evidence"]
    assert (await product.client.delete(f"/api/recordings/{recording.id}")).status_code == 200
    after = (await product.client.get(path)).json()
    assert (after["recording_state"], after["outcome"]) == (
        "deleted",
        {k: v for k, v in before.items() if k != "evidence"},
    )
    await extract(product, recording)
    assert "call me again" not in (await product.client.get(path)).text
