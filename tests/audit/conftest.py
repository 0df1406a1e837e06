"""What tests of the audit ask of the database."""

from collections.abc import Awaitable, Callable

import pytest
from sqlmodel import col, select

from backend.audit import service as audit
from backend.audit.models import OperationEntry, OutboxEntry
from backend.core.db import Database
from tests.fixtures.product import Product, eventually

Logged = Callable[..., Awaitable[list[OperationEntry]]]


async def waiting(db: Database) -> list[OutboxEntry]:
    """What stands in the outbox."""
    async with db.transaction() as session:
        return list((await session.exec(select(OutboxEntry).order_by(col(OutboxEntry.at)))).all())


async def operations(db: Database) -> list[OperationEntry]:
    """The log of operations, oldest first."""
    async with db.transaction() as session:
        return list((await session.exec(select(OperationEntry).order_by(col(OperationEntry.at)))).all())


@pytest.fixture
def logged(product: Product) -> Logged:
    """The log, once it has `count` operations; nobody waits for a message."""

    async def look(count: int = 1, *, within: float = 15.0) -> list[OperationEntry]:
        async def there() -> list[OperationEntry] | None:
            await audit.sweep(product.db)
            found = await operations(product.db)
            return found if len(found) >= count else None

        await eventually(there, within=within)
        return await operations(product.db)

    return look
