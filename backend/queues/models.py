"""Tables of the queues: dead letters, what the tasks API has sent, workers' heartbeats, health checks.

`backend/core/dead_letters.py` writes dead letters by SQL of its own: a column that is renamed here is renamed there.
"""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Identity, Index, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from backend.core.clock import utc_now
from backend.core.db import Base
from backend.core.dead_letters import Incomplete, Kind
from backend.queues.states import LetterState, sql_list


def _json(empty: str = "{}") -> Column[Any]:
    return Column(JSONB(none_as_null=True), nullable=False, server_default=text(f"'{empty}'"))


def _now() -> Column[Any]:
    return Column(DateTime(timezone=True), nullable=False, server_default=text("now()"))


def _text() -> Column[Any]:
    return Column(Text, nullable=False, server_default="")


class DeadLetter(Base, table=True):
    """A task that ended for good. `count` ends: its own, and those of the messages that it was sent again as.

    `incomplete` says why the arguments are not whole and cannot be sent again; `death` names the last end that was counted.
    `requeued_task_id` is the task id of the message that it was last sent again as.
    """

    __tablename__: ClassVar[str] = "dead_letters"
    __table_args__ = (
        CheckConstraint(f"kind in {sql_list(Kind)}", name="kind"),
        CheckConstraint(f"state in {sql_list(LetterState)}", name="state"),
        CheckConstraint(f"incomplete in {sql_list(Incomplete)}", name="incomplete"),
        Index("uq_dead_letters_task_id", "task_id", unique=True),
        Index("ix_dead_letters_last_seen_id", "last_seen", "id"),
        Index("ix_dead_letters_first_seen_id_open", "first_seen", "id", postgresql_where=text("state = 'open'")),
        Index("ix_dead_letters_task_last_seen", "task", "last_seen"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    task: str = Field(sa_type=Text)
    task_id: str = Field(sa_type=Text)
    queue: str = Field(default="", sa_column=_text())
    kind: str = Field(sa_type=Text)
    arguments: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    incomplete: str | None = Field(default=None, sa_type=Text)
    error: str = Field(default="", sa_column=_text())
    traceback: str = Field(default="", sa_column=_text())
    retries: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    death: str = Field(default="", sa_column=_text())
    first_seen: datetime = Field(default_factory=utc_now, sa_column=_now())
    last_seen: datetime = Field(default_factory=utc_now, sa_column=_now())
    count: int = Field(default=1, sa_column=Column(Integer, nullable=False, server_default="1"))
    state: str = Field(default=LetterState.OPEN, sa_column=Column(Text, nullable=False, server_default="open"))
    requeued_task_id: str | None = Field(default=None, sa_type=Text)
    requeue_count: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    closed_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True), nullable=True))
    closed_by: str = Field(default="", sa_column=_text())


class SentTask(Base, table=True):
    """A task that the API has sent; its id is the Celery task id, its state and result stand in the result store.

    `sent_at` is null until the broker has taken it; `claimed_until` keeps other requests of the same key from sending it, too.
    `fingerprint` is a hash of name and arguments: the key of another wish is refused.
    """

    __tablename__: ClassVar[str] = "sent_tasks"
    __table_args__ = (
        Index(
            "uq_sent_tasks_idempotency_key",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key is not null"),
        ),
        Index("ix_sent_tasks_created_at_id", "created_at", "id"),
    )

    id: UUID = Field(primary_key=True)
    name: str = Field(sa_type=Text)
    queue: str = Field(sa_type=Text)
    fingerprint: str = Field(sa_type=Text)
    idempotency_key: str | None = Field(default=None, sa_type=Text)
    sent_by: str = Field(default="", sa_column=_text())
    created_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    claimed_until: datetime = Field(default_factory=utc_now, sa_column=_now())
    sent_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True), nullable=True))
    expires_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))


class WorkerHeartbeat(Base, table=True):
    """A worker that has answered: when first and when last, and what it said of itself then."""

    __tablename__: ClassVar[str] = "worker_heartbeats"
    __table_args__ = (Index("ix_worker_heartbeats_last_seen", "last_seen"),)

    worker: str = Field(sa_column=Column(Text, primary_key=True))
    queues: list[str] = Field(default_factory=list, sa_column=_json("[]"))
    pool: str = Field(default="", sa_column=_text())
    concurrency: int | None = None
    pid: int | None = None
    processed: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    uptime_seconds: int | None = None
    first_seen: datetime = Field(default_factory=utc_now, sa_column=_now())
    last_seen: datetime = Field(default_factory=utc_now, sa_column=_now())


class HealthCheck(Base, table=True):
    """What the periodic check found: whether everything was well, and each part by name."""

    __tablename__: ClassVar[str] = "health_checks"
    __table_args__ = (Index("ix_health_checks_at", "at"),)

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(), primary_key=True))
    at: datetime = Field(default_factory=utc_now, sa_column=_now())
    healthy: bool
    parts: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
