"""Tables of accounts: users, their sessions, API keys and figures, and who has tried to sign in too often."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, DateTime, ForeignKey, Index, Integer, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field

from backend.accounts.words import Bucket
from backend.core.clock import utc_now
from backend.core.db import Base
from backend.core.principal import Role, Scope


def _quoted(values: Any) -> str:
    return ",".join(f"'{value}'" for value in values)


def _now() -> Column[Any]:
    return Column(DateTime(timezone=True), nullable=False, server_default=text("now()"))


def _instant() -> Column[Any]:
    return Column(DateTime(timezone=True), nullable=True)


def _text() -> Column[Any]:
    return Column(Text, nullable=False, server_default="")


def _count() -> Column[Any]:
    return Column(BigInteger, nullable=False, server_default="0")


def _owner(**options: Any) -> Column[Any]:
    return Column(ForeignKey("users.id", ondelete="CASCADE"), nullable=False, **options)


class User(Base, table=True):
    """Somebody with an account. Nobody is deleted, and no name changes: rows everywhere say by name who did what.

    Names and e-mail addresses are ASCII, so that `lower` means the same in PostgreSQL and in Python, whatever the locale.
    """

    __tablename__: ClassVar[str] = "users"
    __table_args__ = (
        CheckConstraint(f"role in ({_quoted(Role)})", name="role"),
        Index("uq_users_username", text("lower(username)"), unique=True),
        Index("uq_users_email", text("lower(email)"), unique=True),
        Index("ix_users_created_at_id", "created_at", "id"),
        Index("ix_users_admins", "id", postgresql_where=text("role = 'admin' and is_active")),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    username: str = Field(sa_type=Text)
    email: str | None = Field(default=None, sa_type=Text)
    display_name: str = Field(default="", sa_column=_text())
    role: str = Field(sa_type=Text)
    password_hash: str = Field(sa_type=Text)
    is_active: bool = Field(default=True, sa_column=Column(Boolean, nullable=False, server_default=text("true")))
    login_count: int = Field(default=0, sa_column=_count())
    last_login_at: datetime | None = Field(default=None, sa_column=_instant())
    password_changed_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    created_by: str = Field(default="", sa_column=_text())
    created_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    updated_at: datetime = Field(default_factory=utc_now, sa_column=_now())


class UserSession(Base, table=True):
    """A sign-in, and all the tokens that came of it.

    Refresh tokens are not stored: each is made from `seed`, its number and the API's own key. `generation` is the number of the one
    that is good now, `rotated_at` when it was made. An earlier one that comes back was stolen, or its successor was: the session
    ends.
    """

    __tablename__: ClassVar[str] = "user_sessions"
    __table_args__ = (
        Index("ix_user_sessions_user_id_created_at_id", "user_id", "created_at", "id"),
        Index("ix_user_sessions_over", text("least(expires_at, revoked_at)")),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    user_id: UUID = Field(sa_column=_owner())
    seed: str = Field(sa_type=Text)
    generation: int = Field(default=1, sa_column=Column(Integer, nullable=False, server_default="1"))
    rotated_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    created_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    last_used_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    expires_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    revoked_at: datetime | None = Field(default=None, sa_column=_instant())
    revoked_why: str = Field(default="", sa_column=_text())
    address: str = Field(default="", sa_column=_text())
    user_agent: str = Field(default="", sa_column=_text())


class ApiKey(Base, table=True):
    """A key for programs. `prefix` finds it, `hash` is the SHA-256 of the whole key: 192 random bits need no slow hash."""

    __tablename__: ClassVar[str] = "api_keys"
    __table_args__ = (
        CheckConstraint(f"cardinality(scopes) > 0 and scopes <@ array[{_quoted(Scope)}]", name="scopes"),
        Index("uq_api_keys_prefix", "prefix", unique=True),
        Index("uq_api_keys_user_id_name", "user_id", "name", unique=True, postgresql_where=text("revoked_at is null")),
        Index("ix_api_keys_over", text("least(expires_at, revoked_at)")),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    user_id: UUID = Field(sa_column=_owner())
    name: str = Field(sa_type=Text)
    prefix: str = Field(sa_type=Text)
    hash: str = Field(sa_type=Text)
    scopes: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    created_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    expires_at: datetime | None = Field(default=None, sa_column=_instant())
    last_used_at: datetime | None = Field(default=None, sa_column=_instant())
    revoked_at: datetime | None = Field(default=None, sa_column=_instant())


class UserStats(Base, table=True):
    """What each user has done, as far as the rows are still kept; written by `sync_user_stats`."""

    __tablename__: ClassVar[str] = "user_stats"

    user_id: UUID = Field(sa_column=_owner(primary_key=True))
    schedules_created: int = Field(default=0, sa_column=_count())
    runs_started: int = Field(default=0, sa_column=_count())
    tasks_sent: int = Field(default=0, sa_column=_count())
    logins: int = Field(default=0, sa_column=_count())
    synced_at: datetime = Field(default_factory=utc_now, sa_column=_now())


class LoginThrottle(Base, table=True):
    """How often a sign-in was tried in vain: for a name, whether anybody has it or not, and from an address.

    `attempts` are those since the last quiet spell; until `locked_until` further ones are refused unseen.
    """

    __tablename__: ClassVar[str] = "login_throttles"
    __table_args__ = (
        CheckConstraint(f"bucket in ({_quoted(Bucket)})", name="bucket"),
        Index("ix_login_throttles_last_attempt_at", "last_attempt_at"),
    )

    bucket: str = Field(sa_column=Column(Text, primary_key=True))
    key: str = Field(sa_column=Column(Text, primary_key=True))
    attempts: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    last_attempt_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    locked_until: datetime | None = Field(default=None, sa_column=_instant())
