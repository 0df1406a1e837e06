"""Transcribing one recording on a worker: claim, work, record."""

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from pydantic import ValidationError

from backend.core.db import Database, Session, is_outage
from backend.core.errors import PermanentError, TransientError
from backend.core.queue import enqueue
from backend.core.redaction import storable
from backend.core.storage import Storage
from backend.recordings import ending, fetching
from backend.recordings.models import Recording, RecordingState, Stage
from backend.recordings.options import TranscribeOptions
from backend.recordings.pipeline import Result, Tools
from backend.recordings.pipeline import run as run_pipeline
from backend.recordings.repository import RecordingRepository
from backend.recordings.repository.removals import RemovalRepository
from backend.recordings.service import LEASE, MAX_ATTEMPTS, TASK
from backend.recordings.speech.base import Cancelled
from backend.recordings.work import probing, storing, telling
from backend.recordings.work.holding import Hold, LeaseLost, OutOfTime, Report

log = logging.getLogger(__name__)

T = TypeVar("T")

# Within the task's time limit, soft limit and shutting down included: a longer recording goes on in a task of its own.
STRETCH_SECONDS = 4_800.0
# What is this much slower than it should be is stuck: a third of the length is usual on two processors.
_SLOWEST, _LEAST_SECONDS = 8.0, 900.0

_LONGEST_WAIT = 300.0
# For a result of hours, while the database is away.
_PATIENCE_SECONDS = 300.0


