"""What the API takes and gives about queues, dead letters and tasks."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from backend.core.dead_letters import Incomplete, Kind
from backend.core.instants import Instant
from backend.queues.states import LetterState, TaskState

Word = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$")]


# A paced requeue is one task, which must end within its queue's time limit.
_LONGEST_REQUEUE = 3_000


class LetterSummary(BaseModel):
    """A dead letter in a list. `can_requeue` is false where its arguments are not whole or its task is unknown now."""

    id: UUID
    task: str
    task_id: str
    queue: str
    kind: Kind
    state: LetterState
    error: str
    count: int
    first_seen: datetime
    last_seen: datetime
    requeued_task_id: str | None
    can_requeue: bool


class LetterRead(LetterSummary):
    """A dead letter in full. `arguments` holds `args` and `kwargs`, secrets replaced."""

    arguments: dict[str, Any]
    incomplete: Incomplete | None
    traceback: str
    retries: int
    requeue_count: int
    closed_at: datetime | None
    closed_by: str


class LetterFilter(BaseModel):
    """Which letters; what is left out does not matter."""

    model_config = ConfigDict(extra="forbid")

    task: Word | None = None
    queue: Word | None = None
    kind: Kind | None = None
    since: Instant | None = Field(default=None, description="Last seen at or after")


class Requeue(LetterFilter):
    """Send many letters again, oldest first, at most `limit`, `per_second` of them each second."""

    limit: int = Field(default=100, ge=1, le=10_000)
    per_second: float = Field(default=10.0, ge=0.1, le=1_000, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ends_in_time(self) -> "Requeue":
        if self.limit / self.per_second > _LONGEST_REQUEUE:
            raise ValueError(f"limit / per_second must be at most {_LONGEST_REQUEUE} seconds")
        return self


class TaskOffer(BaseModel):
    """A task that may be sent by name. `parameters` is a JSON schema."""

    name: str
    description: str
    queue: str
    parameters: dict[str, Any]


class TaskSent(BaseModel):
    """The answer to a task that was sent."""

    id: UUID
    name: str
    queue: str
    state: TaskState
    created_at: datetime


class TaskProgress(BaseModel):
    done: int
    total: int | None = None


class TaskRead(TaskSent):
    """Where a task is. EXPIRED: neither a result nor a message is kept any longer.

    `error` is what the last try ended with, also while a task waits for its next. `finished_at` is when it ended.
    """

    progress: TaskProgress | None = None
    result: Any = None
    error: str | None = None
    finished_at: datetime | None = None
    expires_at: datetime


class QueueRead(BaseModel):
    """A queue at this moment; null where the broker does not tell.

    `ready` messages wait; `unacknowledged` ones are with a worker. `workers` answered the last worker check and read this queue.
    `runs_waiting` are tracked runs that are due and that no worker has begun, the oldest since `oldest_run_at`.
    """

    name: str
    ready: int | None
    unacknowledged: int | None
    consumers: int | None
    workers: int
    runs_waiting: int
    oldest_run_at: datetime | None


class QueuesRead(BaseModel):
    """`broker_error` says why the broker's numbers are missing."""

    broker: Literal["redis", "rabbitmq"]
    broker_error: str | None
    queues: list[QueueRead]


class WorkerRead(BaseModel):
    """A worker as it last answered; `alive` when the latest check has heard from it."""

    worker: str
    alive: bool
    queues: list[str]
    pool: str
    concurrency: int | None
    pid: int | None
    processed: int
    uptime_seconds: int | None
    first_seen: datetime
    last_seen: datetime


class HealthPart(BaseModel):
    ok: bool
    detail: str
    seconds: float | None = None


class HealthRead(BaseModel):
    """The newest periodic check. `stale`: it is older than two of its periods, so that nobody checks; `unknown`: there is none."""

    status: Literal["ok", "degraded", "stale", "unknown"]
    checked_at: datetime | None
    age_seconds: float | None
    parts: dict[str, HealthPart]
