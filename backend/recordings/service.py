"""Recordings: registered by whoever has one, fetched into our storage, transcribed once. The domain's one door."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from backend.core.clock import utc_now
from backend.core.db import Database, Session, is_outage
from backend.core.errors import PermanentError, TransientError
from backend.core.queue import enqueue
from backend.core.storage import Blob, FolderStorage
from backend.recordings.models import Recording, RecordingState, TranscriptRow
from backend.recordings.repository import RecordingRepository
from backend.recordings.speech.base import Transcriber, Transcript

log = logging.getLogger(__name__)

TASK = "transcribe_recording"
MAX_ATTEMPTS = 8
LEASE = timedelta(seconds=90)

# The message of a new recording is on its way; only one that has not been taken by then is sent again.
_FIRST_SWEEP = timedelta(seconds=60)
# A message sent by the sweep may wait behind long recordings.
_NEXT_SWEEP = timedelta(minutes=10)
_SWEEP_BATCH = 200
_LONGEST_WAIT = 300.0


@dataclass(frozen=True, slots=True)
class Brief:
    """A recording in a list: its state, and what was said first."""

    state: str
    first_line: str | None


class SourceRefused(PermanentError):
    """The recording's path is not one that may be read."""


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


async def transcribe(
    db: Database,
    transcriber: Transcriber,
    storage: FolderStorage,
    *,
    recording_id: UUID,
    egress_dir: Path,
    lease: timedelta = LEASE,
) -> RecordingState | None:
    """Fetch and transcribe a recording once. Returns its final state, None where there was nothing to do.

    1. Claim it for `lease`. No row: it is final, or another worker is at it.
    2. Copy the file from `egress_dir` into the storage and transcribe it, renewing the lease; no transaction is open.
    3. Record the transcript, or the reason why there will be none, unless somebody else took over meanwhile.

    Raises TransientError while the file is not there yet; after MAX_ATTEMPTS it counts as lost.
    """
    async with db.transaction() as session:
        claimed = await RecordingRepository(session).claim(recording_id, lease)
    if claimed is None:
        return None
    try:
        async with _renewed(db, claimed, lease):
            _check_attempts(claimed)
            path = await _fetched(db, storage, claimed, egress_dir)
            transcript = await asyncio.to_thread(_heard, transcriber, path, claimed.channel_speakers)
    except TransientError as fault:
        if claimed.attempts >= MAX_ATTEMPTS:
            return await _record_failure(db, claimed, fault)
        await _put_off(db, claimed, fault)
        raise
    except PermanentError as fault:
        return await _record_failure(db, claimed, fault)
    return await _record(db, claimed, transcript)


def _check_attempts(claimed: Recording) -> None:
    # Only a worker that was killed leaves the last attempt open; a file that kills workers must not do so for ever.
    if claimed.attempts > MAX_ATTEMPTS:
        raise PermanentError(
            f"given up: {MAX_ATTEMPTS} attempts ended without a result, the last ones by a lost worker"
        )


async def sweep(db: Database) -> int:
    """Send every free recording again whose attempt is due; returns how many.

    So a lost message, a lost worker or a broker that is away delays a transcript and never loses it.
    """
    async with db.transaction() as session:
        due = await RecordingRepository(session).postpone_due(_NEXT_SWEEP, _SWEEP_BATCH)
        for recording_id in due:
            enqueue(session, TASK, recording_id=str(recording_id))
    return len(due)


@asynccontextmanager
async def _renewed(db: Database, claimed: Recording, lease: timedelta) -> AsyncIterator[None]:
    """Hold the lease for as long as the block runs."""
    keeper = asyncio.create_task(_keep(db, claimed, lease))
    try:
        yield
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper


async def _keep(db: Database, claimed: Recording, lease: timedelta) -> None:
    held = True
    while held:
        await asyncio.sleep(lease.total_seconds() / 4)
        try:
            async with db.transaction() as session:
                held = await RecordingRepository(session).renew(claimed, lease)
        except Exception as fault:
            # The work goes on: the database may be back before the lease ends.
            if not is_outage(fault):
                raise
            log.warning("recording %s: lease not renewed, the database is away: %s", claimed.id, fault)
    log.warning("recording %s: the lease was lost; what is done here will not be recorded", claimed.id)


