"""Shapes of the jobs API. Instants are UTC, durations seconds; an instant without an offset is local time in `timezone`."""

import math
import re
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from backend.jobs.states import MisfirePolicy, OverlapPolicy, ScheduleType

# Control characters, lone surrogates (no UTF-8), and marks that turn the direction of the text around them.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_YEARS = (1970, 9000)
_YEAR_SECONDS = 31_536_000
_BIGINT = 2**63 - 1
_INT = 2**31 - 1
_LARGEST, _DEEPEST = 100_000, 50


def _fit_to_show(text: str) -> str:
    if _UNFIT.search(text):
        raise ValueError("must not hold control characters")
    return text


def _storable(value: Any) -> Any:
    """What PostgreSQL's jsonb takes, not too large and not too deep."""
    waiting, size = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        size += len(item) if isinstance(item, str) else 1
        if depth > _DEEPEST or size > _LARGEST:
            raise ValueError(f"must have at most {_LARGEST} characters and {_DEEPEST} levels")
        if isinstance(item, dict):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            waiting += [(part, depth + 1) for part in item]
        elif isinstance(item, str) and re.search("[\x00\ud800-\udfff]", item):
            raise ValueError("must not hold the character U+0000 or a lone surrogate")
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError("must not hold NaN or an infinite number")
    return value


def _text_of_instant(value: Any) -> Any:
    # pydantic would read a number as seconds since 1970.
    if isinstance(value, str) and re.match(r"^\d{4}-\d{2}-\d{2}", value.strip()):
        return value.strip()
    if value is None or isinstance(value, datetime):
        return value
    raise ValueError("must be an instant such as 2026-11-21T02:00:00+05:30, or a local time such as 2026-11-21T02:00")


def _year_in_range(at: datetime) -> datetime:
    if not _YEARS[0] <= at.year <= _YEARS[1]:
        raise ValueError(f"must be in the years {_YEARS[0]} to {_YEARS[1]}")
    return at


Search = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_fit_to_show)]
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=255),
    AfterValidator(_fit_to_show),
]
Description = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_storable)]
Id = Annotated[int, Field(ge=1, le=_BIGINT)]
Moment = Annotated[datetime, BeforeValidator(_text_of_instant), AfterValidator(_year_in_range)]
Values = Annotated[dict[str, Any], AfterValidator(_storable)]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:/-]{1,200}$")]
Seconds = Annotated[int, Field(ge=1, le=_YEAR_SECONDS)]
Version = Annotated[int, Field(ge=1, le=_INT)]
Priority = Literal["high", "normal", "low"]
Fate = Literal["run", "coalesced", "skipped", "missed", "deferred", "upcoming"]


class _Body(BaseModel):
    # A misspelt field must be an error, not a default.
    model_config = ConfigDict(extra="forbid")


class KindRead(BaseModel):
    """A kind of job; `parameters` is the JSON Schema of what it takes."""

    name: str
    label: str
    description: str
    parameters: dict[str, Any]
    queue: str
    priority_can_be_chosen: bool
    time_limit: int
    uses_credential: bool


class TemplateCreate(_Body):
    name: Name
    kind: Annotated[str, StringConstraints(max_length=100)]
    description: Description = ""
    parameters: Values = Field(default_factory=dict)


class TemplateUpdate(_Body):
    """What is left out stays; a template's kind is for ever."""

    name: Name = ""
    description: Description = ""
    parameters: Values = Field(default_factory=dict)
    version: Version | None = None


class TemplateRead(BaseModel):
    id: int
    name: str
    kind: str
    kind_label: str
    description: str
    parameters: dict[str, Any]
    schedules: int
    version: int
    created_by: str
    created_at: datetime
    updated_at: datetime


class Times(_Body):
    """When: exactly one of `cron_expression`, `interval_seconds` and `run_at`. `timezone` defaults to the product's own."""

    schedule_type: ScheduleType | None = None
    cron_expression: str | None = None
    interval_seconds: float | None = None
    anchor: Moment | None = Field(default=None, description="Instant zero of an interval; default: start_at, or now")
    run_at: Moment | None = None
    timezone: str | None = None
    start_at: Moment | None = None
    end_at: Moment | None = None


