"""SQL of reservations and counters. Who locks both locks the reservation first: then nobody waits in a circle."""

from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import text

from backend.core.db import Session
from backend.quotas.models import ReservationState
from backend.quotas.repository.standings import TODAY

_RETURNED = f"returning r.key, r.user_id, r.day, r.ms, r.files, r.state, {TODAY} as today"

# ruff: noqa: S608 - put together from constants
# The update changes nothing but locks the row, which another may have made a moment ago. A new one counts nothing yet.
_CLAIM = f"""
insert into quota_reservations as r (key, user_id, day, state)
select cast(:key as uuid), u.id, {TODAY}, 'released' from users u where u.id = :user_id
on conflict (key) do update set state = r.state
{_RETURNED}
"""

_LOCK = f"update quota_reservations r set state = r.state where key = :key {_RETURNED}"

_LOCK_COUNTER = """
insert into quota_counters as c (user_id, day) values (:user_id, :day)
on conflict (user_id, day) do update set day = c.day
"""

_WRITE = """
update quota_reservations set user_id = :user_id, day = :day, ms = :ms, files = :files, state = :state, updated_at = now()
where key = :key
"""

_COUNT = """
update quota_counters set used_ms = used_ms + :used_ms, used_files = used_files + :used_files,
    reserved_ms = reserved_ms + :reserved_ms, reserved_files = reserved_files + :reserved_files
where user_id = :user_id and day = :day
"""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A row that is locked; `today` is the database's day."""

    key: UUID
    user_id: UUID
    day: date
    ms: int
    files: int
    state: str
    today: date

    @property
    def is_open(self) -> bool:
        return self.state == ReservationState.OPEN


class SpendingRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def claim(self, key: UUID, user_id: UUID) -> Reservation | None:
        """The locked reservation of `key`, made if there is none; None where there is no such user."""
        return await self._one(_CLAIM, key=key, user_id=user_id)

    async def lock(self, key: UUID) -> Reservation | None:
        return await self._one(_LOCK, key=key)

    async def lock_counter(self, user_id: UUID, day: date) -> None:
        """Make it where there is none; from now on nobody else counts on it, to the end of the transaction."""
        await self._run(_LOCK_COUNTER, user_id=user_id, day=day)

    async def write(self, key: UUID, *, user_id: UUID, day: date, ms: int, files: int, state: ReservationState) -> None:
        await self._run(_WRITE, key=key, user_id=user_id, day=day, ms=ms, files=files, state=state)

    async def count(
        self,
        user_id: UUID,
        day: date,
        *,
        used_ms: int = 0,
        used_files: int = 0,
        reserved_ms: int = 0,
        reserved_files: int = 0,
    ) -> None:
        """Add to the counters of a day, which are gone where the day is long over."""
        given = {"used_ms": used_ms, "used_files": used_files, "reserved_ms": reserved_ms}
        await self._run(_COUNT, user_id=user_id, day=day, reserved_files=reserved_files, **given)

    async def _one(self, statement: str, **given: Any) -> Reservation | None:
        row = (await (await self._session.connection()).execute(text(statement), given)).mappings().first()
        return Reservation(**row) if row is not None else None

    async def _run(self, statement: str, **given: Any) -> None:
        await (await self._session.connection()).execute(text(statement), given)
