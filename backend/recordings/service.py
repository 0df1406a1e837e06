"""Recordings: registered by whoever has one, fetched into our storage, transcribed once. The domain's one door."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from backend.core.clock import utc_now
from backend.core.db import Database, Session
from backend.core.queue import enqueue
from backend.quotas import service as quotas
from backend.recordings import ending
from backend.recordings.models import Recording, RecordingState, TranscriptRow
from backend.recordings.repository import OPEN_STATES, RecordingRepository

TASK = "transcribe_recording"
PROBE_TASK = "probe_recording"
MAX_ATTEMPTS = 8
LEASE = timedelta(seconds=90)

# The message of a new recording is on its way; only one that has not been taken by then is sent again.
_FIRST_SWEEP = timedelta(seconds=60)
# A message sent by the sweep may wait behind long recordings.
_NEXT_SWEEP, _LONGEST_SWEEP = timedelta(minutes=10), timedelta(hours=2)
_SWEEP_BATCH = 200
_LOST = (RecordingState.FAILED, RecordingState.CANCELLED)
_FINAL = (RecordingState.READY, *_LOST)


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
    if not await recordings.add(lost) and (failed := await recordings.fail_open(kind, subject_id, error)):
        await ending.ended(session, failed)
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

    So a lost message, a lost worker or a broker that is away delays a transcript and never loses it. What waits behind a long
    queue is sent less and less often, or the queue would fill with copies.
    """
    async with db.transaction() as session:
        due = await RecordingRepository(session).postpone_due(_NEXT_SWEEP, _LONGEST_SWEEP, _SWEEP_BATCH)
        for recording_id in due:
            enqueue(session, TASK, recording_id=str(recording_id))
    return len(due)


async def cancel(session: Session, recording_id: UUID) -> Recording | None:
    """Ask for a recording to be cancelled: at once where nobody is at it, else within seconds. None where it is final or unknown.

    Whoever waits for its transcript is told. What was heard of it by then is used of the quota, the rest released. One that was
    being transcribed again is ready, as before.
    """
    found = await RecordingRepository(session).request_cancel(recording_id)
    if found is not None and found.state not in OPEN_STATES:
        await ending.ended(session, found, settled=ending.heard_seconds(found))
    return found


async def retry(session: Session, recording_id: UUID) -> Recording | None:
    """Have a failed or cancelled recording transcribed again, from its last checkpoint if there is one. None where it is neither.

    Raises QuotaExceeded (429).
    """
    return await _restarted(session, await RecordingRepository(session).start_again(recording_id, _FIRST_SWEEP, _LOST))


async def transcribe_again(session: Session, recording_id: UUID, options: dict[str, Any]) -> Recording | None:
    """Have a final recording transcribed with other options. None where it is not final, or unknown.

    What is there stays until the new result takes its place, edits and names of speakers with it; where none comes, it stays for
    good, and the recording is ready again. It costs as much as a new one. Raises QuotaExceeded (429).
    """
    rows = RecordingRepository(session)
    return await _restarted(session, await rows.start_again(recording_id, _FIRST_SWEEP, _FINAL, options=options))


async def _restarted(session: Session, found: Recording | None) -> Recording | None:
    if found is None:
        return None
    seconds = (found.duration_ms or 0) / 1000
    await quotas.reserve(session, user_id=found.owner_id, key=found.id, seconds=seconds, again=True)
    enqueue(session, PROBE_TASK if found.state == RecordingState.FETCHED else TASK, recording_id=str(found.id))
    return found
