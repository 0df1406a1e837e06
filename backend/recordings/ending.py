"""The end of a recording: its quota, its checkpoints, and word to whoever waits for it."""

from backend.core.db import Session
from backend.core.queue import enqueue
from backend.quotas import service as quotas
from backend.recordings.models import Recording
from backend.recordings.repository import CheckpointRepository


def error_code(fault: BaseException) -> str:
    """A stable name of an error, for programs."""
    return str(getattr(fault, "code", "failed"))


async def ended(
    session: Session, recording: Recording, *, settled: float | None = None, resumable: bool = False
) -> None:
    """Of a recording whose last state was just written. `settled` is its length in seconds, None where nothing came of it.

    `resumable` keeps the checkpoints for whoever starts it again.
    """
    if settled is None:
        await quotas.release(session, key=recording.id)
    else:
        await quotas.settle(session, key=recording.id, seconds=settled)
    if not resumable:
        await CheckpointRepository(session).delete(recording.id)
    told(session, recording)


def told(session: Session, recording: Recording) -> None:
    """Word to whoever waits for the transcript: there is one, or there will be none."""
    if recording.then_task is not None:
        enqueue(session, recording.then_task, **{f"{recording.kind}_id": str(recording.subject_id)})
