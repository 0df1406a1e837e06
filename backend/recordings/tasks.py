"""The workers' side of recordings."""

import asyncio
import threading
from functools import partial
from uuid import UUID

from backend.core.runtime import Runtime, task
from backend.core.storage import FolderStorage
from backend.recordings import cleaning, service
from backend.recordings.speech.local import LocalSpeechEngine
from backend.recordings.transcribe import transcribe_file

_ENGINE = "recordings.engine"
_loading = threading.Lock()


@task(max_retries=10, time_limit=5_400)
async def transcribe_recording(runtime: Runtime, recording_id: str) -> str | None:
    """Fetch and transcribe one recording; returns its final state, or None where there was nothing to do."""
    # Before the claim: a worker without its model must fail loudly, and no recording with it.
    engine = await asyncio.to_thread(_engine, runtime)
    state = await service.transcribe(
        runtime.db,
        partial(transcribe_file, engine, language=runtime.config.recordings.speech.language or None),
        FolderStorage(runtime.config.recordings.storage.folder),
        recording_id=UUID(recording_id),
        egress_dir=runtime.config.egress_dir,
    )
    return state.value if state else None


@task(time_limit=60)
async def sweep_recordings(runtime: Runtime) -> int:
    """Send again what was not taken or whose worker was lost; returns how many."""
    return await service.sweep(runtime.db)


@task(max_retries=3, time_limit=300)
async def cleanup_recordings(runtime: Runtime) -> dict[str, int]:
    """Delete recordings and transcripts that have been kept long enough. Where the files are: on the audio worker."""
    return await cleaning.clean(runtime.db, runtime.config)


def _engine(runtime: Runtime) -> LocalSpeechEngine:
    """Loaded at a process's first recording: slow, large, and never to be done before a fork."""
    with _loading:
        if _ENGINE not in runtime.resources:
            config = runtime.config
            runtime.resources[_ENGINE] = LocalSpeechEngine(
                threads=config.recordings.speech.threads, cache=config.cache_dir
            )
        engine: LocalSpeechEngine = runtime.resources[_ENGINE]
        return engine