class GivenUp(PermanentError):
    """It has ended worker after worker."""

    code = "given_up"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker finds files and keeps what is in progress, and where people find the pages: empty where nobody has said."""

    storage: Storage
    egress_dir: Path
    work: Path
    pages: str = ""


async def transcribe(
    db: Database,
    tools: Tools,
    place: Place,
    *,
    recording_id: UUID,
    lease: timedelta = LEASE,
    stretch: float = STRETCH_SECONDS,
    report: Report | None = None,
) -> RecordingState | None:
    """Fetch and transcribe a recording once. Returns its final state, None where there was nothing to do or another task goes on.

    1. Claim it for `lease`. No row: it is final, or another worker is at it.
    2. Copy the file into the storage and work on it from the last checkpoint, renewing the lease; no transaction is open.
    3. Record the result, or the reason why there will be none, and tell the owner, unless somebody else took over meanwhile. A
       transcript from before stays where there is no new one.

    Raises TransientError while the file is not there yet, the disk is full or a service is away; after MAX_ATTEMPTS
    without any progress it counts as lost.
    """
    async with db.transaction() as session:
        claimed = await RecordingRepository(session).claim(recording_id, lease)
    if claimed is None:
        return None
    if claimed.cancel_requested_at is not None:
        return await _cancelled(db, place, claimed)
    hold = Hold(db, claimed, lease, _time_for(claimed, stretch), report)
    state = await _outcome(hold, tools, place, stretch)
    if state is None:
        await _tidy_if_over(db, place, claimed)
    return state


async def _outcome(hold: Hold, tools: Tools, place: Place, stretch: float) -> RecordingState | None:
    db, claimed = hold.db, hold.claimed
    try:
        return await _attempt(hold, tools, place)
    except Cancelled:
        return await _patiently(lambda: _cancelled(db, place, claimed))
    except LeaseLost:
        return None
    except OutOfTime as fault:
        return await _out_of_time(place, hold, fault, stretch)
    except TransientError as fault:
        return await _put_off_or_failed(place, hold, fault)
    except PermanentError as fault:
        return await _failed(db, place, claimed, fault)
    except Exception as fault:
        # Ours, not the recording's: the row says so, and the sweep tries again. Its text may quote what was said.
        if not is_outage(fault):
            await _give_back(db, place, claimed, type(fault).__name__, _LONGEST_WAIT)
        raise


async def _attempt(hold: Hold, tools: Tools, place: Place) -> RecordingState | None:
    async with hold.held():
        _check_tries(hold.claimed)
        result = await _worked(hold, tools, place)
        hold.observe(Stage.STORE, 0.0)
        samples = await _kept_samples(hold.db, place.storage, hold.claimed, result)
        state = await _patiently(lambda: _record(hold, result, samples, place.pages))
    if state is not None:
        await _tidy(place, hold.claimed)
        return state
    if await _is_to_be_cancelled(hold.db, hold.claimed):
        raise Cancelled("somebody asked for it")
    return None


def _time_for(claimed: Recording, stretch: float) -> float:
    if claimed.duration_ms is None:
        return stretch
    return min(stretch, _LEAST_SECONDS + _SLOWEST * claimed.duration_ms / 1000)


def _check_tries(claimed: Recording) -> None:
    # Only a worker that was killed leaves the last attempt open; a file that kills workers must not do so for ever.
    if claimed.tries > MAX_ATTEMPTS:
        last = claimed.error or "the last ones by a lost worker"
        raise GivenUp(f"given up: {MAX_ATTEMPTS} attempts ended without a result, {last}")


async def _worked(hold: Hold, tools: Tools, place: Place) -> Result:
    claimed, folder = hold.claimed, place.work / str(hold.claimed.id)
    blob = await hold.until_stopped(fetching.stored(place.storage, claimed, place.egress_dir))
    if blob is not None:
        claimed.blob_key, claimed.sha256, claimed.size_bytes = blob.key, blob.sha256, blob.size_bytes
        await _advance(
            hold, state=RecordingState.FETCHED, blob_key=blob.key, sha256=blob.sha256, size_bytes=blob.size_bytes
        )
    await _advance(hold, state=RecordingState.TRANSCRIBING)
    if claimed.codec is None and claimed.owner_id is not None:
        hold.observe(Stage.PROBE, 0.0)
        look = probing.look(hold.db, place.storage, claimed, place.work, tools.max_seconds)
        await _advance(hold, **probing.values(await hold.until_stopped(look)))
    try:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        path = await hold.until_stopped(place.storage.local(claimed.blob_key or "", folder))
        return await asyncio.to_thread(_run, hold, tools, path, folder)
    except OSError as fault:
        # A full disk, for one: not the recording's fault, and better later or elsewhere.
        raise TransientError(f"not transcribed: {fault.strerror or fault}") from fault


def _run(hold: Hold, tools: Tools, path: Path, folder: Path) -> Result:
    return run_pipeline(
        path,
        tools,
        options=_options(hold.claimed),
        channel_speakers=hold.claimed.channel_speakers,
        work=folder,
        checkpoints=hold,
        observe=hold.observe,
    )


def _options(claimed: Recording) -> TranscribeOptions:
    try:
        return TranscribeOptions.model_validate(claimed.options)
    except ValidationError as fault:
        raise PermanentError(f"its options are not valid: {fault}") from fault


async def _advance(hold: Hold, **values: object) -> None:
    async def change() -> bool:
        async with hold.db.transaction() as session:
            return await RecordingRepository(session).change_claimed(hold.claimed, **values)

    if not await _patiently(change):
        raise LeaseLost("somebody else has the recording, or it is gone")


async def _kept_samples(db: Database, storage: Storage, claimed: Recording, result: Result) -> dict[str, str]:
    """Beside those of a transcript that is there, which may stay."""
    if not result.samples:
        return {}
    free = await _patiently(lambda: _free_keys(db, claimed))
    return {label: (await storage.put(free[at], path)).key for at, (label, path) in enumerate(result.samples.items())}


async def _free_keys(db: Database, claimed: Recording) -> list[str]:
    async with db.transaction() as session:
        taken = await RecordingRepository(session).sample_keys(claimed.id)
        keys = fetching.voice_keys(claimed, other=not taken.isdisjoint(fetching.voice_keys(claimed)))
        # They may be about to be deleted, as those of the transcript before the last.
        await RemovalRepository(session).keep_files(keys)
    return keys


async def _patiently(change: Callable[[], Awaitable[T]]) -> T:
    """Try again while the database is away: what is to be written took long to make."""
    end = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
    while True:
        try:
            return await change()
        except Exception as fault:
            if not is_outage(fault) or asyncio.get_running_loop().time() > end:
                raise
            log.warning("a result waits for the database: %s", fault)
            await asyncio.sleep(1.0)


async def _record(hold: Hold, result: Result, samples: dict[str, str], pages: str) -> RecordingState | None:
    claimed, seconds = hold.claimed, result.transcript.duration_seconds
    async with hold.db.transaction() as session:
        if not await RecordingRepository(session).finish(
            claimed,
            error=None,
            error_code=None,
            claimed_until=None,
            stage=None,
            percent=100,
            seconds_left=None,
            codec=result.codec,
            channels=result.transcript.channels,
            duration_ms=round(seconds * 1000),
        ):
            return None
        await storing.store(session, claimed, result, samples)
        await ending.ended(session, claimed, settled=seconds)
        await telling.tell(session, claimed.id, pages=pages)
    hold.settled()
    return RecordingState.READY


async def _is_to_be_cancelled(db: Database, claimed: Recording) -> bool:
    async with db.transaction() as session:
        seen = await RecordingRepository(session).look(claimed)
    return seen is not None and seen.cancel_requested


async def _cancelled(db: Database, place: Place, claimed: Recording) -> RecordingState | None:
    return await _ended(db, place, claimed, RecordingState.CANCELLED, error=None, error_code=None)


async def _failed(
    db: Database, place: Place, claimed: Recording, fault: Exception, *, resumable: bool = False
) -> RecordingState | None:
    log.warning("recording %s of %s %s failed: %s", claimed.id, claimed.kind, claimed.subject_id, fault)
    return await _patiently(
        lambda: _ended(
            db,
            place,
            claimed,
            RecordingState.FAILED,
            error=str(fault),
            error_code=ending.error_code(fault),
            resumable=resumable,
        )
    )


async def _ended(
    db: Database,
    place: Place,
    claimed: Recording,
    state: RecordingState,
    *,
    error: str | None,
    error_code: str | None,
    resumable: bool = False,
) -> RecordingState | None:
    async with db.transaction() as session:
        recorded = await RecordingRepository(session).end(
            claimed,
            state,
            error=error and storable(error),
            error_code=error_code,
            claimed_until=None,
            seconds_left=None,
        )
        if recorded is not None:
            settled = await _paid(session, claimed) if state == RecordingState.CANCELLED else None
            await ending.ended(session, claimed, settled=settled, resumable=resumable)
            if state == RecordingState.FAILED:
                await telling.tell(session, claimed.id, pages=place.pages)
    if recorded is not None:
        await _tidy(place, claimed)
    return recorded


async def _paid(session: Session, claimed: Recording) -> float | None:
    """Seconds, for what was heard until somebody stopped it."""
    now = await RecordingRepository(session).get(claimed.id)
    return ending.heard_seconds(now) if now is not None else None


async def _tidy_if_over(db: Database, place: Place, claimed: Recording) -> None:
    """Decoded sound goes with its recording, which was deleted, or ended elsewhere."""

    async def look() -> bool:
        async with db.transaction() as session:
            return bool(await RecordingRepository(session).finished_of([claimed.id]))

    if await _patiently(look):
        await _tidy(place, claimed)


async def _tidy(place: Place, claimed: Recording) -> None:
    await asyncio.to_thread(shutil.rmtree, place.work / str(claimed.id), ignore_errors=True)


async def _out_of_time(place: Place, hold: Hold, fault: OutOfTime, stretch: float) -> RecordingState | None:
    if hold.seconds < stretch or not hold.progressed:
        return await _put_off_or_failed(place, hold, TransientError(str(fault)))

    return await _patiently(lambda: _give_back(hold.db, place, hold.claimed, None, 60.0, send=True))


async def _put_off_or_failed(place: Place, hold: Hold, fault: TransientError) -> RecordingState | None:
    claimed, tries = hold.claimed, 1 if hold.progressed else hold.claimed.tries
    if tries >= MAX_ATTEMPTS:
        return await _failed(hold.db, place, claimed, fault, resumable=True)
    # For the queue, too: it tries again after as long.
    fault.after = max(fault.after or 0.0, min(_LONGEST_WAIT, 2.0**tries))
    state = await _give_back(hold.db, place, claimed, str(fault), fault.after)
    if state is None:
        raise fault
    return state


async def _give_back(
    db: Database, place: Place, claimed: Recording, error: str | None, wait: float, *, send: bool = False
) -> RecordingState | None:
    """For the next attempt, after so many seconds or, with `send`, at once. The last state, where somebody wants none any more."""
    error = error and storable(error)
    async with db.transaction() as session:
        seen = await RecordingRepository(session).release(claimed, error=error, wait=timedelta(seconds=wait))
        if send:
            enqueue(session, TASK, recording_id=str(claimed.id))
    # The wish came when there was no time left to look.
    return await _cancelled(db, place, claimed) if seen is not None and seen.cancel_requested else None