async def _fetched(db: Database, storage: FolderStorage, claimed: Recording, egress_dir: Path) -> Path:
    """The recording's file in the storage, copied there at the first attempt."""
    if claimed.blob_key is not None:
        path = storage.path(claimed.blob_key)
        if await asyncio.to_thread(path.is_file):
            await _advance(db, claimed, state=RecordingState.TRANSCRIBING)
            return path
    key = blob_key(claimed.kind, claimed.id, claimed.created_at, claimed.source_path)
    blob = await asyncio.to_thread(_copy, storage, key, claimed.source_path, egress_dir)
    await _advance(
        db, claimed, state=RecordingState.FETCHED, blob_key=blob.key, sha256=blob.sha256, size_bytes=blob.size_bytes
    )
    await _advance(db, claimed, state=RecordingState.TRANSCRIBING)
    return storage.path(blob.key)


def _heard(transcriber: Transcriber, path: Path, speakers: Sequence[str]) -> Transcript:
    try:
        return transcriber(path, speakers)
    except OSError as fault:
        # A full temporary folder, for one: not the recording's fault, and better later or elsewhere.
        raise TransientError(f"not transcribed: {fault.strerror or fault}") from fault


async def _advance(db: Database, claimed: Recording, **values: object) -> None:
    async with db.transaction() as session:
        await RecordingRepository(session).change_claimed(claimed, **values)


def blob_key(kind: str, recording_id: UUID, created_at: datetime, source_path: str) -> str:
    """Where a recording lies in the storage, such as `calls/2026/11/ID.ogg`."""
    suffix = Path(source_path).suffix.lower()
    return f"{kind}s/{created_at:%Y/%m}/{recording_id}{suffix if re.fullmatch(r'[.][a-z0-9]{1,5}', suffix) else ''}"


def _copy(storage: FolderStorage, key: str, source_path: str, egress_dir: Path) -> Blob:
    # Resolved first: neither `..` nor a link may lead out of the folder.
    source = (egress_dir / source_path).resolve()
    if not source.is_relative_to(egress_dir.resolve()):
        raise SourceRefused(f"{source_path} is not in the egress folder {egress_dir}")
    try:
        # On a shared folder a file can show up before its content.
        if source.stat().st_size == 0:
            raise TransientError(f"{source_path} is empty")
        return storage.put(key, source)
    except FileNotFoundError as fault:
        raise TransientError(f"{source_path} is not there") from fault
    except IsADirectoryError as fault:
        raise SourceRefused(f"{source_path} is a folder") from fault
    except OSError as fault:
        raise TransientError(f"{source_path} cannot be copied: {fault.strerror or fault}") from fault


async def _put_off(db: Database, claimed: Recording, fault: TransientError) -> None:
    """Give the recording back for a later attempt, and tell the queue when."""
    fault.after = max(fault.after or 0.0, min(_LONGEST_WAIT, 2.0**claimed.attempts))
    async with db.transaction() as session:
        await RecordingRepository(session).release(claimed, error=str(fault), wait=timedelta(seconds=fault.after))


async def _record_failure(db: Database, claimed: Recording, fault: Exception) -> RecordingState | None:
    async with db.transaction() as session:
        recorded = await RecordingRepository(session).change_claimed(
            claimed, state=RecordingState.FAILED, error=str(fault), claimed_until=None
        )
        if recorded:
            _tell(session, claimed)
    log.warning("recording %s of %s %s failed: %s", claimed.id, claimed.kind, claimed.subject_id, fault)
    return RecordingState.FAILED if recorded else None


async def _record(db: Database, claimed: Recording, transcript: Transcript) -> RecordingState | None:
    row = TranscriptRow(
        recording_id=claimed.id,
        language=transcript.language,
        text=transcript.text,
        segments=transcript.as_json(),
        backend=transcript.backend,
        model=transcript.model,
    )
    async with db.transaction() as session:
        recordings = RecordingRepository(session)
        if not await recordings.change_claimed(
            claimed,
            state=RecordingState.READY,
            error=None,
            claimed_until=None,
            channels=transcript.channels,
            duration_ms=round(transcript.duration_seconds * 1000),
        ):
            return None
        await recordings.store_transcript(row)
        _tell(session, claimed)
    return RecordingState.READY


def _tell(session: Session, claimed: Recording) -> None:
    """Send the task that waits for this recording's end."""
    if claimed.then_task is not None:
        enqueue(session, claimed.then_task, **{f"{claimed.kind}_id": str(claimed.subject_id)})
