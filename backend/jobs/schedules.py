"""Schedules: create, edit, pause, resume, delete. The schedule's row is locked against the dispatcher first."""

from datetime import datetime
from typing import Any

from backend.config import Config
from backend.core.db import Session
from backend.core.errors import Conflict
from backend.jobs import arguments
from backend.jobs.finding import found_schedule, locked_schedule
from backend.jobs.kinds import Kind
from backend.jobs.models import JobSchedule, JobTemplate
from backend.jobs.reading import schedule_read
from backend.jobs.refusals import Stale, check_version, given, invalid
from backend.jobs.repository.alerts import AlertRepository
from backend.jobs.repository.runs import RunRepository
from backend.jobs.repository.schedules import ScheduleRepository
from backend.jobs.repository.templates import TemplateRepository
from backend.jobs.schemas import ScheduleCreate, ScheduleRead, ScheduleUpdate
from backend.jobs.states import MisfirePolicy, ScheduleType
from backend.jobs.timing import TIME_FIELDS, edited, local, required_occurrence, resolve, set_alert, set_next_run
from backend.scheduling.recurrence import TZDATA_VERSION

# What a run is made of: runs that are not sent yet are withdrawn when one of these, or the time, changes.
_WORK_FIELDS = {"template_id", "parameters", "credential_id", "priority"}
_CODE_OWNS = {*_WORK_FIELDS, "name"}
_NOT_COLUMNS = {"template_id", "priority"}
_SKIP_GRACE, _GRACE = 60, 3600


async def create_schedule(
    session: Session, *, config: Config, wish: ScheduleCreate, actor: str = "api"
) -> ScheduleRead:
    """Invalid (422) names the field at fault; Conflict (409, `name_taken`) when another schedule has the name."""
    schedules = ScheduleRepository(session)
    template = await _template(session, wish.template_id)
    now = await schedules.now()
    fields = wish.model_dump()
    times = resolve(fields, now=now, default_zone=config.timezone)
    columns = {name: value for name, value in fields.items() if name not in _NOT_COLUMNS}
    columns |= times
    columns["misfire_grace_seconds"] = wish.misfire_grace_seconds or _default_grace(wish.misfire_policy)
    columns["name"] = wish.name or await schedules.free_name(_derived_name(template, times))
    schedule = JobSchedule(**columns, job_template_id=template.id, task="", queue="", created_by=actor)
    arguments.apply(schedule, template, config)
    if wish.priority is not None:
        arguments.choose_queue(schedule, _kind(template), wish.priority)
    _check_policies(schedule)
    schedule.next_run = required_occurrence(times, now)
    schedule.tzdata_version = TZDATA_VERSION
    set_alert(schedule, now)
    await _save(session, schedule)
    return schedule_read(schedule, template)


async def _template(session: Session, template_id: int) -> JobTemplate:
    template = await TemplateRepository(session).lock_shared(template_id)
    if template is None:
        raise invalid("template_id", f"job template {template_id} does not exist")
    return template


def _kind(template: JobTemplate) -> Kind:
    return arguments.kind_named(template.kind)


def _default_grace(policy: str) -> int:
    return _SKIP_GRACE if policy == MisfirePolicy.SKIP else _GRACE


def _derived_name(template: JobTemplate, times: dict[str, Any]) -> str:
    if times["schedule_type"] == ScheduleType.CRON:
        when = f"{times['cron_expression']} {times['timezone']}"
    elif times["schedule_type"] == ScheduleType.INTERVAL:
        when = f"every {times['interval_seconds']:g} s"
    else:
        when = local(times["run_at"], times["timezone"])
    # Room is left for a number that makes it unique.
    return f"{template.name[:120].rstrip()}: {when}"[:240]


def _check_policies(schedule: JobSchedule) -> None:
    if schedule.concurrency_key is None and schedule.concurrency_limit is not None:
        raise invalid("concurrency_limit", "needs a concurrency_key")
    if schedule.concurrency_key is not None and schedule.concurrency_limit is None:
        schedule.concurrency_limit = 1
    arguments.check_timeout(schedule)


async def _save(session: Session, schedule: JobSchedule) -> None:
    name = schedule.name
    schedules = ScheduleRepository(session)
    if not await schedules.save(schedule):
        raise Conflict(f"name: there is a schedule {name!r} already", code="name_taken", field="name")
    await schedules.wake_dispatcher()


async def _save_edit(session: Session, schedule: JobSchedule, now: datetime) -> ScheduleRead:
    schedule.version += 1
    schedule.updated_at = now
    template_id = schedule.job_template_id
    await _save(session, schedule)
    template = None if template_id is None else await TemplateRepository(session).find(template_id)
    return schedule_read(schedule, template)


async def update_schedule(
    session: Session,
    schedule_id: int,
    *,
    config: Config,
    wish: ScheduleUpdate,
    version: int | None = None,
    actor: str = "api",
) -> ScheduleRead:
    """Edit what `wish` names; it takes effect at once.

    A change of the time computes `next_run` anew from now. A change of the time or the work withdraws the schedule's runs that
    are not sent yet. Stale (412) for an old `version`; Conflict (409, `system_schedule`) for what belongs to the code.
    """
    changes = given(wish)
    schedule, template = await _locked_with_template(session, schedule_id, changes)
    check_version(f"schedule {schedule_id}", schedule.version, version or wish.version)
    if not changes:
        return schedule_read(schedule, template)
    now = await ScheduleRepository(session).now()
    timed = any(field in changes for field in TIME_FIELDS)
    if timed:
        changes |= resolve(edited(schedule, changes), now=now, default_zone=config.timezone)
    was_active = schedule.is_active
    _apply_changes(schedule, changes)
    if template is not None:
        _apply_work(schedule, template, changes, config)
    _check_policies(schedule)
    await _plan_anew(session, schedule, changes, now, timed=timed, was_active=was_active)
    read = await _save_edit(session, schedule, now)
    if timed or _WORK_FIELDS & changes.keys():
        await RunRepository(session).withdraw(schedule_id, message=f"the schedule was edited by {actor}")
    return read


