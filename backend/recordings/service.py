"""Recordings: registered by whoever has one, fetched into our storage, transcribed once. The domain's one door."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from backend.core.clock import utc_now
from backend.core.db import Database, Session
from backend.core.queue import enqueue
from backend.quotas import service as quotas
from backend.recordings import ending
from backend.recordings.models import Recording, RecordingState, TranscriptRow
from backend.recordings.repository import RecordingRepository

TASK = "transcribe_recording"
PROBE_TASK = "probe_recording"
MAX_ATTEMPTS = 8
LEASE = timedelta(seconds=90)

# The message of a new recording is on its way; only one that has not been taken by then is sent again.
_FIRST_SWEEP = timedelta(seconds=60)
# A message sent by the sweep may wait behind long recordings.
_NEXT_SWEEP = timedelta(minutes=10)
_SWEEP_BATCH = 200


@dataclass(frozen=True, slots=True)
class Brief:
    """A recording in a list: its state, and what was said first."""

    state: str
    first_line: str | None


async def register(
    session: Session,
    *,
    kind: str,
    subject_id: UUID,
    source_path: str,
    duration_ms: int | None,
    channel_speakers: Sequence[str],
    then_task: str | None,
) -> Recording:
    """Make known that a subject has a recording, and have it transcribed; a second time changes nothing.

    `channel_speakers` names the parties by channel. `then_task` is sent with `<kind>_id` once the transcript is stored,
    or will never be.
    """
    recordings = RecordingRepository(session)
    recording = Recording(
        kind=kind,
        subject_id=subject_id,
        source_path=source_path,
        duration_ms=duration_ms,
        channel_speakers=list(channel_speakers),
        then_task=then_task,
        next_attempt_at=utc_now() + _FIRST_SWEEP,
    )
    if await recordings.add(recording):
        enqueue(session, TASK, recording_id=str(recording.id))
    return await _existing(recordings, kind, subject_id)


async def fail(session: Session, *, kind: str, subject_id: UUID, error: str) -> Recording:
    """Record that there will be no recording of a subject. A transcript that is already there stays."""
    recordings = RecordingRepository(session)
    lost = Recording(kind=kind, subject_id=subject_id, source_path="", state=RecordingState.FAILED, error=error)
    if not await recordings.add(lost):
        await recordings.fail_open(kind, subject_id, error)
    return await _existing(recordings, kind, subject_id)


async def _existing(recordings: RecordingRepository, kind: str, subject_id: UUID) -> Recording:
    recording = await recordings.find(kind, subject_id)
    assert recording is not None, "a row that was just written"  # noqa: S101
    return recording


async def find(session: Session, *, kind: str, subject_id: UUID) -> Recording | None:
    return await RecordingRepository(session).find(kind, subject_id)


async def transcript_of(session: Session, *, kind: str, subject_id: UUID) -> TranscriptRow | None:
    return await RecordingRepository(session).find_transcript(kind, subject_id)


async def briefs(session: Session, *, kind: str, subject_ids: Sequence[UUID]) -> dict[UUID, Brief]:
    """The recordings of many subjects, by subject; those without one are left out."""
    rows = await RecordingRepository(session).briefs(kind, subject_ids)
    return {subject: Brief(state, line) for subject, state, line in rows}


async def sweep(db: Database) -> int:
    """Send every free recording again whose attempt is due; returns how many.

    So a lost message, a lost worker or a broker that is away delays a transcript and never loses it.
    """
    async with db.transaction() as session:
        due = await RecordingRepository(session).postpone_due(_NEXT_SWEEP, _SWEEP_BATCH)
        for recording_id in due:
            enqueue(session, TASK, recording_id=str(recording_id))
    return len(due)


async def cancel(session: Session, recording_id: UUID) -> Recording | None:
    """Ask for a recording to be cancelled: at once where nobody is at it, else within seconds. None where it is final or unknown.

    Whoever waits for its transcript is told, and what was reserved for it is released.
    """
    found = await RecordingRepository(session).request_cancel(recording_id)
    if found is not None and found.state == RecordingState.CANCELLED:
        await ending.ended(session, found)
    return found


async def retry(session: Session, recording_id: UUID) -> Recording | None:
    """Have a failed or cancelled recording transcribed again, from its last checkpoint if there is one. None where it is neither.

    Raises QuotaExceeded (429).
    """
    found = await RecordingRepository(session).start_again(recording_id, _FIRST_SWEEP)
    if found is None:
        return None
    await quotas.reserve(session, user_id=found.owner_id, key=found.id, seconds=(found.duration_ms or 0) / 1000)
    enqueue(session, PROBE_TASK if found.state == RecordingState.FETCHED else TASK, recording_id=str(found.id))
    return found
