"""Recordings and transcripts that have been kept long enough are deleted, files and rows."""

import asyncio
import logging
import time
from pathlib import Path

from backend.config import Config
from backend.core.db import Database
from backend.core.errors import PermanentError
from backend.core.paging import Position
from backend.core.storage import FolderStorage
from backend.recordings.models import Recording
from backend.recordings.repository import RecordingRepository

log = logging.getLogger(__name__)

BATCH = 100
# Well within the task's time limit; the next run goes on.
_SECONDS = 180.0


async def clean(db: Database, config: Config, *, batch: int = BATCH, within: float = _SECONDS) -> dict[str, int]:
    """Delete recordings that were made longer ago than CALLS_RECORDING_RETENTION_DAYS, or than their calls are kept.

    1. Find a batch, oldest first: those whose state is final.
    2. Delete the file in the storage and the one in the egress folder; no transaction is open.
    3. Delete the rows of those whose files are gone, transcripts with them. A file that is in the way of step 3 keeps its row.

    How many were `deleted`, how many `kept` by a file that could not be deleted. PermanentError where the storage is not here: the
    rows would go and the files stay.
    """
    days = min((days for days in (config.retention.recordings, config.retention.calls) if days), default=0)
    deleted = kept = 0
    after: Position | None = None
    end = time.monotonic() + within
    while days and time.monotonic() < end:
        async with db.transaction() as session:
            found = await RecordingRepository(session).kept_longer(days, after, batch)
        if found and not config.recordings.storage.folder.is_dir():
            raise PermanentError(
                f"{config.recordings.storage.folder} is not a folder here; this is a task for the audio worker"
            )
        gone = await asyncio.to_thread(_without_files, config, found)
        async with db.transaction() as session:
            deleted += await RecordingRepository(session).remove([recording.id for recording in gone])
        kept += len(found) - len(gone)
        if len(found) < batch:
            break
        after = (found[-1].created_at, found[-1].id)
    return {"deleted": deleted, "kept": kept}


def _without_files(config: Config, found: list[Recording]) -> list[Recording]:
    """Those whose files are deleted, or were before."""
    storage = FolderStorage(config.recordings.storage.folder)
    gone = []
    for recording in found:
        try:
            for path in _files(config, storage, recording):
                path.unlink(missing_ok=True)
        except OSError as fault:
            log.warning("recording %s is kept, its file cannot be deleted: %s", recording.id, fault)
        else:
            gone.append(recording)
    return gone


def _files(config: Config, storage: FolderStorage, recording: Recording) -> list[Path]:
    files = [storage.path(recording.blob_key)] if recording.blob_key is not None else []
    source = (config.egress_dir / recording.source_path).resolve()
    # What was refused for leading out of the folder leads out of it still.
    if recording.source_path and source.is_relative_to(config.egress_dir.resolve()):
        files.append(source)
    return files
