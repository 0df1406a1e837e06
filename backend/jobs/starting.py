"""Runs that somebody asks for: run now, backfill, cancel, again."""

import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from backend.core.db import Session
from backend.core.errors import Conflict
from backend.jobs.finding import found_run, locked_run, locked_schedule
from backend.jobs.models import JobRun, JobSchedule
from backend.jobs.reading import run_summary
from backend.jobs.refusals import invalid, of_recurrence
from backend.jobs.repository.runs import RunRepository
from backend.jobs.repository.schedules import ScheduleRepository
from backend.jobs.run_schemas import Cancelled, Started
from backend.jobs.schemas import Backfill, BackfillRead
from backend.jobs.states import ACTIVE, OverlapPolicy, RunState, RunTrigger
from backend.jobs.timing import recurrence_of, to_utc
from backend.scheduling.occurrences import NewRun, run_id
from backend.scheduling.policies import admit
from backend.scheduling.recurrence import Recurrence, RecurrenceError, next_after

_MICROSECOND = timedelta(microseconds=1)
_UNSTARTED = {RunState.WAITING, RunState.PENDING, RunState.QUEUED}


async def run_now(
    session: Session, schedule_id: int, *, idempotency_key: str | None = None, actor: str = "api"
) -> Started:
    """Run a schedule's work now, also while it is paused; its overlap policy decides about runs under way.

    Conflict (409, `overlap`) where the policy lets no further run in, (409, `idempotency_key`) when the key is another run's.
    """
    schedule = await locked_schedule(session, schedule_id)
    runs, schedules = RunRepository(session), ScheduleRepository(session)
    if idempotency_key is not None and (before := await runs.find_by_key(idempotency_key)):
        return _replayed(before, schedule_id, None)
    state, reason, blocker = await _admitted(runs, schedule, actor)
    run = NewRun(uuid4(), schedule_id, await schedules.now(), state, reason, blocked_by=blocker)
    inserted = await runs.insert_of_schedule(
        [run], trigger=RunTrigger.MANUAL, actor=actor, idempotency_key=idempotency_key
    )
    if not inserted:
        return _replayed(await _holder(runs, idempotency_key), schedule_id, None)
    await schedules.wake_dispatcher()
    return Started(run_summary(await found_run(session, run.id)), replayed=False)


def _replayed(run: JobRun, schedule_id: int | None, replay_of: UUID | None) -> Started:
    """What the key asked for the first time."""
    if (run.replay_of, run.schedule_id if replay_of is None else None) != (replay_of, schedule_id):
        raise _key_taken(run.idempotency_key)
    return Started(run_summary(run), replayed=True)


async def _holder(runs: RunRepository, key: str | None) -> JobRun:
    """The run that a request of the same moment made under the key."""
    run = await runs.find_by_key(key) if key is not None else None
    if run is None:
        raise _key_taken(key)
    return run


def _key_taken(key: str | None) -> Conflict:
    return Conflict(f"Idempotency-Key {key!r} was used for something else; use a new one", code="idempotency_key")


async def _admitted(runs: RunRepository, schedule: JobSchedule, actor: str) -> tuple[str, str | None, UUID | None]:
    """The state of a new run, the reason and the run it is about; the row of the schedule is locked."""
    if schedule.id is None:
        raise RuntimeError("the schedule is not stored")
    keyed = schedule.concurrency_key is not None
    active = await runs.active(schedule.id)
    if schedule.overlap_policy == OverlapPolicy.CANCEL_PREVIOUS and active:
        await runs.cancel_active(schedule.id, message=f"cancelled by the run that {actor} asked for")
        active = [run for run in await runs.active(schedule.id) if run.state == RunState.RUNNING]
    state, reason, blocker = admit(schedule.overlap_policy, active, keyed=keyed)
    if state == RunState.SKIPPED:
        what = "waits already" if reason == "overlap_queue_full" else "is under way"
        raise Conflict(
            f"run {blocker} of schedule {schedule.id} {what}, and its overlap policy is {schedule.overlap_policy}",
            code="overlap",
            run_id=str(blocker),
        )
    return state, reason, blocker


async def backfill(session: Session, schedule_id: int, *, wish: Backfill, actor: str = "api") -> BackfillRead:
    """A run for each occurrence of the time as it is now in [from, to], `start_at` and `end_at` aside, that has none yet.

    A run that has succeeded or is under way counts; repeating adds nothing. Invalid (422) when `to` lies ahead.
    """
    schedule = await locked_schedule(session, schedule_id)
    runs, schedules = RunRepository(session), ScheduleRepository(session)
    now = await schedules.now()
    first = to_utc(wish.first, schedule.timezone, "from") or now
    last = to_utc(wish.last, schedule.timezone, "to") or now
    if last > now:
        raise invalid("to", f"{last.isoformat()} lies ahead: it is {now.isoformat()} now")
    if first > last:
        raise invalid("from", f"{first.isoformat()} is after to, {last.isoformat()}")
    try:
        due = list(itertools.islice(_occurrences(recurrence_of(schedule), first, last), wish.limit + 1))
    except RecurrenceError as fault:
        raise of_recurrence(fault) from fault
    instants, following = due[: wish.limit], due[wish.limit :]
    present = await runs.fulfilled(schedule_id, first, last)
    free = schedule.overlap_policy == OverlapPolicy.ALLOW and schedule.concurrency_key is None
    state = RunState.PENDING if free else RunState.WAITING
    wanted = [
        NewRun(run_id(schedule_id, at, RunTrigger.BACKFILL), schedule_id, at, state)
        for at in instants
        if at not in present
    ]
    created = await runs.insert_of_schedule(wanted, trigger=RunTrigger.BACKFILL, actor=actor)
    await schedules.wake_dispatcher()
    return BackfillRead(
        occurrences=len(instants),
        created=len(created),
        present=len(instants) - len(created),
        next_from=following[0] if following else None,
    )


