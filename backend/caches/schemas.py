"""What the API takes and gives of caches."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, model_validator

from backend.caches.kinds import LONGEST, SHORTEST


class CacheScheduleRead(BaseModel):
    kind: str
    description: str
    task: str
    enabled: bool
    interval_seconds: int
    next_at: datetime = Field(description="When it is refreshed next, should it be enabled")
    started_at: datetime | None
    updated_by: str
    updated_at: datetime


class CacheScheduleUpdate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    enabled: bool = True
    interval_seconds: int = Field(default=SHORTEST, ge=SHORTEST, le=LONGEST)

    @model_validator(mode="after")
    def _says_something(self) -> "CacheScheduleUpdate":
        if not self.model_fields_set:
            raise ValueError("give enabled or interval_seconds")
        return self
