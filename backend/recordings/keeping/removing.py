"""Deleting recordings: for everybody at once, then the files, for as long as it takes.

The rows go in one transaction with a list of the files that must follow, so that nothing is half there: no store that is away and
no process that is killed in between leaves a recording without its sound, or a file that nobody remembers.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from uuid import UUID

from backend.config import Config
from backend.core.db import Database, Session
from backend.core.errors import TransientError
from backend.core.principal import Principal
from backend.core.queue import enqueue
from backend.core.storage import Storage
from backend.recordings import access, ending
from backend.recordings.fetching import blob_key, voice_keys
from backend.recordings.models import Recording, RecordingKind, RecordingState
from backend.recordings.repository.removals import Counted, RemovalRepository
from backend.recordings.schemas import Removed

log = logging.getLogger(__name__)

TASK = "remove_recording_files"
STORAGE, EGRESS = "storage", "egress"
BATCH = 100
_SECONDS = 180.0
# What a request waits for; the task does the rest.
_PATIENCE = 5.0


class Outcome(Enum):
    """Of one file."""

    DELETED = auto()
    MISSING = auto()
    LEFT = auto()


@dataclass(frozen=True, slots=True)
class Places:
    """Where files are deleted from here. `egress` None: the folder of calls' files is not this process's to touch."""

    storage: Storage
    egress: Path | None


async def remove(
    db: Database, storage: Storage, recording_id: UUID, principal: Principal, *, config: Config
) -> Removed:
    """Delete a recording with all that hangs on it, for good. NotFound (404), Forbidden (403) as in `access.manageable`.

    1. In one transaction: audio's and samples' keys are put on a list, then transcript, index, edits, speakers, summary, links
       and the recording go, and what it had reserved of a quota is given back. From then on nobody finds it; a worker that is at
       it stops within seconds, and what it may still write is deleted, too. Whoever waits for the transcript is told.
    2. The files are deleted. What cannot be deleted now is `files_pending`, and the task `remove_recording_files` does it.
    """
    async with db.transaction() as session:
        recording = await access.manageable(session, recording_id, principal)
        counted = await RemovalRepository(session).remove([recording_id], perhaps_written([recording]))
        await ending.paid(session, recording, ending.heard_seconds(recording))
        ending.told(session, recording)
        enqueue(session, TASK)
    log.info("recording %s was deleted by %s", recording_id, principal.name)
    here = [path for place, path in counted.files if place == STORAGE]
    done = await _without_waiting(db, Places(storage, None), here, config)
    return Removed(
        id=recording_id,
        transcript=counted.transcripts > 0,
        segments=counted.segments,
        segment_versions=counted.segment_versions,
        speakers=counted.speakers,
        shares=counted.shares,
        files_deleted=done.count(Outcome.DELETED),
        files_pending=len(counted.files) - len(done) + done.count(Outcome.LEFT),
    )


async def remove_held(session: Session, recordings: Sequence[Recording]) -> Counted:
    """Step 1 of `remove` for recordings that the session holds, whoever's they are."""
    ids = [recording.id for recording in recordings]
    counted = await RemovalRepository(session).remove(ids, perhaps_written(recordings))
    for recording in recordings:
        await ending.paid(session, recording, None)
    return counted


async def delete_files(
    db: Database, places: Places, *, config: Config, batch: int = BATCH, within: float = _SECONDS
) -> dict[str, int]:
    """Delete the files of recordings that are gone: how many, and how many are left for a later time."""
    gone, end = 0, time.monotonic() + within
    known = [STORAGE, EGRESS] if places.egress is not None else [STORAGE]
    while time.monotonic() < end:
        async with db.transaction() as session:
            due = await RemovalRepository(session).files(known, batch)
        for file in due:
            gone += await _delete(db, places, file.place, file.path, config) is Outcome.DELETED
        if len(due) < batch:
            break
    async with db.transaction() as session:
        return {"files": gone, "files_left": await RemovalRepository(session).pending_files()}


async def sweep(db: Database) -> bool:
    """Send the task again while files are to be deleted; whether it was."""
    async with db.transaction() as session:
        waiting = await RemovalRepository(session).due_files()
        if waiting:
            enqueue(session, TASK)
    return waiting


def perhaps_written(recordings: Sequence[Recording]) -> list[tuple[UUID, str]]:
    """Keys of which no row tells: of attempts that came to nothing, and of one that is under way."""
    return [
        (recording.id, key)
        for recording in recordings
        if recording.attempts > (recording.state == RecordingState.READY)
        for key in _keys_of(recording)
    ]


def _keys_of(recording: Recording) -> list[str]:
    audio = blob_key(recording.kind, recording.id, recording.created_at, recording.source_path)
    voices = voice_keys(recording) + voice_keys(recording, other=True)
    return [audio, *voices] if recording.kind == RecordingKind.CALL else voices


def storage_is_here(config: Config) -> bool:
    """Whether a file that is not found is gone, rather than on a folder that is not mounted."""
    return config.recordings.storage.objects is not None or config.recordings.storage.folder.is_dir()


async def _without_waiting(db: Database, places: Places, paths: Sequence[str], config: Config) -> list[Outcome]:
    done: list[Outcome] = []
    try:
        async with asyncio.timeout(_PATIENCE):
            for path in paths:
                done += [await _delete(db, places, STORAGE, path, config)]
    except TimeoutError:
        log.warning("the storage is slow: %d files are left to %s", len(paths) - len(done), TASK)
    return done


async def _delete(db: Database, places: Places, place: str, path: str, config: Config) -> Outcome:
    try:
        there = await _deleted(places, place, path, config)
    except (TransientError, OSError) as fault:
        problem = str(fault) or type(fault).__name__
        log.warning("the file %s of a deleted recording is still in %s: %s", path, place, problem)
        async with db.transaction() as session:
            await RemovalRepository(session).file_stays(place, path, problem)
        return Outcome.LEFT
    async with db.transaction() as session:
        await RemovalRepository(session).file_gone(place, path)
    return Outcome.DELETED if there else Outcome.MISSING


async def _deleted(places: Places, place: str, path: str, config: Config) -> bool:
    """Whether there was one."""
    if place == EGRESS:
        return await asyncio.to_thread(_unlinked, places.egress, path)
    if not await asyncio.to_thread(storage_is_here, config):
        raise TransientError(f"{config.recordings.storage.folder} is not a folder here")
    return await places.storage.delete(path)


def _unlinked(egress: Path | None, path: str) -> bool:
    if egress is None or not egress.is_dir():
        raise TransientError(f"{egress} is not a folder here")
    source = (egress / path).resolve()
    # What was refused for leading out of the folder leads out of it still.
    if not source.is_relative_to(egress.resolve()) or not source.exists():
        return False
    source.unlink(missing_ok=True)
    return True
