"""SQL of users' preferences, and of what the accounts say about whom to tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from backend.core.db import Session
from backend.notifications.models import NotificationPreferences

_PERSON = "select id, username, email from users where id = :id and is_active"

# Who wants no e-mail gets none of many either.
_ADDRESSES = """
select u.id, u.email from users u left join notification_preferences p on p.user_id = u.id
where u.is_active and u.email is not null and u.role = any(:roles) and coalesce(p.email, true) order by u.id
"""


@dataclass(frozen=True, slots=True)
class Person:
    id: UUID
    username: str
    email: str | None


class PeopleRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, user_id: UUID) -> Person | None:
        """An active user."""
        connection = await self._session.connection()
        row = (await connection.execute(text(_PERSON), {"id": user_id})).mappings().first()
        return Person(**row) if row is not None else None

    async def with_email(self, roles: Sequence[str]) -> list[tuple[UUID, str]]:
        """Active users of these roles who want e-mail, and their addresses."""
        connection = await self._session.connection()
        rows = (await connection.execute(text(_ADDRESSES), {"roles": list(roles)})).all()
        return [(row[0], row[1]) for row in rows]

    async def preferences(self, user_id: UUID) -> NotificationPreferences | None:
        query = select(NotificationPreferences).where(col(NotificationPreferences.user_id) == user_id)
        return (await self._session.exec(query.execution_options(populate_existing=True))).first()

    async def save(self, row: NotificationPreferences) -> None:
        values = row.model_dump(exclude={"updated_at"})
        statement = insert(NotificationPreferences).values({**values, "updated_at": func.now()})
        new = {name: getattr(statement.excluded, name) for name in values if name != "user_id"}
        connection = await self._session.connection()
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["user_id"], set_={**new, "updated_at": func.now()})
        )
