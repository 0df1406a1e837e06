"""The first look at an upload, seconds after it came: a clear answer to its owner, and its length for the quota."""

import asyncio
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from backend.core.db import Database
from backend.core.errors import PermanentError, TransientError
from backend.core.queue import enqueue
from backend.core.storage import Storage
from backend.quotas import service as quotas
from backend.quotas.service import QuotaExceeded
from backend.recordings import ending
from backend.recordings.fetching import PROBE_FOLDER
from backend.recordings.models import Recording, RecordingState
from backend.recordings.repository import RecordingRepository
from backend.recordings.sound.inspecting import Seen, inspect
from backend.recordings.work import telling

log = logging.getLogger(__name__)


class OverQuota(PermanentError):
    """Longer than what was left of the owner's allowance for the day."""

    code = "quota_exceeded"


async def look(db: Database, storage: Storage, recording: Recording, work: Path, max_seconds: float) -> Seen:
    """What the stored file of a recording is. Raises UnreadableAudio, TransientError."""
    assert recording.blob_key is not None, "a file that is stored"  # noqa: S101
    try:
        await asyncio.to_thread(work.mkdir, parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=PROBE_FOLDER, dir=work, ignore_cleanup_errors=True) as folder:
            path = await storage.local(recording.blob_key, Path(folder))
            seen = await asyncio.to_thread(inspect, path, max_seconds=max_seconds, scratch=Path(folder))
    except OSError as fault:
        raise TransientError(f"not looked at: {fault.strerror or fault}") from fault
    await _reserved(db, recording, seen.seconds)
    return seen


async def _reserved(db: Database, recording: Recording, seconds: float) -> None:
    try:
        async with db.transaction() as session:
            await quotas.adjust(session, key=recording.id, seconds=seconds)
    except QuotaExceeded as fault:
        raise OverQuota(fault.detail) from fault


def values(seen: Seen) -> dict[str, object]:
    """What is written on the recording's row."""
    return {"codec": seen.codec, "channels": seen.channels, "duration_ms": round(seen.seconds * 1000)}


async def probe(
    db: Database, storage: Storage, *, recording_id: UUID, work: Path, max_seconds: float, then: str, pages: str = ""
) -> RecordingState | None:
    """Look at a recording that nobody has begun with, and send `then` for it; the state it has, None where there was nothing to do.

    Its owner is told where it cannot be transcribed; `pages` is where people find the pages.
    Raises TransientError while the file or the storage is away: the sweep sends the recording anyway.
    """
    async with db.transaction() as session:
        recording = await RecordingRepository(session).get(recording_id)
    if recording is None or recording.state != RecordingState.FETCHED or recording.blob_key is None:
        return None
    try:
        seen = await look(db, storage, recording, work, max_seconds)
    except PermanentError as fault:
        return await _refuse(db, recording, fault, pages)
    async with db.transaction() as session:
        if not await RecordingRepository(session).change_waiting(recording_id, **values(seen)):
            return None
        enqueue(session, then, recording_id=str(recording_id))
    return RecordingState.FETCHED


async def _refuse(db: Database, recording: Recording, fault: PermanentError, pages: str) -> RecordingState | None:
    async with db.transaction() as session:
        state = await RecordingRepository(session).end_waiting(
            recording.id, RecordingState.FAILED, error=str(fault), error_code=ending.error_code(fault)
        )
        if state is not None:
            await ending.ended(session, recording)
            await telling.tell(session, recording.id, pages=pages)
    log.info("recording %s was refused: %s", recording.id, fault)
    return state
