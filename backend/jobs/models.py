"""Tables of jobs: templates, schedules, runs with their events, alerts.

`backend/scheduling` works on schedules, runs and alerts by SQL of its own: a column that is renamed here is renamed there.
Instants are UTC, durations seconds.
"""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, ForeignKey, Identity, Index, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from backend.core.clock import utc_now
from backend.core.db import Base
from backend.jobs.states import (
    ACTIVE,
    MisfirePolicy,
    OverlapPolicy,
    RunState,
    RunTrigger,
    ScheduleType,
    sql_list,
)


def _json(*, nullable: bool = False) -> Column[Any]:
    return Column(JSONB(none_as_null=True), nullable=nullable, server_default=None if nullable else text("'{}'"))


def _now() -> Column[Any]:
    return Column(DateTime(timezone=True), nullable=False, server_default=text("now()"))


def _count(default: int = 0) -> Column[Any]:
    return Column(Integer, nullable=False, server_default=text(str(default)))


def _identity() -> Column[Any]:
    return Column(BigInteger, Identity(), primary_key=True)


def _reference(target: str, on_delete: str) -> Column[Any]:
    return Column(BigInteger, ForeignKey(target, ondelete=on_delete), nullable=on_delete == "SET NULL")


_SANE = "between '1970-01-01Z' and '9000-01-01Z'"
_INSTANTS = ("next_run", "run_at", "anchor", "start_at", "end_at")


class JobTemplate(Base, table=True):
    """What is to be done: a kind of the registry and its parameters."""

    __tablename__: ClassVar[str] = "job_templates"

    id: int | None = Field(default=None, sa_column=_identity())
    name: str = Field(sa_column=Column(Text, unique=True, nullable=False))
    kind: str = Field(sa_type=Text)
    description: str = Field(default="", sa_type=Text)
    parameters: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    version: int = Field(default=1, sa_column=_count(1))
    created_by: str = Field(default="", sa_type=Text)
    created_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    updated_at: datetime = Field(default_factory=utc_now, sa_column=_now())


