"""The table of caches' settings. Instants are UTC, intervals seconds."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, Column, DateTime, Text, text
from sqlmodel import Field

from backend.caches.kinds import LONGEST, SHORTEST
from backend.core.db import Base


def _instant(*, nullable: bool) -> Column[Any]:
    return Column(DateTime(timezone=True), nullable=nullable, server_default=None if nullable else text("now()"))


class CacheSchedule(Base, table=True):
    """Whether and how often a cache is refreshed. `next_at` is when it is due; `started_at` when its task was last sent."""

    __tablename__: ClassVar[str] = "cache_schedules"
    __table_args__ = (CheckConstraint(f"interval_seconds between {SHORTEST} and {LONGEST}", name="interval"),)

    kind: str = Field(sa_column=Column(Text, primary_key=True))
    enabled: bool = True
    interval_seconds: int
    next_at: datetime = Field(sa_column=_instant(nullable=False))
    started_at: datetime | None = Field(default=None, sa_column=_instant(nullable=True))
    updated_by: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    updated_at: datetime = Field(sa_column=_instant(nullable=False))
