"""One place commits, and what was enqueued is sent after it."""

import logging

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlmodel import select

from backend.calls.models import Customer
from backend.core.db import Database, is_outage
from backend.core.queue import enqueue
from devstack.servers import PostgresServer
from tests.fixtures.sent import Sent


def customer(ref: str) -> Customer:
    return Customer(external_ref=ref, full_name="A", phone_e164="+919800000200", timezone="Asia/Kolkata")


async def names(db: Database) -> list[str]:
    async with db.transaction() as session:
        return sorted((await session.exec(select(Customer.external_ref))).all())


async def test_a_message_is_sent_after_the_commit_and_not_before(db: Database, sent: Sent) -> None:
    async with db.transaction() as session:
        session.add(customer("a"))
        enqueue(session, "call_customer", customer_id="a")
        assert sent == []
    assert sent == [("call_customer", {"customer_id": "a"})]
    assert await names(db) == ["a"]


async def test_a_rollback_drops_rows_and_messages(db: Database, sent: Sent) -> None:
    with pytest.raises(RuntimeError):
        async with db.transaction() as session:
            session.add(customer("a"))
            enqueue(session, "call_customer", customer_id="a")
            raise RuntimeError
    assert sent == []
    assert await names(db) == []


async def test_a_commit_that_fails_sends_nothing(db: Database, sent: Sent) -> None:
    with pytest.raises(IntegrityError):
        async with db.transaction() as session:
            enqueue(session, "call_customer", customer_id="a")
            session.add(customer("same"))
            session.add(customer("same"))
    assert sent == []


async def test_an_error_does_not_quote_what_was_to_be_written(db: Database) -> None:
    with pytest.raises(IntegrityError) as fault:
        async with db.transaction() as session:
            session.add_all([customer("same"), customer("same")])
    assert "+919800000200" not in str(fault.value)


async def test_a_broker_that_is_away_does_not_undo_the_commit(
    db: Database, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    sent.away = True
    with caplog.at_level(logging.WARNING):
        async with db.transaction() as session:
            session.add(customer("a"))
            enqueue(session, "call_customer", customer_id="a")
    assert await names(db) == ["a"]
    assert "left to the sweep: call_customer" in caplog.text


async def test_the_database_itself_refuses_a_number_that_is_not_e164(db: Database) -> None:
    with pytest.raises(IntegrityError, match="ck_customers_phone_e164"):
        async with db.transaction() as session:
            row = customer("a")
            row.phone_e164 = "1600"
            session.add(row)


@pytest.mark.parametrize(
    ("fault", "outage"),
    [
        (PoolTimeoutError(), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (IntegrityError("insert", {}, Exception("duplicate")), False),
        (ValueError(), False),
    ],
)
def test_a_database_that_is_away_or_used_up_is_told_from_a_mistake(fault: Exception, outage: bool) -> None:
    assert is_outage(fault) is outage


async def test_a_server_that_takes_no_more_connections_is_away(db: Database, postgres: PostgresServer) -> None:
    async with db.transaction() as session:
        connection = await session.connection()
        await connection.execute(text("drop role if exists one_guest"))
        await connection.execute(text("create role one_guest login connection limit 1"))
    url = make_url(postgres.url).set(username="one_guest", password=None).render_as_string(hide_password=False)
    first, second = Database(url, pool_size=1), Database(url, pool_size=1)
    try:
        async with first.transaction() as session:
            await session.connection()
            with pytest.raises(DBAPIError, match="too many connections") as refused:
                await second.ping()
        assert is_outage(refused.value)
        await first.close()
        await second.ping()
    finally:
        await first.close()
        await second.close()
