"""SQL of the tasks that the API has sent."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from backend.core.db import Session
from backend.queues.models import SentTask


class SentTaskRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, task_id: UUID) -> SentTask | None:
        return await self._session.get(SentTask, task_id, populate_existing=True)

    async def find_by_key(self, idempotency_key: str) -> SentTask | None:
        query = select(SentTask).where(SentTask.idempotency_key == idempotency_key)
        return (await self._session.exec(query.execution_options(populate_existing=True))).first()

    async def add(self, row: SentTask) -> bool:
        """False where the key is taken."""
        statement = insert(SentTask).values(row.model_dump()).on_conflict_do_nothing().returning(col(SentTask.id))
        connection = await self._session.connection()
        return (await connection.execute(statement)).first() is not None

    async def claim(self, task_id: UUID, lasting: timedelta) -> bool:
        """Whether it is now this caller who may send it: nobody has, and whoever tried has had their time."""
        query = update(SentTask).where(col(SentTask.id) == task_id, col(SentTask.sent_at).is_(None))
        query = query.where(col(SentTask.claimed_until) < func.now()).values(claimed_until=func.now() + lasting)
        connection = await self._session.connection()
        return (await connection.execute(query)).rowcount > 0

    async def mark_sent(self, task_id: UUID) -> None:
        connection = await self._session.connection()
        await connection.execute(update(SentTask).where(col(SentTask.id) == task_id).values(sent_at=func.now()))

    async def release(self, task_id: UUID) -> None:
        """It could not be sent: the next request of its key may try at once."""
        connection = await self._session.connection()
        query = update(SentTask).where(col(SentTask.id) == task_id, col(SentTask.sent_at).is_(None))
        await connection.execute(query.values(claimed_until=func.now() - timedelta(seconds=1)))

    async def remove(self, task_id: UUID) -> None:
        connection = await self._session.connection()
        await connection.execute(delete(SentTask).where(col(SentTask.id) == task_id))
