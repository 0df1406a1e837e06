"""SQL of templates."""

from sqlalchemy import func
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from backend.core.db import Session
from backend.jobs.models import JobSchedule, JobTemplate


class TemplateRepository:
    """Templates and who uses them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, template_id: int) -> JobTemplate | None:
        return await self._session.get(JobTemplate, template_id)

    async def lock(self, template_id: int) -> JobTemplate | None:
        return await self._session.get(JobTemplate, template_id, with_for_update=True, populate_existing=True)

    async def lock_shared(self, template_id: int) -> JobTemplate | None:
        """Keep a template as it is until the transaction ends, while others may do the same."""
        query = select(JobTemplate).where(JobTemplate.id == template_id).with_for_update(read=True)
        return (await self._session.exec(query.execution_options(populate_existing=True))).first()

    async def save(self, template: JobTemplate) -> bool:
        """Insert or update now; False when the name is taken."""
        try:
            async with self._session.begin_nested():
                self._session.add(template)
                await self._session.flush()
        except IntegrityError as fault:
            if "uq_job_templates_name" not in str(fault.orig):
                raise
            return False
        return True

    async def page(self, *, kind: str | None, q: str | None, before: int | None, limit: int) -> list[JobTemplate]:
        query = select(JobTemplate).order_by(col(JobTemplate.id).desc()).limit(limit)
        if kind is not None:
            query = query.where(JobTemplate.kind == kind)
        if q is not None:
            query = query.where(col(JobTemplate.name).icontains(q, autoescape=True))
        if before is not None:
            query = query.where(col(JobTemplate.id) < before)
        return list((await self._session.exec(query)).all())

    async def counts(self, template_ids: list[int]) -> dict[int, int]:
        """How many schedules use each."""
        template = col(JobSchedule.job_template_id)
        query = select(template, func.count()).where(template.in_(template_ids)).group_by(template)
        return {row[0]: row[1] for row in (await self._session.exec(query)).all() if row[0] is not None}

    async def users(self, template_id: int, limit: int) -> list[str]:
        """Names of schedules that use it."""
        query = select(JobSchedule.name).where(JobSchedule.job_template_id == template_id)
        return list((await self._session.exec(query.order_by(col(JobSchedule.id)).limit(limit))).all())

    async def delete(self, template: JobTemplate) -> None:
        await self._session.delete(template)
        await self._session.flush()
