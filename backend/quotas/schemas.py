"""What the API takes and gives of quotas. Limits are set in minutes, usage is told in seconds."""

import re
from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

_MOST_MINUTES, _MOST_FILES = 1_000_000, 1_000_000

Minutes = Annotated[int, Field(ge=0, le=_MOST_MINUTES)]
Files = Annotated[int, Field(ge=0, le=_MOST_FILES)]
PLAN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
PlanName = Annotated[str, Field(pattern=f"^{PLAN_NAME.pattern}$")]


class StandingRead(BaseModel):
    """What somebody may use today, and has used; a limit of null is none."""

    model_config = ConfigDict(from_attributes=True)

    day: date = Field(description="The UTC day")
    reset_at: datetime = Field(description="When the next day begins")
    plan: str
    limit_seconds: float | None = Field(description="With what was given for today alone")
    used_seconds: float
    reserved_seconds: float = Field(description="For recordings that are not transcribed yet")
    left_seconds: float | None
    limit_files: int | None = Field(description="With what was given for today alone")
    used_files: int
    reserved_files: int
    left_files: int | None


class QuotaRead(StandingRead):
    """How one user stands, and what an admin has set for them."""

    user_id: UUID
    username: str
    is_active: bool
    minutes_per_day: int | None = Field(description="A limit of their own; null: the plan's")
    files_per_day: int | None = Field(description="A limit of their own; null: the plan's")
    extra_minutes: int = Field(description="Given for today alone")
    extra_files: int = Field(description="Given for today alone")
    updated_by: str
    updated_at: datetime | None


class QuotaUpdate(BaseModel):
    """What is to change of a user's plan and limits; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    plan: PlanName | None = Field(default=None, description="null: the standard plan")
    minutes_per_day: Minutes | None = Field(default=None, description="A limit of their own; null: the plan's")
    files_per_day: Files | None = Field(default=None, description="A limit of their own; null: the plan's")
    extra_minutes: Minutes | None = Field(default=None, description="For today alone; null: nothing")
    extra_files: Files | None = Field(default=None, description="For today alone; null: nothing")


class PlanUpdate(BaseModel):
    """What everybody on a plan may use a day; null: no limit."""

    model_config = ConfigDict(extra="forbid")

    minutes_per_day: Minutes | None
    files_per_day: Files | None


class PlanRead(PlanUpdate):
    name: str
    users: int = Field(description="How many were given this plan by name")
    updated_by: str
    updated_at: datetime | None = Field(description="null: as it comes")


class ResetDone(BaseModel):
    """What closing the days before `day` came to. `reset` is false where it was done before: the figures are those of then."""

    day: date
    reset: bool
    users: int
    used_seconds: float
    used_files: int
    kept: int = Field(description="Counters with reservations that are still open")


class ResetRead(BaseModel):
    """One reset: what had been used on the days before `day`."""

    day: date
    users: int
    used_seconds: float
    used_files: int
    kept: int = Field(description="Counters with reservations that were still open; they count at the next reset")
    reset_at: datetime
