"""SQL of alerts."""

from sqlalchemy import func, update
from sqlmodel import col, select
from sqlmodel.sql.expression import Select

from backend.core.db import Session
from backend.jobs.models import JobAlert, JobSchedule

Row = tuple[JobAlert, str, str]


class AlertRepository:
    """Alerts with the name and the zone of their schedules."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, alert_id: int) -> Row | None:
        row = (await self._session.exec(self._rows().where(JobAlert.id == alert_id))).first()
        return (row[0], row[1], row[2]) if row else None

    async def page(self, *, is_open: bool | None, schedule_id: int | None, before: int | None, limit: int) -> list[Row]:
        """Newest first."""
        query = self._rows().order_by(col(JobAlert.id).desc()).limit(limit)
        if is_open is not None:
            resolved = col(JobAlert.resolved_at)
            query = query.where(resolved.is_(None) if is_open else resolved.is_not(None))
        if schedule_id is not None:
            query = query.where(JobAlert.schedule_id == schedule_id)
        if before is not None:
            query = query.where(col(JobAlert.id) < before)
        return [(row[0], row[1], row[2]) for row in (await self._session.exec(query)).all()]

    async def resolve(self, schedule_id: int) -> None:
        """Close the schedule's open alert, if there is one."""
        query = update(JobAlert).where(col(JobAlert.schedule_id) == schedule_id, col(JobAlert.resolved_at).is_(None))
        connection = await self._session.connection()
        await connection.execute(query.values(resolved_at=func.now()))

    def _rows(self) -> Select[JobAlert, str, str]:
        return select(JobAlert, JobSchedule.name, JobSchedule.timezone).join(
            JobSchedule, col(JobSchedule.id) == JobAlert.schedule_id
        )
