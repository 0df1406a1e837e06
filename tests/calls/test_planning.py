"""Planning, and who is due."""

import asyncio
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlmodel import col, select, update

from backend.calls import service as calls
from backend.calls.models import Customer, Policy, ScheduledCall
from backend.calls.schemas import PendingCustomer, PlanRead
from backend.config import Config, load
from backend.core.clock import utc_now
from backend.core.db import Database
from tests.factories.people import add_customer

ALWAYS = {"CALLS_WINDOW": "00:00-24:00", "CALLS_WINDOW_LIMIT": "00:00-24:00"}
CONFIG = load(ALWAYS)


async def plan(db: Database, config: Config = CONFIG, day: date | None = None, horizon: int | None = None) -> PlanRead:
    async with db.transaction() as session:
        return await calls.plan(session, config=config, day=day, horizon_days=horizon)


async def pending(
    db: Database, config: Config = CONFIG, *, claim: bool = False, limit: int = 100
) -> list[PendingCustomer]:
    async with db.transaction() as session:
        return await calls.pending(session, config=config, limit=limit, claim=claim)


async def statuses(db: Database) -> dict[str, str | None]:
    """Status of every scheduled call, with its reason."""
    async with db.transaction() as session:
        rows = (await session.exec(select(ScheduledCall.status, ScheduledCall.reason))).all()
        return {row[0]: row[1] for row in rows}


async def test_policies_that_expire_within_the_horizon_are_planned_once(db: Database) -> None:
    await add_customer(db, expires_in_days=1)
    await add_customer(db, expires_in_days=29)
    await add_customer(db, expires_in_days=40)
    await add_customer(db, expires_in_days=-3)
    assert await plan(db) == PlanRead(planned=2, skipped={})
    assert await plan(db) == PlanRead(planned=0, skipped={})


async def test_ten_plannings_at_once_plan_each_policy_once(db: Database) -> None:
    for _ in range(20):
        await add_customer(db)
    done = await asyncio.gather(*(plan(db) for _ in range(10)))
    assert sum(each.planned for each in done) == 20


async def test_the_customers_own_calendar_decides_which_day_it_is(db: Database) -> None:
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        customer = await add_customer(db, timezone=zone)
        today = utc_now().astimezone(ZoneInfo(zone)).date()
        async with db.transaction() as session:
            await session.exec(update(Policy).where(col(Policy.customer_id) == customer).values(expiry_date=today))
    assert (await plan(db, horizon=0)).planned == 2


async def test_a_day_and_a_horizon_can_be_given(db: Database) -> None:
    await add_customer(db, expires_in_days=100)
    day = (utc_now() + timedelta(days=95)).date()
    assert (await plan(db, day=day, horizon=10)).planned == 1


async def test_a_number_on_the_do_not_call_list_is_skipped_and_says_so(db: Database) -> None:
    await add_customer(db, do_not_call=True)
    assert await plan(db) == PlanRead(planned=0, skipped={"do_not_call": 1})
    assert await statuses(db) == {"skipped": "do_not_call"}
    assert await pending(db) == []


async def test_an_invalid_number_is_skipped_and_says_so(db: Database) -> None:
    await add_customer(db, phone_status="invalid")
    assert await plan(db) == PlanRead(planned=0, skipped={"invalid_phone": 1})


async def test_a_renewed_policy_gets_a_new_call_for_its_new_expiry(db: Database) -> None:
    await add_customer(db)
    await plan(db)
    async with db.transaction() as session:
        await session.exec(update(Policy).values(expiry_date=(utc_now() + timedelta(days=20)).date()))
    assert (await plan(db)).planned == 1
    async with db.transaction() as session:
        rows = (await session.exec(select(ScheduledCall).order_by(col(ScheduledCall.created_at)))).all()
    assert [(row.status, row.reason) for row in rows] == [("skipped", "policy_not_active"), ("pending", None)]


async def test_reading_who_is_due_claims_nobody(db: Database) -> None:
    await add_customer(db)
    await plan(db)
    assert len(await pending(db)) == len(await pending(db)) == 1


async def test_two_claimants_at_once_get_different_customers(db: Database) -> None:
    for _ in range(8):
        await add_customer(db)
    await plan(db)
    pages = await asyncio.gather(*(pending(db, claim=True, limit=2) for _ in range(4)))
    claimed = [item.scheduled_call_id for page in pages for item in page]
    assert len(claimed) == len(set(claimed)) == 8


async def test_no_more_are_given_out_than_the_trunk_has_lines(db: Database) -> None:
    for _ in range(5):
        await add_customer(db)
    await plan(db)
    three = load({**ALWAYS, "CALLS_MAX_CONCURRENT": "3"})
    assert len(await pending(db, three, claim=True)) == 3
    assert await pending(db, three, claim=True) == []


async def test_an_expired_claim_can_be_claimed_again_with_the_same_attempt(db: Database) -> None:
    await add_customer(db)
    await plan(db)
    first = await pending(db, claim=True)
    async with db.transaction() as session:
        await session.exec(update(ScheduledCall).values(claimed_until=utc_now() - timedelta(seconds=1)))
    async with db.transaction() as session:
        assert await calls.release_expired(session) == 1
    second = await pending(db, claim=True)
    assert [(i.scheduled_call_id, i.attempt_no) for i in second] == [(i.scheduled_call_id, i.attempt_no) for i in first]


async def test_nobody_is_due_outside_the_window_of_their_own_zone(db: Database) -> None:
    zone = "Asia/Kolkata"
    await add_customer(db, timezone=zone)
    await plan(db)
    now = utc_now().astimezone(ZoneInfo(zone))
    shut = _window_without(now)
    assert await pending(db, load({"CALLS_WINDOW": shut, "CALLS_WINDOW_LIMIT": "00:00-24:00"})) == []
    assert await pending(db, load({"CALLS_WINDOW": "00:00-24:00", "CALLS_WINDOW_LIMIT": shut})) == []
    assert len(await pending(db)) == 1


async def test_a_customers_own_window_narrows_the_agencys(db: Database) -> None:
    now = utc_now().astimezone(ZoneInfo("Asia/Kolkata"))
    start, end = (time.fromisoformat(part.replace("24:00", "23:59")) for part in _window_without(now).split("-"))
    await add_customer(db, window_start=start, window_end=end)
    await plan(db)
    assert await pending(db) == []


async def test_a_customer_asks_to_stop_while_the_call_waits(db: Database) -> None:
    customer = await add_customer(db)
    await plan(db)
    async with db.transaction() as session:
        phone = (await session.exec(select(Customer.phone_e164).where(Customer.id == customer))).one()
        await calls.stop_calling(session, phone, source="operator", reason="asked by letter")
    assert await pending(db) == []
    await plan(db)
    assert await statuses(db) == {"skipped": "do_not_call"}


async def test_a_customer_with_two_policies_is_in_one_call_at_a_time(db: Database) -> None:
    customer = await add_customer(db, policies=2)
    await plan(db)
    due = await pending(db, claim=True)
    assert [item.customer_id for item in due] == [customer, customer]
    accepted = await calls.accept(
        db, config=CONFIG, customer_id=customer, scheduled_call_id=due[0].scheduled_call_id, key=key_of(due[0])
    )
    assert not accepted.replayed
    assert await pending(db) == []


def key_of(item: PendingCustomer) -> str:
    return f"{item.scheduled_call_id}:{item.attempt_no}"


def _window_without(now: datetime) -> str:
    """A window of the day in which `now` is not."""
    return "13:00-24:00" if now.hour < 12 else "00:00-11:00"
