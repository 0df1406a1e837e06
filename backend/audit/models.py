"""Tables of the audit: what waits to be logged, the log of operations, the log of logins. Instants are UTC."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, Column, DateTime, Float, Index, SmallInteger, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from backend.audit.append_only import protect
from backend.core.clock import utc_now
from backend.core.db import Base


class Kind(StrEnum):
    """Which log an entry is for."""

    OPERATION = "operation"
    LOGIN = "login"


def _at() -> Column[Any]:
    return Column(DateTime(timezone=True), nullable=False)


def _text() -> Column[Any]:
    return Column(Text, nullable=False, server_default="")


def _json() -> Column[Any]:
    return Column(JSONB(none_as_null=True), nullable=False, server_default=text("'{}'"))


class OutboxEntry(Base, table=True):
    """An entry on its way into its log; `body` holds the log's other columns. `batch`: those that were stored together."""

    __tablename__: ClassVar[str] = "audit_outbox"
    __table_args__ = (
        CheckConstraint("kind in ('operation','login')", name="kind"),
        Index("ix_audit_outbox_batch", "batch"),
        Index("ix_audit_outbox_at", "at"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    kind: str = Field(sa_type=Text)
    batch: UUID
    at: datetime = Field(default_factory=utc_now, sa_column=_at())
    body: dict[str, Any] = Field(default_factory=dict, sa_column=_json())


class OperationEntry(Base, table=True):
    """A request or a command that may have changed something, as it ended. The log outlives users: their ids refer to nothing.

    `actor_kind` is `user`, `api_key`, `service`, `command`, or `anonymous` for who showed nothing that this API knows;
    `credential_id` is the API key or the session. `route` is the template of `path`, empty where no route took it; `params` the
    values of its parts. `request` holds `query` and `body`, secrets and phone numbers replaced. `duration_ms` runs until the last
    byte of the answer.
    """

    __tablename__: ClassVar[str] = "operation_log"
    __table_args__ = (
        Index("ix_operation_log_at_id", "at", "id"),
        *(
            Index(f"ix_operation_log_{column}_at_id", column, "at", "id")
            for column in ("actor", "user_id", "route", "path", "status", "address", "request_id")
        ),
    )

    id: UUID = Field(primary_key=True)
    at: datetime = Field(sa_column=_at())
    actor_kind: str = Field(sa_type=Text)
    actor: str = Field(default="", sa_column=_text())
    user_id: UUID | None = None
    credential_id: UUID | None = None
    method: str = Field(sa_type=Text)
    route: str = Field(default="", sa_column=_text())
    path: str = Field(sa_type=Text)
    params: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    status: int = Field(sa_column=Column(SmallInteger, nullable=False))
    duration_ms: float = Field(sa_column=Column(Float, nullable=False))
    address: str | None = Field(default=None, sa_type=Text)
    user_agent: str = Field(default="", sa_column=_text())
    request_id: str = Field(default="", sa_column=_text())
    request: dict[str, Any] = Field(default_factory=dict, sa_column=_json())


class LoginEntry(Base, table=True):
    """A login that was tried, or its end. `username` is what was typed, whether or not there is such a user."""

    __tablename__: ClassVar[str] = "login_log"
    __table_args__ = (
        Index("ix_login_log_at_id", "at", "id"),
        *(
            Index(f"ix_login_log_{column}_at_id", column, "at", "id")
            for column in ("username", "user_id", "outcome", "address", "request_id")
        ),
    )

    id: UUID = Field(primary_key=True)
    at: datetime = Field(sa_column=_at())
    username: str = Field(sa_type=Text)
    outcome: str = Field(sa_type=Text)
    user_id: UUID | None = None
    address: str | None = Field(default=None, sa_type=Text)
    user_agent: str = Field(default="", sa_column=_text())
    request_id: str = Field(default="", sa_column=_text())


for _log in ("operation_log", "login_log"):
    protect(Base.metadata.tables[_log])