class JobSchedule(Base, table=True):
    """When it is to be done. `task`, `queue` and `arguments` are what a run is sent as, kept in step with the template.

    `next_run` is the next occurrence that has no row in `job_runs` yet; null when there is none. `anchor` is instant zero of an
    interval. `alert_after`: a run must have succeeded by then. `system_default` is the code's own version of a system entry, so
    that an edit can be told from a change of the code.
    """

    __tablename__: ClassVar[str] = "job_schedules"
    __table_args__ = (
        CheckConstraint(f"schedule_type in {sql_list(ScheduleType)}", name="schedule_type"),
        CheckConstraint(f"misfire_policy in {sql_list(MisfirePolicy)}", name="misfire_policy"),
        CheckConstraint(f"overlap_policy in {sql_list(OverlapPolicy)}", name="overlap_policy"),
        CheckConstraint("managed_by in ('user','system')", name="managed_by"),
        CheckConstraint(
            "(schedule_type = 'cron' and cron_expression is not null)"
            " or (schedule_type = 'interval' and interval_seconds >= 1 and anchor is not null)"
            " or (schedule_type = 'once' and run_at is not null)",
            name="when",
        ),
        CheckConstraint("(concurrency_key is null) = (concurrency_limit is null)", name="concurrency"),
        CheckConstraint("jitter_seconds >= 0 and misfire_grace_seconds >= 0 and max_catchup >= 1", name="policies"),
        # What Python can hold, and what recurrence takes.
        CheckConstraint(" and ".join(f"({name} is null or {name} {_SANE})" for name in _INSTANTS), name="instants"),
        Index(
            "ix_job_schedules_next_run_active",
            "next_run",
            postgresql_where=text("is_active and next_run is not null"),
        ),
        Index(
            "ix_job_schedules_alert_after_active",
            "alert_after",
            postgresql_where=text("is_active and alert_after is not null"),
        ),
    )

    id: int | None = Field(default=None, sa_column=_identity())
    name: str = Field(sa_column=Column(Text, unique=True, nullable=False))
    job_template_id: int | None = Field(
        default=None, sa_column=Column(BigInteger, ForeignKey("job_templates.id"), index=True)
    )
    credential_id: int | None = Field(default=None, sa_type=BigInteger)
    parameters: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    task: str = Field(sa_type=Text)
    queue: str = Field(sa_type=Text)
    arguments: dict[str, Any] = Field(default_factory=dict, sa_column=_json())

    schedule_type: str = Field(sa_type=Text)
    cron_expression: str | None = Field(default=None, sa_type=Text)
    interval_seconds: float | None = None
    anchor: datetime | None = None
    run_at: datetime | None = None
    timezone: str = Field(default="UTC", sa_column=Column(Text, nullable=False, server_default="UTC"))
    start_at: datetime | None = None
    end_at: datetime | None = None
    max_runs: int | None = None
    jitter_seconds: int = Field(default=0, sa_column=_count())

    misfire_policy: str = Field(
        default=MisfirePolicy.COALESCE, sa_column=Column(Text, nullable=False, server_default="coalesce")
    )
    misfire_grace_seconds: int = Field(default=3600, sa_column=_count(3600))
    max_catchup: int = Field(default=100, sa_column=_count(100))
    overlap_policy: str = Field(
        default=OverlapPolicy.SKIP, sa_column=Column(Text, nullable=False, server_default="skip")
    )
    concurrency_key: str | None = Field(default=None, sa_type=Text)
    concurrency_limit: int | None = None
    max_attempts: int | None = None
    retry_delay_seconds: float | None = None
    timeout_seconds: int | None = None
    expires_seconds: int | None = None
    alert_grace_seconds: int | None = None

    is_active: bool = Field(default=True, sa_column_kwargs={"server_default": text("true")})
    next_run: datetime | None = None
    last_run: datetime | None = None
    run_count: int = Field(default=0, sa_column=_count())
    last_state: str | None = Field(default=None, sa_type=Text)
    last_finished_at: datetime | None = None
    last_success_at: datetime | None = None
    consecutive_failures: int = Field(default=0, sa_column=_count())
    alert_after: datetime | None = None
    last_error: str | None = Field(default=None, sa_type=Text)
    deferred_until: datetime | None = None
    tzdata_version: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))

    managed_by: str = Field(default="user", sa_column=Column(Text, nullable=False, server_default="user"))
    system_default: dict[str, Any] | None = Field(default=None, sa_column=_json(nullable=True))
    version: int = Field(default=1, sa_column=_count(1))
    created_by: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    created_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    updated_at: datetime = Field(default_factory=utc_now, sa_column=_now())


