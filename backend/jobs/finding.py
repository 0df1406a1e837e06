"""Rows by their ids, or NotFound (404)."""

from uuid import UUID

from backend.core.db import Session
from backend.core.errors import NotFound
from backend.jobs.models import JobRun, JobSchedule, JobTemplate
from backend.jobs.repository.runs import RunRepository
from backend.jobs.repository.schedules import ScheduleRepository


async def found_schedule(session: Session, schedule_id: int) -> tuple[JobSchedule, JobTemplate | None]:
    found = await ScheduleRepository(session).find(schedule_id)
    if found is None:
        raise NotFound(f"schedule {schedule_id} does not exist")
    return found


async def locked_schedule(session: Session, schedule_id: int) -> JobSchedule:
    """Locked against the dispatcher until the transaction ends."""
    schedule = await ScheduleRepository(session).lock(schedule_id)
    if schedule is None:
        raise NotFound(f"schedule {schedule_id} does not exist")
    return schedule


async def found_run(session: Session, run_id: UUID) -> JobRun:
    run = await RunRepository(session).find(run_id)
    if run is None:
        raise NotFound(f"run {run_id} does not exist")
    return run


async def locked_run(session: Session, run_id: UUID) -> JobRun:
    run = await RunRepository(session).lock(run_id)
    if run is None:
        raise NotFound(f"run {run_id} does not exist")
    return run
