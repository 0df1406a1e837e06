"""Noting logins."""

from uuid import UUID, uuid4

from backend.audit.models import Kind, OutboxEntry
from backend.audit.repository.outbox import OutboxRepository
from backend.core.db import Session
from backend.core.logging import request_id
from backend.core.queue import enqueue
from backend.core.redaction import storable

# An index entry of PostgreSQL holds 2,704 bytes, a character takes up to four.
_LONGEST_NAME, _LONGEST_AGENT, _LONGEST_ADDRESS = 255, 300, 64


async def record_login(
    session: Session,
    *,
    username: str,
    outcome: str,
    user_id: UUID | None,
    address: str | None,
    user_agent: str | None,
) -> None:
    """Note a login that was tried, or its end, in the caller's transaction; it reaches the log after the commit.

    Nothing is noted by a transaction that rolls back: a login that is refused must be noted in one that commits. `username` is what
    was typed, `outcome` a word such as `success`, `wrong_password`, `locked`, `logout`. Secrets have no business in either.
    """
    batch = uuid4()
    body = {
        "username": storable(username)[:_LONGEST_NAME],
        "outcome": storable(outcome)[:_LONGEST_NAME],
        "user_id": str(user_id) if user_id is not None else None,
        "address": storable(address)[:_LONGEST_ADDRESS] if address is not None else None,
        "user_agent": storable(user_agent or "")[:_LONGEST_AGENT],
        "request_id": request_id.get().strip("-"),
    }
    await OutboxRepository(session).add(OutboxEntry(kind=Kind.LOGIN, batch=batch, body=body))
    enqueue(session, "log_login", batch=str(batch))
