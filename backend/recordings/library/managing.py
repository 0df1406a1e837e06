"""Stopping the work on a recording, and having it done once more."""

from uuid import UUID

from backend.core.db import Session
from backend.core.errors import Conflict
from backend.core.principal import Principal
from backend.recordings import access, service
from backend.recordings.library import reading
from backend.recordings.models import RecordingState
from backend.recordings.repository.transcripts import TranscriptRepository
from backend.recordings.schemas import RecordingRead

_OPEN = (RecordingState.REGISTERED, RecordingState.FETCHED, RecordingState.TRANSCRIBING)


async def cancel(session: Session, recording_id: UUID, principal: Principal) -> RecordingRead:
    """Twice is once. Conflict (409) for one whose state is final; NotFound, Forbidden as in `access.manageable`."""
    recording = await access.manageable(session, recording_id, principal)
    if recording.state == RecordingState.CANCELLED:
        return await _read(session, recording_id, principal)
    if recording.state not in _OPEN:
        raise Conflict(f"recording {recording_id} is {recording.state}: there is nothing to stop", code="final")
    await service.cancel(session, recording_id)
    return await _read(session, recording_id, principal)


async def retry(session: Session, recording_id: UUID, principal: Principal) -> RecordingRead:
    """Conflict (409) for one that has neither failed nor was cancelled; QuotaExceeded (429) where its owner has no minutes left."""
    recording = await access.manageable(session, recording_id, principal)
    if recording.state in _OPEN or recording.state == RecordingState.READY:
        raise Conflict(f"recording {recording_id} is {recording.state}: there is nothing to repeat", code="not_failed")
    await service.retry(session, recording_id)
    return await _read(session, recording_id, principal)


async def _read(session: Session, recording_id: UUID, principal: Principal) -> RecordingRead:
    recording, granted = await access.known(session, recording_id, principal)
    return reading.facts_of(recording, await TranscriptRepository(session).owner(recording), granted)
