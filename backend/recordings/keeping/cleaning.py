"""What has been kept long enough is deleted: recordings with all that hangs on them, files, links that are over."""

import asyncio
import logging
import shutil
import time
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from backend.config import Config
from backend.core.db import Database
from backend.core.errors import PermanentError
from backend.core.storage import Storage
from backend.recordings.fetching import PROBE_FOLDER
from backend.recordings.keeping.removing import Places, delete_files, remove_held, storage_is_here
from backend.recordings.keeping.retention import setting_days
from backend.recordings.models import RecordingKind
from backend.recordings.repository.removals import RemovalRepository

log = logging.getLogger(__name__)

BATCH = 100
# Well within the task's time limit; the next run goes on.
_SECONDS = 180.0
# A link that is over answers that it is, for so long; then it is as if there had been none.
_SHARES_KEPT = timedelta(days=30)
_WORK_KEPT_SECONDS = 3_600.0


async def clean(
    db: Database, storage: Storage, config: Config, *, batch: int = BATCH, within: float = _SECONDS
) -> dict[str, int]:
    """Delete recordings that were made longer ago than the setting of their kind, or than their owner, keeps them.

    1. Delete a batch of rows, oldest first, those whose state is final, with a list of their files.
    2. Delete the files; those that cannot be deleted now stay on the list, and the next run tries again.
    3. Delete links that have been over for a month, and work folders of recordings that nobody works on any more.

    How many of what; `files_left` are still on the list. PermanentError where the storage is not here: a task of this worker would
    find nothing to delete.
    """
    end = time.monotonic() + within
    if not storage_is_here(config):
        folder = config.recordings.storage.folder
        raise PermanentError(f"{folder} is not a folder here; this is a task for a worker that has the recordings")
    deleted = 0
    while time.monotonic() < end:
        gone = await _remove_due(db, config, batch)
        deleted += gone
        if gone < batch:
            break
    places = Places(storage, config.egress_dir)
    files = await delete_files(db, places, config=config, within=max(1.0, end - time.monotonic()))
    return {
        "deleted": deleted,
        **files,
        "shares": await _purge_shares(db, batch),
        "work_folders": await clear_work(db, config.recordings.storage.work),
    }


async def clear_gone(db: Database, work: Path) -> int:
    """Delete what a killed worker has decoded of recordings that were deleted since; how many. One that lives notices by itself."""
    found = {
        recording_id: path for path in await asyncio.to_thread(_folders, work) if (recording_id := _named_by(path))
    }
    if not found:
        return 0
    async with db.transaction() as session:
        known = await RemovalRepository(session).known(list(found))
    gone = [path for recording_id, path in found.items() if recording_id not in known]
    for path in gone:
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
    return len(gone)


def _folders(work: Path) -> list[Path]:
    return [path for path in work.iterdir() if path.is_dir()] if work.is_dir() else []


async def _remove_due(db: Database, config: Config, batch: int) -> int:
    calls, notes = setting_days(config, RecordingKind.CALL), setting_days(config, RecordingKind.NOTE)
    async with db.transaction() as session:
        due = await RemovalRepository(session).due(calls=calls, notes=notes, limit=batch)
        if due:
            await remove_held(session, due)
    return len(due)


async def _purge_shares(db: Database, batch: int) -> int:
    async with db.transaction() as session:
        return await RemovalRepository(session).purge_shares(_SHARES_KEPT, batch * 10)


async def clear_work(db: Database, work: Path) -> int:
    """Delete folders that a killed worker has left, on this machine; how many."""
    rested = await asyncio.to_thread(_rested, work)
    if not rested:
        return 0
    found = {recording_id: path for path in rested if (recording_id := _named_by(path)) is not None}
    async with db.transaction() as session:
        needed = await RemovalRepository(session).existing(list(found))
    idle = [path for recording_id, path in found.items() if recording_id not in needed]
    idle += [path for path in rested if path.name.startswith(PROBE_FOLDER)]
    for path in idle:
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
    return len(idle)


def _rested(work: Path) -> list[Path]:
    """Folders that have not been touched for an hour."""
    found = []
    for path in work.iterdir() if work.is_dir() else ():
        try:
            touched = path.stat().st_mtime
        except FileNotFoundError:
            continue
        if touched < time.time() - _WORK_KEPT_SECONDS and path.is_dir():
            found.append(path)
    return found


def _named_by(path: Path) -> UUID | None:
    try:
        return UUID(path.name)
    except ValueError:
        return None
