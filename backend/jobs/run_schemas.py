"""Shapes of runs and alerts. Instants are UTC, durations seconds."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel

from backend.jobs.states import RunState, RunTrigger


class RunSummary(BaseModel):
    """A run; `reason` is in words, `reason_code` the stable one. `duration_seconds` counts from the first attempt's start."""

    id: UUID
    name: str
    schedule_id: int | None
    template_id: int | None
    kind: str | None
    task: str
    queue: str
    trigger: RunTrigger
    triggered_by: str
    scheduled_for: datetime
    state: RunState
    reason: str | None
    reason_code: str | None
    blocked_by: UUID | None
    replay_of: UUID | None
    attempt: int
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_seconds: float | None
    cancel_requested_at: datetime | None


class TimelineEntry(BaseModel):
    at: datetime
    event: str
    message: str
    attempt: int | None = None
    detail: dict[str, Any] | None = None


class AttemptRead(BaseModel):
    """One attempt; `started_at` is null where a later one has taken its place."""

    number: int
    started_at: datetime | None
    ended_at: datetime | None
    state: str
    error: str | None


class LogLine(BaseModel):
    at: datetime
    level: str | None
    message: str
    attempt: int


class RunRead(RunSummary):
    """A run with its story. `log` holds the newest lines, in order; `log_truncated` says that older ones were left out."""

    arguments: dict[str, Any]
    max_attempts: int | None
    retry_delay_seconds: float | None
    timeout_seconds: int | None
    expires_at: datetime | None
    concurrency_key: str | None
    concurrency_limit: int | None
    publish_after: datetime
    published_at: datetime | None
    result: Any
    timeline: list[TimelineEntry]
    attempts: list[AttemptRead]
    log: list[LogLine]
    log_truncated: bool


class AlertRead(BaseModel):
    id: int
    schedule_id: int
    schedule_name: str
    timezone: str
    kind: Literal["late", "missed", "failing"]
    expected_at: datetime
    expected_local: str
    message: str
    opened_at: datetime
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class Started:
    """A run that was asked for; `replayed` when the same Idempotency-Key had asked for it before."""

    run: RunSummary
    replayed: bool


@dataclass(frozen=True, slots=True)
class Cancelled:
    """`stopping`: the run is under way, and its worker stops it within seconds."""

    run: RunSummary
    stopping: bool