async def _template_of(session: Session, schedule: JobSchedule) -> JobTemplate | None:
    if schedule.job_template_id is None:
        return None
    return await TemplateRepository(session).find(schedule.job_template_id)


async def _locked_with_template(
    session: Session, schedule_id: int, changes: dict[str, Any]
) -> tuple[JobSchedule, JobTemplate | None]:
    """The template's row is locked before the schedule's, as when a template is edited."""
    before, _ = await found_schedule(session, schedule_id)
    if before.managed_by == "system" and (kept := _CODE_OWNS & changes.keys()):
        raise Conflict(
            f"schedule {schedule_id} belongs to the system: {', '.join(sorted(kept))} cannot be changed",
            code="system_schedule",
        )
    new_template_id: int | None = changes.get("template_id")
    template_id = before.job_template_id if new_template_id is None else new_template_id
    template = None if template_id is None else await _template(session, template_id)
    schedule = await locked_schedule(session, schedule_id)
    if new_template_id is None and schedule.job_template_id != template_id:
        raise Stale(f"schedule {schedule_id} was given another template just now: read it again, then edit")
    return schedule, template


def _apply_changes(schedule: JobSchedule, changes: dict[str, Any]) -> None:
    columns = {name: value for name, value in changes.items() if name not in _NOT_COLUMNS}
    if columns.get("misfire_grace_seconds", 0) is None:
        columns["misfire_grace_seconds"] = _default_grace(columns.get("misfire_policy", schedule.misfire_policy))
    if columns.get("concurrency_key", "") is None:
        columns.setdefault("concurrency_limit", None)
    for name, value in columns.items():
        setattr(schedule, name, value)


def _apply_work(schedule: JobSchedule, template: JobTemplate, changes: dict[str, Any], config: Config) -> None:
    schedule.job_template_id = template.id
    arguments.apply(schedule, template, config)
    if "priority" in changes:
        arguments.choose_queue(schedule, _kind(template), changes["priority"])


async def _plan_anew(
    session: Session, schedule: JobSchedule, changes: dict[str, Any], now: datetime, *, timed: bool, was_active: bool
) -> None:
    used_up = schedule.max_runs is not None and schedule.run_count >= schedule.max_runs
    resumed = schedule.is_active and not was_active
    if timed:
        required_occurrence(changes, now)
        schedule.tzdata_version = TZDATA_VERSION
    if timed or resumed or ("max_runs" in changes and schedule.next_run is None):
        set_next_run(schedule, now)
    elif used_up:
        schedule.next_run = None
    if timed or resumed or not schedule.is_active or "alert_grace_seconds" in changes:
        set_alert(schedule, now)
    if schedule.id is not None and (not schedule.is_active or schedule.alert_grace_seconds is None):
        await AlertRepository(session).resolve(schedule.id)


async def pause_schedule(session: Session, schedule_id: int) -> ScheduleRead:
    """No occurrence is dispatched until it is resumed; an open alert is closed. A second pause changes nothing."""
    schedule = await locked_schedule(session, schedule_id)
    if not schedule.is_active:
        return schedule_read(schedule, await _template_of(session, schedule))
    now = await ScheduleRepository(session).now()
    schedule.is_active = False
    set_alert(schedule, now)
    await AlertRepository(session).resolve(schedule_id)
    return await _save_edit(session, schedule, now)


async def resume_schedule(session: Session, schedule_id: int, *, catch_up: bool = False) -> ScheduleRead:
    """Go on from now; with `catch_up` from where it was paused, by its misfire policy. A second resume changes nothing.

    Conflict (409, `over`) when no occurrence is left, so that it would never run.
    """
    schedule = await locked_schedule(session, schedule_id)
    if schedule.is_active:
        return schedule_read(schedule, await _template_of(session, schedule))
    now = await ScheduleRepository(session).now()
    schedule.is_active = True
    if catch_up and schedule.next_run is not None:
        schedule.deferred_until = schedule.last_error = None
    else:
        set_next_run(schedule, now)
    if schedule.next_run is None:
        raise Conflict(f"schedule {schedule_id} has no occurrence left: edit its time or max_runs first", code="over")
    set_alert(schedule, now)
    return await _save_edit(session, schedule, now)


async def delete_schedule(session: Session, schedule_id: int, *, actor: str = "api") -> None:
    """Delete a schedule. Its runs stay; those that no worker has are cancelled. Conflict (409) for the system's own."""
    runs = RunRepository(session)
    await runs.lock_active(schedule_id)
    schedule = await locked_schedule(session, schedule_id)
    if schedule.managed_by == "system":
        raise Conflict(f"schedule {schedule_id} belongs to the system: pause it instead", code="system_schedule")
    await runs.end_unstarted(schedule_id, reason="schedule_deleted", message=f"the schedule was deleted by {actor}")
    schedules = ScheduleRepository(session)
    await schedules.delete(schedule)
    await schedules.wake_dispatcher()