class JobRun(Base, table=True):
    """One occurrence, or one run that somebody asked for; its id is the Celery task id.

    `epoch` counts claims and fences what an older claim writes. `relay_until` and `relay_pid`, the database session of whoever is
    about to publish it, keep a pending run from other relays. `blocked_by` names the run that this one was skipped for, waits for
    or was merged into. A `missed` or `coalesced` row may stand for a range: `occurrences` of them from `covers_from` to
    `scheduled_for`, null where they were too many to count at the time.
    """

    __tablename__: ClassVar[str] = "job_runs"
    __table_args__ = (
        CheckConstraint(f"state in {sql_list(RunState)}", name="state"),
        CheckConstraint(f"trigger in {sql_list(RunTrigger)}", name="trigger"),
        Index(
            "uq_job_runs_occurrence",
            "schedule_id",
            "scheduled_for",
            unique=True,
            postgresql_where=text("trigger = 'schedule'"),
        ),
        Index(
            "uq_job_runs_idempotency_key",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key is not null"),
        ),
        Index("ix_job_runs_publish_after_pending", "publish_after", postgresql_where=text("state = 'pending'")),
        Index("ix_job_runs_published_at_queued", "published_at", postgresql_where=text("state = 'queued'")),
        Index("ix_job_runs_lease_until_running", "lease_until", postgresql_where=text("state = 'running'")),
        Index("ix_job_runs_scheduled_for_waiting", "scheduled_for", postgresql_where=text("state = 'waiting'")),
        Index("ix_job_runs_schedule_id_active", "schedule_id", postgresql_where=text(f"state in {sql_list(ACTIVE)}")),
        Index(
            "ix_job_runs_concurrency_key_active",
            "concurrency_key",
            postgresql_where=text(f"concurrency_key is not null and state in {sql_list(ACTIVE)}"),
        ),
        Index(
            "ix_job_runs_expires_at_unclaimed",
            "expires_at",
            postgresql_where=text("expires_at is not null and state in ('waiting','pending','queued')"),
        ),
        Index("ix_job_runs_finished_at", "finished_at", postgresql_where=text("finished_at is not null")),
        Index("ix_job_runs_created_at_id", "created_at", "id"),
        Index("ix_job_runs_schedule_id_created_at", "schedule_id", "created_at"),
    )

    id: UUID = Field(primary_key=True)
    schedule_id: int | None = Field(default=None, sa_column=_reference("job_schedules.id", "SET NULL"))
    job_template_id: int | None = Field(default=None, sa_type=BigInteger)
    name: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    scheduled_for: datetime
    trigger: str = Field(default=RunTrigger.SCHEDULE, sa_type=Text)
    triggered_by: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    idempotency_key: str | None = Field(default=None, sa_type=Text)
    replay_of: UUID | None = None

    task: str = Field(sa_type=Text)
    queue: str = Field(sa_type=Text)
    arguments: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    max_attempts: int | None = None
    retry_delay_seconds: float | None = None
    timeout_seconds: int | None = None
    expires_at: datetime | None = None
    serial: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    concurrency_key: str | None = Field(default=None, sa_type=Text)
    concurrency_limit: int | None = None

    state: str = Field(default=RunState.PENDING, sa_type=Text)
    reason: str | None = Field(default=None, sa_type=Text)
    blocked_by: UUID | None = None
    covers_from: datetime | None = None
    occurrences: int | None = Field(default=1, sa_column=Column(Integer, nullable=True, server_default=text("1")))
    epoch: int = Field(default=0, sa_column=_count())
    attempt: int = Field(default=0, sa_column=_count())
    publish_after: datetime = Field(default_factory=utc_now, sa_column=_now())
    relay_until: datetime | None = None
    relay_pid: int | None = None
    published_at: datetime | None = None
    publish_count: int = Field(default=0, sa_column=_count())
    lease_owner: str | None = Field(default=None, sa_type=Text)
    lease_until: datetime | None = None
    cancel_requested_at: datetime | None = None
    started_at: datetime | None = None
    attempt_started_at: datetime | None = None
    finished_at: datetime | None = None
    result: Any = Field(default=None, sa_column=_json(nullable=True))
    error: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(default_factory=utc_now, sa_column=_now())


class JobRunEvent(Base, table=True):
    """A line of a run's story, append-only: what its handler logged (`kind` log), and what happened to it otherwise."""

    __tablename__: ClassVar[str] = "job_run_events"
    __table_args__ = (Index("ix_job_run_events_run_id_id", "run_id", "id"),)

    id: int | None = Field(default=None, sa_column=_identity())
    run_id: UUID = Field(foreign_key="job_runs.id", ondelete="CASCADE")
    at: datetime = Field(default_factory=utc_now, sa_column=_now())
    attempt: int = Field(default=0, sa_column=_count())
    kind: str = Field(sa_type=Text)
    level: str | None = Field(default=None, sa_type=Text)
    message: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    detail: dict[str, Any] | None = Field(default=None, sa_column=_json(nullable=True))


class JobAlert(Base, table=True):
    """One incident of a schedule, open until a run succeeds again; at most one open at a time."""

    __tablename__: ClassVar[str] = "job_alerts"
    __table_args__ = (
        CheckConstraint("kind in ('late','missed','failing')", name="kind"),
        Index(
            "uq_job_alerts_schedule_id_open", "schedule_id", unique=True, postgresql_where=text("resolved_at is null")
        ),
        Index("ix_job_alerts_opened_at_id", "opened_at", "id"),
    )

    id: int | None = Field(default=None, sa_column=_identity())
    schedule_id: int = Field(sa_column=_reference("job_schedules.id", "CASCADE"))
    kind: str = Field(sa_type=Text)
    expected_at: datetime
    message: str = Field(sa_type=Text)
    opened_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    resolved_at: datetime | None = None
