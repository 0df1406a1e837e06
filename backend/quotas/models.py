"""Tables of the quotas: what people may have transcribed a day, what they have used of it. Instants are UTC, days UTC days."""

from datetime import date, datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, ForeignKey, Index, Integer, Text, Uuid, text
from sqlmodel import Field

from backend.core.db import Base


class ReservationState(StrEnum):
    """`open`: the work is not done yet; `settled`: what it took was used; `released`: it counts nothing."""

    OPEN = "open"
    SETTLED = "settled"
    RELEASED = "released"


def _user(**options: Any) -> Column[Any]:
    return Column(Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, **options)


def _count(kind: type[Integer] = Integer) -> Column[Any]:
    return Column(kind, nullable=False, server_default="0")


def _now() -> Column[Any]:
    return Column(DateTime(timezone=True), nullable=False, server_default=text("now()"))


class QuotaPlan(Base, table=True):
    """What everybody on a plan may use a day; None: no limit. `standard` holds for whoever has no plan, and may have no row."""

    __tablename__: ClassVar[str] = "quota_plans"
    __table_args__ = (CheckConstraint("minutes_per_day >= 0 and files_per_day >= 0", name="limits"),)

    name: str = Field(sa_column=Column(Text, primary_key=True))
    minutes_per_day: int | None = None
    files_per_day: int | None = None
    updated_by: str = Field(sa_type=Text)
    updated_at: datetime = Field(sa_column=_now())


class UserQuota(Base, table=True):
    """Somebody's plan, None for `standard`, and limits of their own, None for the plan's."""

    __tablename__: ClassVar[str] = "user_quotas"
    __table_args__ = (
        CheckConstraint("minutes_per_day >= 0 and files_per_day >= 0", name="limits"),
        Index("ix_user_quotas_plan", "plan"),
    )

    user_id: UUID = Field(sa_column=_user(primary_key=True))
    plan: str | None = Field(
        default=None, sa_column=Column(Text, ForeignKey("quota_plans.name", ondelete="RESTRICT"), nullable=True)
    )
    minutes_per_day: int | None = None
    files_per_day: int | None = None
    updated_by: str = Field(sa_type=Text)
    updated_at: datetime = Field(sa_column=_now())


class QuotaCounter(Base, table=True):
    """What somebody has used and reserved on a day, and what they were given for that day on top of their limits.

    `reserved_*` are the sums of the day's open reservations. The row of a day that is over changes nobody's allowance any more.
    """

    __tablename__: ClassVar[str] = "quota_counters"
    __table_args__ = (
        CheckConstraint("used_ms >= 0 and reserved_ms >= 0 and used_files >= 0 and reserved_files >= 0", name="counts"),
        CheckConstraint("extra_minutes >= 0 and extra_files >= 0", name="extra"),
    )

    user_id: UUID = Field(sa_column=_user(primary_key=True))
    day: date = Field(primary_key=True)
    used_ms: int = Field(default=0, sa_column=_count(BigInteger))
    reserved_ms: int = Field(default=0, sa_column=_count(BigInteger))
    used_files: int = Field(default=0, sa_column=_count())
    reserved_files: int = Field(default=0, sa_column=_count())
    extra_minutes: int = Field(default=0, sa_column=_count())
    extra_files: int = Field(default=0, sa_column=_count())


class QuotaReservation(Base, table=True):
    """What one recording takes of its owner's allowance on `day`, the one it was reserved on; `key` is the recording's id."""

    __tablename__: ClassVar[str] = "quota_reservations"
    __table_args__ = (
        CheckConstraint(f"state in ({','.join(repr(state.value) for state in ReservationState)})", name="state"),
        CheckConstraint("ms >= 0 and files >= 0", name="amount"),
        Index("ix_quota_reservations_user_id_day", "user_id", "day"),
        Index("ix_quota_reservations_open", "updated_at", postgresql_where=text("state = 'open'")),
        Index("ix_quota_reservations_updated_at", "updated_at"),
    )

    key: UUID = Field(primary_key=True)
    user_id: UUID = Field(sa_column=_user())
    day: date
    ms: int = Field(default=0, sa_column=_count(BigInteger))
    files: int = Field(default=0, sa_column=_count())
    state: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_column=_now())
    updated_at: datetime = Field(sa_column=_now())


class QuotaReset(Base, table=True):
    """That the days before `day` are over, and what was used on them: one row a day, whoever reset and however often."""

    __tablename__: ClassVar[str] = "quota_resets"

    day: date = Field(primary_key=True)
    users: int = Field(sa_column=_count(BigInteger))
    used_ms: int = Field(sa_column=_count(BigInteger))
    used_files: int = Field(sa_column=_count(BigInteger))
    kept: int = Field(sa_column=_count(BigInteger))
    reset_at: datetime = Field(sa_column=_now())
