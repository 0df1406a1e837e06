"""SQL of the outbox: in, and over into the logs."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text

from backend.audit.models import Kind, LoginEntry, OperationEntry, OutboxEntry
from backend.core.db import Session

_TARGETS: dict[Kind, tuple[str, type[OperationEntry] | type[LoginEntry]]] = {
    Kind.OPERATION: ("operation_log", OperationEntry),
    Kind.LOGIN: ("login_log", LoginEntry),
}
_TYPES = {
    "user_id": "uuid",
    "credential_id": "uuid",
    "params": "jsonb",
    "request": "jsonb",
    "status": "smallint",
    "duration_ms": "double precision",
}


def _move(kind: Kind, chosen: str) -> str:
    """Delete the chosen entries and insert them into their log, in one statement. Who comes second finds nothing."""
    table, model = _TARGETS[kind]
    names = [name for name in model.model_fields if name not in {"id", "at"}]
    columns, members = ", ".join(names), ", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in names)
    given = ", ".join(f"b.{name}" for name in names)
    # ruff: noqa: S608 - put together from the names above, never from values
    return f"""
    with chosen as materialized (
        select id from audit_outbox where kind = '{kind}' {chosen} for update skip locked
    ), moved as (
        delete from audit_outbox o using chosen c where o.id = c.id returning o.id, o.at, o.body
    )
    insert into {table} (id, at, {columns})
    select m.id, m.at, {given} from moved m, jsonb_to_record(m.body) as b({members})
    on conflict (id) do nothing
    """


_MOVE_BATCH = {kind: _move(kind, "and batch = :batch") for kind in Kind}
_MOVE_OLDEST = {kind: _move(kind, "order by at limit :limit") for kind in Kind}


_ADD = """
insert into audit_outbox (id, kind, batch, at, body)
select r.id, :kind, :batch, r.at, r.body
from jsonb_to_recordset(cast(cast(:rows as text) as jsonb)) as r(id uuid, at timestamptz, body jsonb)
on conflict (id) do nothing
"""


class OutboxRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, entry: OutboxEntry) -> None:
        self._session.add(entry)
        await self._session.flush()

    async def add_many(self, kind: Kind, batch: UUID, rows: Sequence[dict[str, Any]]) -> None:
        """Rows of `id`, `at` (ISO 8601) and `body`; one that is here already stays as it is."""
        await self._count(_ADD, {"kind": str(kind), "batch": batch, "rows": json.dumps(rows)})

    async def move_batch(self, kind: Kind, batch: UUID) -> int:
        """Move the entries of a batch that are still here and in nobody's hands; how many."""
        return await self._count(_MOVE_BATCH[kind], {"batch": batch})

    async def move_oldest(self, kind: Kind, limit: int) -> int:
        """Move the oldest entries that are in nobody's hands; how many."""
        return await self._count(_MOVE_OLDEST[kind], {"limit": limit})

    async def _count(self, statement: str, values: dict[str, Any]) -> int:
        connection = await self._session.connection()
        return int((await connection.execute(text(statement), values)).rowcount)
