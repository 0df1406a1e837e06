"""Logins are noted with the transaction that they belong to, and logged once."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlmodel import col, select

from backend.audit import service as audit
from backend.audit.models import LoginEntry, OutboxEntry
from backend.audit.tasks import log_login, log_operation
from backend.core.db import Database
from tests.fixtures.product import Product

ANA = UUID("0" * 31 + "1")


async def note(db: Database, **fields: Any) -> None:
    given: dict[str, Any] = {
        "username": "ana",
        "outcome": "success",
        "user_id": ANA,
        "address": "192.0.2.7",
        "user_agent": "tests/1",
    }
    async with db.transaction() as session:
        await audit.record_login(session, **(given | fields))


async def logged(db: Database) -> list[LoginEntry]:
    async with db.transaction() as session:
        return list((await session.exec(select(LoginEntry).order_by(col(LoginEntry.at)))).all())


async def waiting(db: Database) -> list[OutboxEntry]:
    async with db.transaction() as session:
        return list((await session.exec(select(OutboxEntry).order_by(col(OutboxEntry.at)))).all())


async def test_a_login_is_noted_and_its_task_writes_the_log(product: Product) -> None:
    await note(product.db)
    (wish,) = product.sent.named("log_login")
    assert await logged(product.db) == []
    assert await log_login(product.runtime, batch=str(wish["batch"])) == {"logged": 1}
    (entry,) = await logged(product.db)
    assert (entry.username, entry.outcome, entry.user_id) == ("ana", "success", ANA)
    assert (entry.address, entry.user_agent, entry.request_id) == ("192.0.2.7", "tests/1", "")
    assert await waiting(product.db) == []


async def test_a_second_delivery_and_one_to_the_other_log_change_nothing(product: Product) -> None:
    await note(product.db)
    batch = str(product.sent.named("log_login")[0]["batch"])
    assert await log_operation(product.runtime, batch=batch) == {"logged": 0}
    assert [(await log_login(product.runtime, batch=batch))["logged"] for _ in range(3)] == [1, 0, 0]
    assert len(await logged(product.db)) == 1


async def test_a_login_is_noted_with_its_transaction_or_not_at_all(db: Database) -> None:
    with pytest.raises(RuntimeError):
        async with db.transaction() as session:
            await audit.record_login(
                session, username="ana", outcome="success", user_id=None, address=None, user_agent=None
            )
            raise RuntimeError
    assert await waiting(db) == []


async def test_without_a_broker_nothing_is_lost_and_the_sweep_catches_up(product: Product) -> None:
    product.sent.away = True
    for number in range(25):
        await note(product.db, username=f"user-{number}")
    assert (len(await waiting(product.db)), await logged(product.db), product.sent) == (25, [], [])
    assert await audit.sweep(product.db, batch=10) == 25
    assert [entry.username for entry in await logged(product.db)] == [f"user-{number}" for number in range(25)]
    assert await audit.sweep(product.db) == 0


async def test_whatever_was_typed_can_be_logged(product: Product) -> None:
    for typed in ("", "\x00\ud800", "ä" * 100_000, "😀" * 1_000, "'; drop table login_log; --"):
        await note(product.db, username=typed, user_agent=typed, address=typed, user_id=None)
    assert await audit.sweep(product.db) == 5
    names = [entry.username for entry in await logged(product.db)]
    assert names == ["", "\ufffd\ufffd", "ä" * 255, "😀" * 255, "'; drop table login_log; --"]


async def test_an_unknown_batch_is_no_error(product: Product) -> None:
    assert await log_login(product.runtime, batch=str(uuid4())) == {"logged": 0}
