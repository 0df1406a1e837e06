"""SQL of schedules."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.sql.expression import Select

from backend.core.db import Session
from backend.jobs.models import JobSchedule, JobTemplate

Row = tuple[JobSchedule, JobTemplate | None]


class ScheduleRepository:
    """Schedules with their templates."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def now(self) -> datetime:
        """The database's clock, this very moment: after a wait for a lock, too."""
        connection = await self._session.connection()
        at: datetime = (await connection.execute(text("select clock_timestamp()"))).scalar_one()
        return at

    async def find(self, schedule_id: int) -> Row | None:
        query = self._rows().where(JobSchedule.id == schedule_id)
        row = (await self._session.exec(query.execution_options(populate_existing=True))).first()
        return (row[0], row[1]) if row else None

    async def lock(self, schedule_id: int) -> JobSchedule | None:
        """`for no key update`, as the dispatcher: inserting runs goes on elsewhere, claiming does not."""
        query = select(JobSchedule).where(JobSchedule.id == schedule_id).with_for_update(key_share=True)
        return (await self._session.exec(query.execution_options(populate_existing=True))).first()

    async def lock_of_template(self, template_id: int) -> Sequence[JobSchedule]:
        query = select(JobSchedule).where(JobSchedule.job_template_id == template_id).order_by(col(JobSchedule.id))
        locked = query.with_for_update(key_share=True).execution_options(populate_existing=True)
        return (await self._session.exec(locked)).all()

    async def save(self, schedule: JobSchedule) -> bool:
        """Insert or update now; False when the name is taken."""
        try:
            async with self._session.begin_nested():
                self._session.add(schedule)
                await self._session.flush()
        except IntegrityError as fault:
            if "uq_job_schedules_name" not in str(fault.orig):
                raise
            return False
        return True

    async def free_name(self, wanted: str) -> str:
        """`wanted`, or the first of `wanted (2)`, `wanted (3)` … that is free; others who ask for the same wait for us."""
        connection = await self._session.connection()
        await connection.execute(text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": wanted})
        like = select(JobSchedule.name).where(col(JobSchedule.name).startswith(wanted, autoescape=True))
        taken = set((await self._session.exec(like)).all())
        number, name = 1, wanted
        while name in taken:
            number += 1
            name = f"{wanted} ({number})"
        return name

    async def page(
        self,
        *,
        kind: str | None,
        task: str | None,
        managed_by: str | None,
        is_active: bool | None,
        template_id: int | None,
        q: str | None,
        before: int | None,
        limit: int,
    ) -> list[Row]:
        """Newest first. A `kind` is that of the template or, for those without one, the kind whose task is `task`."""
        query = self._rows().order_by(col(JobSchedule.id).desc()).limit(limit)
        if kind is not None:
            own = col(JobSchedule.job_template_id).is_(None) & (col(JobSchedule.task) == task)
            query = query.where((col(JobTemplate.kind) == kind) | own)
        if managed_by is not None:
            query = query.where(JobSchedule.managed_by == managed_by)
        if is_active is not None:
            query = query.where(JobSchedule.is_active == is_active)
        if template_id is not None:
            query = query.where(JobSchedule.job_template_id == template_id)
        if q is not None:
            query = query.where(col(JobSchedule.name).icontains(q, autoescape=True))
        if before is not None:
            query = query.where(col(JobSchedule.id) < before)
        return [(row[0], row[1]) for row in (await self._session.exec(query)).all()]

    async def counts(self) -> dict[bool, int]:
        query = select(JobSchedule.is_active, func.count()).group_by(col(JobSchedule.is_active))
        return {row[0]: row[1] for row in (await self._session.exec(query)).all()}

    async def delete(self, schedule: JobSchedule) -> None:
        await self._session.delete(schedule)
        await self._session.flush()

    async def wake_dispatcher(self) -> None:
        """Once the transaction commits, every dispatcher looks at the schedules and runs anew."""
        connection = await self._session.connection()
        await connection.execute(text("select pg_notify('beatline_schedules', '')"))

    def _rows(self) -> Select[JobSchedule, JobTemplate]:
        return select(JobSchedule, JobTemplate).join(
            JobTemplate, col(JobTemplate.id) == JobSchedule.job_template_id, isouter=True
        )
