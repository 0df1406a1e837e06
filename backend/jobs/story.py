"""A run's story, out of its instants and its events."""

from collections.abc import Sequence
from typing import Any

from backend.jobs.models import JobRun, JobRunEvent
from backend.jobs.run_schemas import AttemptRead, LogLine, TimelineEntry
from backend.jobs.states import ACTIVE, RunState
from backend.jobs.words import reason_in_words

EVENTS_SHOWN = 500
LOG_SHOWN = 1000

# Events that end an attempt, and the state it ended in.
_ENDS = {"attempt_failed": "failed", "worker_lost": "lost"}


def timeline(run: JobRun, events: Sequence[JobRunEvent]) -> list[TimelineEntry]:
    """What happened, in order."""
    told = {event.kind for event in events}
    entries = [TimelineEntry(at=run.created_at, event="created", message=_origin(run))]
    if run.published_at is not None:
        entries.append(TimelineEntry(at=run.published_at, event="sent", message=f"to the queue {run.queue}"))
    if run.started_at is not None:
        entries.append(TimelineEntry(at=run.started_at, event="started", message="a worker took it", attempt=1))
    if run.attempt_started_at is not None and run.attempt > 1:
        entries.append(
            TimelineEntry(
                at=run.attempt_started_at, event="started", message=f"attempt {run.attempt}", attempt=run.attempt
            )
        )
    if run.cancel_requested_at is not None and not told & {"cancel_requested", "cancelled"}:
        entries.append(TimelineEntry(at=run.cancel_requested_at, event="cancel_requested", message=""))
    entries += [
        TimelineEntry(
            at=event.at, event=event.kind, message=event.message, attempt=event.attempt or None, detail=event.detail
        )
        for event in events
    ]
    if run.finished_at is not None and run.state not in told:
        message = reason_in_words(run.reason, run.state, run.blocked_by) or run.error or ""
        entries.append(TimelineEntry(at=run.finished_at, event=run.state, message=message))
    return sorted(entries, key=lambda entry: entry.at)


def _origin(run: JobRun) -> str:
    by = f" by {run.triggered_by}" if run.triggered_by and run.triggered_by != run.trigger else ""
    again = f", again for run {run.replay_of}" if run.replay_of else ""
    return f"{run.trigger}{by}{again}"


def attempts(run: JobRun, events: Sequence[JobRunEvent]) -> list[AttemptRead]:
    """Each attempt with its end; the last one is as the run is."""
    ends: dict[int, JobRunEvent] = {event.attempt: event for event in events if event.kind in _ENDS}
    return [_attempt(run, number, ends.get(number)) for number in range(1, run.attempt + 1)]


def _attempt(run: JobRun, number: int, end: JobRunEvent | None) -> AttemptRead:
    started: Any = run.attempt_started_at if number == run.attempt else None
    if number == 1:
        started = run.started_at
    if end is not None:
        return AttemptRead(
            number=number, started_at=started, ended_at=end.at, state=_ENDS[end.kind], error=end.message or None
        )
    if number < run.attempt:
        return AttemptRead(number=number, started_at=started, ended_at=None, state="lost", error=None)
    state = run.state if run.state not in ACTIVE else RunState.RUNNING.value
    return AttemptRead(number=number, started_at=started, ended_at=run.finished_at, state=state, error=run.error)


def log_lines(newest_first: Sequence[JobRunEvent]) -> list[LogLine]:
    """In order."""
    return [
        LogLine(at=event.at, level=event.level, message=event.message, attempt=event.attempt)
        for event in reversed(newest_first)
    ]
