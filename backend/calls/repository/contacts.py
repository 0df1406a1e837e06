"""SQL of customers and the do-not-call list."""

from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from backend.calls.models import Customer, DoNotCall
from backend.core.db import Session


class ContactRepository:
    """Whom to call, and whom not."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def find_customer(self, customer_id: UUID) -> Customer | None:
        return await self._session.get(Customer, customer_id)

    async def is_do_not_call(self, phone_e164: str) -> bool:
        query = select(DoNotCall.id).where(DoNotCall.phone_e164 == phone_e164, col(DoNotCall.revoked_at).is_(None))
        return (await self._session.exec(query)).first() is not None

    async def add_do_not_call(self, phone_e164: str, *, source: str, reason: str, call_id: UUID | None = None) -> bool:
        """Never dial this number again; False when it stood there already."""
        fresh = (
            insert(DoNotCall)
            .values(
                id=func.gen_random_uuid(),
                phone_e164=phone_e164,
                source=source,
                reason=reason,
                call_id=call_id,
                created_at=func.now(),
            )
            .on_conflict_do_nothing(index_elements=["phone_e164"], index_where=col(DoNotCall.revoked_at).is_(None))
        )
        connection = await self._session.connection()
        return (await connection.execute(fresh)).rowcount == 1

    async def revoke_do_not_call(self, phone_e164: str) -> bool:
        """Allow a number again; False when it was not on the list. The row stays as evidence."""
        change = (
            update(DoNotCall)
            .where(col(DoNotCall.phone_e164) == phone_e164, col(DoNotCall.revoked_at).is_(None))
            .values(revoked_at=func.now())
        )
        connection = await self._session.connection()
        return bool((await connection.execute(change)).rowcount)

    async def mark_phone_invalid(self, customer_id: UUID) -> None:
        customer = await self._session.get(Customer, customer_id, with_for_update=True)
        if customer is not None:
            customer.phone_status = "invalid"