class _Settings(Times):
    credential_id: Id | None = None
    parameters: Values = Field(default_factory=dict, description="Laid over the template's")
    max_runs: Annotated[int, Field(ge=1, le=_INT)] | None = None
    jitter_seconds: Annotated[int, Field(ge=0, le=86_400)] = 0
    misfire_policy: MisfirePolicy = MisfirePolicy.COALESCE
    misfire_grace_seconds: Seconds | None = Field(default=None, description="Default: 3600, for `skip` 60")
    max_catchup: Annotated[int, Field(ge=1, le=1000)] = 100
    overlap_policy: OverlapPolicy = OverlapPolicy.SKIP
    concurrency_key: Key | None = None
    concurrency_limit: Annotated[int, Field(ge=1, le=10_000)] | None = None
    max_attempts: Annotated[int, Field(ge=1, le=100)] | None = None
    retry_delay_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] | None = None
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    expires_seconds: Seconds | None = None
    alert_grace_seconds: Seconds | None = Field(default=600, description="Null: no alerts")
    priority: Priority | None = None
    is_active: bool = True


class ScheduleCreate(_Settings):
    """A schedule; `name` defaults to one made of the template's name and the time."""

    template_id: Id
    name: Name | None = None


class ScheduleUpdate(_Settings):
    """What is left out stays. Giving another of `cron_expression`, `interval_seconds`, `run_at` changes the schedule's type."""

    template_id: Id = 1
    name: Name = ""
    version: Version | None = Field(default=None, description="412 unless it is the schedule's own; or send If-Match")


class Resume(_Body):
    """`catch_up`: what came due during the pause is treated by the misfire policy; otherwise it is forgotten."""

    catch_up: bool = False


class Backfill(_Body):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    first: Moment = Field(alias="from")
    last: Moment = Field(alias="to")
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class BackfillRead(BaseModel):
    """`occurrences` lie in the range; `created` of them got a run, `present` have one. `next_from`: where the limit stopped."""

    occurrences: int
    created: int
    present: int
    next_from: datetime | None


class PreviewCreate(Times):
    count: Annotated[int, Field(ge=1, le=50)] = 10
    after: Moment | None = Field(default=None, description="Default: now")


class OccurrencePreview(BaseModel):
    """`local` is ISO 8601 with the offset; `dst` says that a change of the clock moves this run, `note` how."""

    utc: datetime
    local: str
    dst: Literal["shifted", "repeated"] | None
    note: str | None


class PreviewRead(BaseModel):
    explanation: str
    timezone: str
    occurrences: list[OccurrencePreview]


class ScheduleRead(BaseModel):
    """A schedule. `template_id` and `kind` are null for the system's own work; `next_run_local` is `next_run` in `timezone`."""

    id: int
    name: str
    template_id: int | None
    template_name: str | None
    kind: str | None
    task: str
    queue: str
    priority: Priority | None
    credential_id: int | None
    parameters: dict[str, Any]
    arguments: dict[str, Any]
    schedule_type: ScheduleType
    explanation: str | None
    cron_expression: str | None
    interval_seconds: float | None
    anchor: datetime | None
    run_at: datetime | None
    timezone: str
    start_at: datetime | None
    end_at: datetime | None
    max_runs: int | None
    jitter_seconds: int
    misfire_policy: MisfirePolicy
    misfire_grace_seconds: int
    max_catchup: int
    overlap_policy: OverlapPolicy
    concurrency_key: str | None
    concurrency_limit: int | None
    max_attempts: int | None
    retry_delay_seconds: float | None
    timeout_seconds: int | None
    expires_seconds: int | None
    alert_grace_seconds: int | None
    is_active: bool
    next_run: datetime | None
    next_run_local: str | None
    last_run: datetime | None
    run_count: int
    last_state: str | None
    last_finished_at: datetime | None
    last_success_at: datetime | None
    consecutive_failures: int
    alert_after: datetime | None
    last_error: str | None
    deferred_until: datetime | None
    managed_by: Literal["user", "system"]
    version: int
    created_by: str
    created_at: datetime
    updated_at: datetime


class OccurrenceRead(BaseModel):
    """One expected occurrence, or `count` of them from `covers_from` to `scheduled_for`, and its fate.

    `count` is null where the time cannot be computed any more. `blocked_by` is the run that `reason` is about.
    """

    scheduled_for: datetime
    local: str
    fate: Fate
    state: str | None
    reason: str | None
    run_id: UUID | None
    blocked_by: UUID | None
    covers_from: datetime | None
    count: int | None


class JobsSummary(BaseModel):
    """Schedules that are active and paused; runs made in the last 24 hours, by state."""

    active: int
    paused: int
    runs: dict[str, int]
