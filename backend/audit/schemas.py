"""What the API takes and gives about the logs."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from backend.core.instants import Instant

Word = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")]


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Method = Annotated[str, BeforeValidator(_upper), StringConstraints(pattern=r"^[A-Z]{1,20}$")]
# One, or a class such as 4xx.
Status = Annotated[str, StringConstraints(pattern=r"^[1-5]([0-9][0-9]|xx)$")]


class Filter(BaseModel):
    """Which entries; what is left out does not matter. From `from` on, until before `to`. A misspelt name is refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    who: Word | None = Field(default=None, description="The name, in full")
    user_id: UUID | None = None
    since: Instant | None = Field(default=None, alias="from", description="At or after; with an offset or Z")
    until: Instant | None = Field(default=None, alias="to", description="Before; with an offset or Z")
    address: Word | None = Field(default=None, description="The address it came from")
    request_id: Word | None = None

    @model_validator(mode="after")
    def _spans(self) -> Self:
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("from must be before to")
        return self


class OperationFilter(Filter):
    method: Method | None = None
    route: Word | None = Field(default=None, description="The template, such as /api/job-schedules/{schedule_id}")
    path: Word | None = Field(default=None, description="The path itself, such as /api/job-schedules/7")
    status: Status | None = Field(default=None, description="A status, or a class such as 4xx")


class LoginFilter(Filter):
    outcome: Word | None = None


class _Paged(BaseModel):
    cursor: str | None = None
    limit: int = Field(default=50, ge=1, le=500)


class OperationQuery(_Paged, OperationFilter):
    """A page of operations."""


class LoginQuery(_Paged, LoginFilter):
    """A page of logins."""


class OperationRead(BaseModel):
    """A request or a command that may have changed something. `route` is empty where none took it.

    `request` holds `query` and `body`, shortened, secrets and phone numbers replaced.
    """

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    at: datetime
    actor_kind: str
    actor: str
    user_id: UUID | None
    credential_id: UUID | None
    method: str
    route: str
    path: str
    params: dict[str, Any]
    status: int
    duration_ms: float
    address: str | None
    user_agent: str
    request_id: str
    request: dict[str, Any]


class LoginRead(BaseModel):
    """A login that was tried, or its end. `username` is what was typed."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    at: datetime
    username: str
    outcome: str
    user_id: UUID | None
    address: str | None
    user_agent: str
    request_id: str
