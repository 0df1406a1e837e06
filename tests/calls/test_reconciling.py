"""The sweep: what is overdue gets an end, what was lost is found."""

from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select, update

from backend.calls import service as calls
from backend.calls.models import Call, ScheduledCall
from backend.calls.schemas import AdvanceRead
from backend.core.clock import utc_now
from backend.recordings import service as recordings
from backend.recordings.models import Recording
from tests.calls.test_outreach import ended_call, outreach
from tests.calls.test_webhooks import accepted
from tests.factories.people import ANSWERS, add_customer
from tests.fixtures.product import Product, Start, eventually


async def advance(product: Product) -> AdvanceRead:
    answer = await product.client.post("/api/scheduler/advance")
    assert answer.status_code == 200
    return AdvanceRead.model_validate(answer.json())


async def change(product: Product, **values: Any) -> None:
    async with product.db.transaction() as session:
        await session.exec(update(Call).values(**values))


async def read(product: Product) -> Call:
    async with product.db.transaction() as session:
        return (await session.exec(select(Call))).one()


PAST = timedelta(hours=-1)


async def test_a_sweep_with_nothing_to_do_does_nothing(product: Product) -> None:
    assert await advance(product) == AdvanceRead(
        released=0, closed=0, reconciled=0, recordings_found=0, outcomes_requested=0
    )


async def test_a_call_that_nobody_came_to_dial_ends_and_costs_no_attempt(product: Product) -> None:
    call = await accepted(product)
    await change(product, status="queued", dialing_at=None, deadline_at=utc_now() + PAST)
    assert (await advance(product)).reconciled == 1
    assert (await advance(product)).reconciled == 0
    fresh = await read(product)
    assert (fresh.status, fresh.end_reason) == ("failed", "never_dialed")
    async with product.db.transaction() as session:
        row = await session.get(ScheduledCall, call.scheduled_call_id)
    assert row is not None
    assert (row.status, row.counted_attempts) == ("pending", 0)


async def test_a_dial_that_was_lost_counts_as_an_attempt_since_the_phone_may_have_rung(product: Product) -> None:
    await accepted(product)
    await change(product, deadline_at=utc_now() + PAST)
    assert (await advance(product)).reconciled == 1
    assert ((await read(product)).status, (await read(product)).end_reason) == ("failed", "unknown")
    async with product.db.transaction() as session:
        assert (await session.exec(select(ScheduledCall.counted_attempts))).one() == 1


async def test_an_answered_call_whose_end_was_lost_is_ended(product: Product) -> None:
    await accepted(product)
    await change(product, status="answered", answered_at=utc_now() + PAST, deadline_at=utc_now() + PAST)
    await advance(product)
    assert (await read(product)).status == "completed"


async def test_while_livekit_is_away_an_overdue_call_waits(start: Start) -> None:
    product = await start(simulator={"off": "yes"})
    await accepted(product)
    await change(product, deadline_at=utc_now() + PAST)
    assert (await advance(product)).reconciled == 0
    assert (await read(product)).status == "dialing"


async def test_a_call_that_goes_on_gets_more_time_and_one_that_never_ends_is_closed(start: Start) -> None:
    # At a tenth of real speed a talk outlives the test.
    product = await start(simulator={"SIM_SPEED": "1"}, CALLS_RECORDING="off", CALLS_RING_SECONDS="20")
    await add_customer(product.db, ANSWERS)
    await outreach(product)

    async def answered() -> bool:
        return (await read(product)).status == "answered"

    await eventually(answered)
    await change(product, deadline_at=utc_now() + PAST)
    assert (await advance(product)).reconciled == 0
    call = await read(product)
    assert call.status == "answered"
    assert call.deadline_at > utc_now()
    await change(product, deadline_at=utc_now() + PAST, answered_at=utc_now() + timedelta(days=-1))
    assert (await advance(product)).reconciled == 1
    assert (await read(product)).status == "completed"


async def test_lost_reports_of_a_whole_call_are_made_up_for(start: Start) -> None:
    product = await start(CALLS_SHORT_SECONDS="0")
    await product.simulator.post("/_sim/faults", json={"webhooks": "drop"})
    await add_customer(product.db, ANSWERS)
    await outreach(product)

    async def answered() -> bool:
        return (await read(product)).answered_at is not None

    await eventually(answered)

    async def swept() -> bool:
        await change(product, deadline_at=utc_now() + PAST)
        await advance(product)
        return (await read(product)).ended_at is not None

    await eventually(swept)
    assert (await read(product)).status == "completed"
    await change(product, ended_at=utc_now() + PAST)

    async def found() -> bool:
        await advance(product)
        return (await read(product)).recording_state == "ready"

    await eventually(found)
    async with product.db.transaction() as session:
        assert len((await session.exec(select(Recording))).all()) == 1


async def test_a_recording_that_livekit_does_not_know_has_failed(product: Product) -> None:
    await accepted(product)
    await change(
        product, status="completed", recording_state="pending", answered_at=utc_now() + PAST, ended_at=utc_now() + PAST
    )
    await advance(product)
    assert (await read(product)).recording_state == "failed"


@pytest.mark.parametrize("state", ["registered", "failed"])
async def test_a_lost_outcome_is_asked_for_again_once_there_is_something_to_read(product: Product, state: str) -> None:
    call = await accepted(product)
    ready = {
        "status": "completed",
        "recording_state": "ready",
        "answered_at": utc_now() + PAST,
        "ended_at": utc_now() + PAST,
    }
    await change(product, **ready)
    async with product.db.transaction() as session:
        if state == "failed":
            await recordings.fail(session, kind="call", subject_id=call.id, error="the file is not audio")
        else:
            await recordings.register(
                session,
                kind="call",
                subject_id=call.id,
                source_path="a.ogg",
                duration_ms=1,
                channel_speakers=["agent", "customer"],
                then_task=None,
            )
    product.sent.clear()
    requested = (await advance(product)).outcomes_requested
    assert requested == len(product.sent.named("extract_call_outcome")) == (1 if state == "failed" else 0)
    if state == "failed":
        async with product.db.transaction() as session:
            await calls.extract_outcome(session, call.id, config=product.config)
        assert (await read(product)).outcome == {"intent": "unknown", "source": "none", "note": "the file is not audio"}


async def test_the_sweep_while_calls_are_being_made_disturbs_none(start: Start) -> None:
    product = await start(CALLS_RECORDING="off")
    await add_customer(product.db, ANSWERS)
    await outreach(product)
    for _ in range(3):
        await advance(product)
    assert (await ended_call(product)).status == "completed"
