"""Stopping the work on a recording, and having it done once more, or otherwise."""

from typing import Any
from uuid import UUID

from backend.core.db import Database, Session
from backend.core.errors import Conflict, TransientError, Unavailable
from backend.core.principal import Principal
from backend.core.storage import Storage
from backend.recordings import access, service
from backend.recordings.library import reading
from backend.recordings.models import Recording, RecordingState
from backend.recordings.repository import RecordingRepository
from backend.recordings.repository.transcripts import TranscriptRepository
from backend.recordings.schemas import RecordingRead, TranscribeWish

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


async def transcribe(
    db: Database, storage: Storage, recording_id: UUID, wish: TranscribeWish, principal: Principal
) -> RecordingRead:
    """Have a final recording transcribed again, as `wish` says. The same wish while that is under way changes nothing.

    Conflict (409): `edited` where people have changed segments or named speakers, unless the wish gives that up; `no_audio` where
    the sound is not here any more; `under_way`. QuotaExceeded (429) as for a new one; Unavailable (503) while the storage is away;
    NotFound, Forbidden as in `access.changeable`.
    """
    async with db.transaction() as session:
        recording = await access.changeable(session, recording_id, principal)
    there = recording.blob_key is not None and await _is_stored(storage, recording.blob_key)
    async with db.transaction() as session:
        recording = await access.changeable(session, recording_id, principal)
        options = wish.model_dump(mode="json", exclude_defaults=True, exclude={"discard_edits"})
        if recording.state in _OPEN:
            _check_same(recording, options)
        else:
            _check_sound(recording, there=there)
            await _check_marks(session, recording, wish)
            await service.transcribe_again(session, recording_id, options)
        return await _read(session, recording_id, principal)


async def _is_stored(storage: Storage, key: str) -> bool:
    try:
        return await storage.size(key) is not None
    except TransientError as fault:
        raise Unavailable(f"the storage is away: {fault}", code="storage_away", retry_after=30) from fault


def _check_same(recording: Recording, options: dict[str, Any]) -> None:
    if recording.options != options or recording.cancel_requested_at is not None:
        why = f"recording {recording.id} is being transcribed with other options: cancel that first"
        raise Conflict(why, code="under_way")


def _check_sound(recording: Recording, *, there: bool) -> None:
    if not there:
        raise Conflict(
            f"the sound of recording {recording.id} is not here: nothing can be heard in it", code="no_audio"
        )


async def _check_marks(session: Session, recording: Recording, wish: TranscribeWish) -> None:
    edited, named = await RecordingRepository(session).marks(recording.id)
    if (edited or named) and not wish.discard_edits:
        marks = [
            f"{count} {one if count == 1 else many}"
            for count, one, many in (
                (edited, "edited segment", "edited segments"),
                (named, "named speaker", "named speakers"),
            )
            if count
        ]
        why = f"{' and '.join(marks)} would be lost: ask with discard_edits where they may be"
        raise Conflict(why, code="edited", edited=edited, named=named)


async def _read(session: Session, recording_id: UUID, principal: Principal) -> RecordingRead:
    recording, granted = await access.known(session, recording_id, principal)
    return reading.facts_of(recording, await TranscriptRepository(session).owner(recording), granted)
