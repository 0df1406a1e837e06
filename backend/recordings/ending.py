"""The end of a recording: its quota, its checkpoints, and word to whoever waits for it."""

from backend.core.db import Session
from backend.core.queue import enqueue
from backend.quotas import service as quotas
from backend.recordings import progress
from backend.recordings.models import Recording
from backend.recordings.repository import CheckpointRepository


def error_code(fault: BaseException) -> str:
    """A stable name of an error, for programs."""
    return str(getattr(fault, "code", "failed"))


async def ended(
    session: Session, recording: Recording, *, settled: float | None = None, resumable: bool = False
) -> None:
    """Of a recording whose last state was just written. `settled` are the seconds that it takes off the quota, None or 0 for none.

    `resumable` keeps the checkpoints for whoever starts it again.
    """
    await paid(session, recording, settled)
    if not resumable:
        await CheckpointRepository(session).delete(recording.id)
    told(session, recording)


async def paid(session: Session, recording: Recording, seconds: float | None) -> None:
    """Of a reservation that is open: so much of the quota is used, and what is left of it released."""
    if seconds:
        await quotas.settle(session, key=recording.id, seconds=seconds)
    else:
        await quotas.release(session, key=recording.id)


def heard_seconds(recording: Recording) -> float:
    """What somebody pays who stops the work on a recording: what has been heard of it, however far the rest is."""
    return round(progress.heard(recording.percent) * (recording.duration_ms or 0) / 1000, 3)


def told(session: Session, recording: Recording) -> None:
    """Word to whoever waits for the transcript: there is one, or there will be none."""
    if recording.then_task is not None:
        enqueue(session, recording.then_task, **{f"{recording.kind}_id": str(recording.subject_id)})
