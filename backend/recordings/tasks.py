"""The workers' side of recordings."""

import asyncio
import logging
import threading
from uuid import UUID

from backend.core import delivery
from backend.core.errors import TransientError
from backend.core.object_storage import open_storage
from backend.core.runtime import Runtime, task
from backend.core.storage import Storage
from backend.recordings import service
from backend.recordings.keeping import cleaning, removing
from backend.recordings.keeping.removing import Places, delete_files
from backend.recordings.pipeline import Tools, open_tools
from backend.recordings.uploads import accepting
from backend.recordings.uploads.accepting import Intake
from backend.recordings.work import probing, running
from backend.recordings.work.running import Place

log = logging.getLogger(__name__)

TOOLS = "recordings.tools"
_STORAGE = "recordings.storage"
_opening = threading.Lock()


@task(max_retries=10, time_limit=5_400)
async def transcribe_recording(runtime: Runtime, recording_id: str) -> str | None:
    """Fetch and transcribe one recording; returns its final state, or None where there was nothing to do."""
    tools = _tools(runtime)
    # Before the claim: a worker without its model must fail loudly, and no recording with it.
    await asyncio.to_thread(tools.engine)
    recordings = runtime.config.recordings
    # What killed workers have decoded: where every machine has a work folder of its own, no other task gets to this one.
    await cleaning.clear_gone(runtime.db, recordings.storage.work)
    await cleaning.clear_work(runtime.db, recordings.storage.work)
    place = Place(_storage(runtime), runtime.config.egress_dir, recordings.storage.work, runtime.config.public_url)
    state = await running.transcribe(runtime.db, tools, place, recording_id=UUID(recording_id), report=runtime.progress)
    return state.value if state else None


@task(max_retries=5, time_limit=300)
async def probe_recording(runtime: Runtime, recording_id: str) -> str | None:
    """Look at an upload: its length for the quota, and a clear answer where it cannot be transcribed.

    Where it cannot be looked at, in the last try either, that is left to the audio worker, which the sweep sends it to.
    """
    recordings = runtime.config.recordings
    try:
        state = await probing.probe(
            runtime.db,
            _storage(runtime),
            recording_id=UUID(recording_id),
            work=recordings.storage.work,
            max_seconds=recordings.uploads.max_seconds,
            then=service.TASK,
            pages=runtime.config.public_url,
        )
    except TransientError as fault:
        message = delivery.current.get()
        if message is None or message.retry_within(fault) is not None:
            raise
        log.warning("recording %s is left to the sweep: %s", recording_id, fault)
        return None
    return state.value if state else None


@task(time_limit=60)
async def sweep_recordings(runtime: Runtime) -> int:
    """Send again what was not taken or whose worker was lost; returns how many. Files that wait to be deleted, too."""
    await removing.sweep(runtime.db)
    return await service.sweep(runtime.db)


@task(max_retries=3, time_limit=300)
async def cleanup_recordings(runtime: Runtime) -> dict[str, int]:
    """Delete recordings that were kept long enough. For a worker that has the files, not one that transcribes."""
    return await cleaning.clean(runtime.db, _storage(runtime), runtime.config)


@task(max_retries=3, time_limit=300)
async def remove_recording_files(runtime: Runtime) -> dict[str, int]:
    """Delete the files of recordings that were deleted; how many, and how many must wait. For such a worker, too.

    What a killed worker had decoded of them goes, too.
    """
    places = Places(_storage(runtime), runtime.config.egress_dir)
    work = await cleaning.clear_gone(runtime.db, runtime.config.recordings.storage.work)
    return await delete_files(runtime.db, places, config=runtime.config) | {"work_folders": work}


@task(max_retries=3, time_limit=1_800)
async def cleanup_uploads(runtime: Runtime) -> dict[str, int]:
    """Delete uploads that nobody has gone on with, and make recordings of those whose end was lost."""
    return await accepting.sweep(Intake(runtime.db, _storage(runtime), runtime.config.recordings.uploads))


def _storage(runtime: Runtime) -> Storage:
    with _opening:
        if _STORAGE not in runtime.resources:
            runtime.resources[_STORAGE] = open_storage(runtime.config)
        storage: Storage = runtime.resources[_STORAGE]
        return storage


def _tools(runtime: Runtime) -> Tools:
    """Models are loaded at a process's first recording: slow, large, and never to be done before a fork."""
    with _opening:
        if TOOLS not in runtime.resources:
            runtime.resources[TOOLS] = open_tools(runtime.config)
        tools: Tools = runtime.resources[TOOLS]
        return tools
