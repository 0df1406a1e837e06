"""Every expected occurrence of a schedule and its fate; and a look ahead."""

import asyncio
from datetime import datetime, timedelta

from backend.config import Config
from backend.core.db import Session
from backend.core.paging import Page, decode_cursor, encode_cursor
from backend.jobs.finding import found_schedule
from backend.jobs.models import JobRun, JobSchedule
from backend.jobs.refusals import of_recurrence
from backend.jobs.repository.runs import RunRepository
from backend.jobs.repository.schedules import ScheduleRepository
from backend.jobs.schemas import Fate, OccurrencePreview, OccurrenceRead, PreviewCreate, PreviewRead
from backend.jobs.states import RunState
from backend.jobs.timing import explanation, local, next_occurrence, recurrence_of, resolve, to_utc
from backend.jobs.words import reason_in_words
from backend.scheduling import rows
from backend.scheduling.recurrence import Occurrence, RecurrenceError, count_between, due
from backend.scheduling.recurrence import preview as look_ahead

# Occurrences that wait for a dispatcher and are listed one by one; what is older shares one entry.
_DEFERRED_SHOWN = 100
_FATES: dict[str, Fate] = {
    RunState.MISSED: "missed",
    RunState.SKIPPED: "skipped",
    RunState.COALESCED: "coalesced",
}


async def preview(session: Session, *, config: Config, wish: PreviewCreate) -> PreviewRead:
    """The next occurrences of a time, before anything is saved. Invalid (422) names the field at fault."""
    now = await ScheduleRepository(session).now()
    fields = wish.model_dump(exclude={"count", "after"})
    times = resolve(fields, now=now, default_zone=config.timezone)
    after = to_utc(wish.after, times["timezone"], "after") or now
    try:
        first = next_occurrence(times, after)
        found = (
            []
            if first is None
            else look_ahead(rows.recurrence_of(times), _before(first), wish.count, times["timezone"])
        )
        words = explanation(times)
    except RecurrenceError as fault:
        raise of_recurrence(fault) from fault
    shown = [at for at in found if times["end_at"] is None or at.at <= times["end_at"]]
    return PreviewRead(explanation=words, timezone=times["timezone"], occurrences=[_previewed(at) for at in shown])


def _before(at: datetime) -> datetime:
    return at - timedelta(microseconds=1)


def _previewed(at: Occurrence) -> OccurrencePreview:
    return OccurrencePreview.model_validate(
        {"utc": at.at, "local": at.local.isoformat(), "dst": at.dst, "note": at.note}
    )


async def list_occurrences(
    session: Session, schedule_id: int, *, upcoming: int = 0, cursor: str | None = None, limit: int = 50
) -> Page[OccurrenceRead]:
    """Occurrences, newest first. The first page begins with the next `upcoming` ones and those that wait for a dispatcher."""
    schedule, _ = await found_schedule(session, schedule_id)
    position = decode_cursor(cursor)
    found = await RunRepository(session).occurrences(schedule_id, before=position, limit=limit + 1)
    page = found[:limit]
    items: list[OccurrenceRead] = []
    if position is None and schedule.is_active and schedule.next_run is not None:
        now = await ScheduleRepository(session).now()
        items += _upcoming(schedule, now, upcoming) + _deferred(schedule, now)
    items += [await _of_run(schedule, run) for run in page]
    more = encode_cursor((page[-1].scheduled_for, page[-1].id)) if len(found) > limit else None
    return Page(items=items, next_cursor=more)


def _upcoming(schedule: JobSchedule, now: datetime, count: int) -> list[OccurrenceRead]:
    if schedule.max_runs is not None:
        count = min(count, max(0, schedule.max_runs - schedule.run_count))
    if schedule.next_run is None:
        return []
    after = max(now, _before(schedule.next_run))
    try:
        ahead = look_ahead(recurrence_of(schedule), after, count, schedule.timezone)
    except RecurrenceError:
        return []
    ends = schedule.end_at
    coming = [_entry(schedule, at.at, "upcoming", at.note) for at in ahead if ends is None or at.at <= ends]
    return coming[::-1]


def _deferred(schedule: JobSchedule, now: datetime) -> list[OccurrenceRead]:
    """Occurrences that are due and have no row yet."""
    if schedule.next_run is None or schedule.next_run > now:
        return []
    reason = "due, and not dispatched yet"
    if schedule.last_error is not None:
        until = f" until {local(schedule.deferred_until, schedule.timezone)}" if schedule.deferred_until else ""
        reason = f"put off{until}: {schedule.last_error}"
    last = now if schedule.end_at is None else min(now, schedule.end_at)
    try:
        found = due(recurrence_of(schedule), schedule.next_run, last, _DEFERRED_SHOWN)
    except RecurrenceError:
        return [_entry(schedule, schedule.next_run, "deferred", reason)]
    entries = [_entry(schedule, at, "deferred", reason) for at in reversed(found.instants)]
    if found.older_first is not None and found.older_last is not None:
        older = _entry(schedule, found.older_last, "deferred", reason)
        entries.append(older.model_copy(update={"covers_from": found.older_first, "count": found.older_count}))
    return entries


def _entry(schedule: JobSchedule, at: datetime, fate: Fate, reason: str | None) -> OccurrenceRead:
    return OccurrenceRead(
        scheduled_for=at,
        local=local(at, schedule.timezone),
        fate=fate,
        state=None,
        reason=reason,
        run_id=None,
        blocked_by=None,
        covers_from=None,
        count=1,
    )


async def _of_run(schedule: JobSchedule, run: JobRun) -> OccurrenceRead:
    return OccurrenceRead(
        scheduled_for=run.scheduled_for,
        local=local(run.scheduled_for, schedule.timezone),
        fate=_FATES.get(run.state, "run"),
        state=run.state,
        reason=reason_in_words(run.reason, run.state, run.blocked_by),
        run_id=run.id,
        blocked_by=run.blocked_by,
        covers_from=run.covers_from,
        count=run.occurrences if run.occurrences is not None else await _count(schedule, run),
    )


async def _count(schedule: JobSchedule, run: JobRun) -> int | None:
    if run.covers_from is None:
        return None
    try:
        # Years of minutes take seconds: not in the event loop.
        return await asyncio.to_thread(count_between, recurrence_of(schedule), run.covers_from, run.scheduled_for)
    except RecurrenceError:
        return None