def _occurrences(recurrence: Recurrence, first: datetime, last: datetime) -> Iterator[datetime]:
    at = next_after(recurrence, first - _MICROSECOND)
    while at is not None and at <= last:
        yield at
        at = next_after(recurrence, at)


async def cancel_run(session: Session, run_id: UUID, *, actor: str = "api") -> Cancelled:
    """Cancel a run: at once, or, while a worker is at it, by asking the worker, who stops within seconds.

    Asking again changes nothing. Conflict (409, `finished`) for a run that has ended otherwise.
    """
    runs = RunRepository(session)
    run = await locked_run(session, run_id)
    if run.state == RunState.CANCELLED or (run.state == RunState.RUNNING and run.cancel_requested_at is not None):
        return Cancelled(run_summary(run), stopping=run.state == RunState.RUNNING)
    if run.state not in ACTIVE:
        raise Conflict(f"run {run_id} has ended: it is {run.state}", code="finished")
    schedules = ScheduleRepository(session)
    run.cancel_requested_at = await schedules.now()
    if run.state in _UNSTARTED:
        run.state, run.reason, run.finished_at = RunState.CANCELLED, "cancelled", run.cancel_requested_at
    await runs.save(run)
    kind = "cancel_requested" if run.state == RunState.RUNNING else "cancelled"
    await runs.add_event(run, kind, f"by {actor}")
    # What waited for it can go on.
    await schedules.wake_dispatcher()
    return Cancelled(run_summary(run), stopping=run.state == RunState.RUNNING)


async def retry_run(
    session: Session, run_id: UUID, *, idempotency_key: str | None = None, actor: str = "api"
) -> Started:
    """A new run of a finished one's work, with the arguments it had.

    Conflict (409, `active`) while it has not ended, (409, `merged`) for an occurrence that another run stands for, (409,
    `idempotency_key`) when the key is another run's.
    """
    runs, schedules = RunRepository(session), ScheduleRepository(session)
    old = await found_run(session, run_id)
    if old.schedule_id is not None:
        # The schedule alone: a worker locks the run first and then the schedule.
        await schedules.lock(old.schedule_id)
        old = await found_run(session, run_id)
    if idempotency_key is not None and (before := await runs.find_by_key(idempotency_key)):
        return _replayed(before, None, run_id)
    if old.state in ACTIVE:
        raise Conflict(f"run {run_id} has not ended: it is {old.state}", code="active")
    if old.state == RunState.COALESCED:
        raise Conflict(f"run {run_id} was merged into run {old.blocked_by}: run that again", code="merged")
    new = await _copy(runs, old, await schedules.now(), actor)
    new.idempotency_key = idempotency_key
    if not await runs.insert_new(new):
        return _replayed(await _holder(runs, idempotency_key), None, run_id)
    await runs.add_event(old, "replayed", f"by {actor}, as run {new.id}", {"run_id": str(new.id)})
    await schedules.wake_dispatcher()
    return Started(run_summary(await found_run(session, new.id)), replayed=False)


async def _copy(runs: RunRepository, old: JobRun, now: datetime, actor: str) -> JobRun:
    """The same work for the same occurrence; it waits for the runs that the old one would have waited for."""
    active = await runs.active(old.schedule_id) if old.schedule_id is not None and old.serial else []
    waits = bool(active) or old.concurrency_key is not None
    lasting = (old.expires_at - old.publish_after) if old.expires_at is not None else None
    same = (
        "schedule_id",
        "job_template_id",
        "name",
        "scheduled_for",
        "task",
        "queue",
        "arguments",
        "max_attempts",
        "retry_delay_seconds",
        "timeout_seconds",
        "serial",
        "concurrency_key",
        "concurrency_limit",
    )
    return JobRun(
        **{name: getattr(old, name) for name in same},
        id=uuid4(),
        trigger=RunTrigger.REPLAY,
        triggered_by=actor,
        replay_of=old.id,
        state=RunState.WAITING if waits else RunState.PENDING,
        reason=("overlap" if active else "concurrency_key") if waits else None,
        blocked_by=active[-1].id if active else None,
        expires_at=now + lasting if lasting is not None and lasting > timedelta(0) else None,
    )
