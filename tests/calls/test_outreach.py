"""The whole way of a call: from the plan to the outcome, against the simulator, with the tasks' own code."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import jiwer
import pytest
from sqlmodel import col, select

from backend.calls.models import Call, Customer, DoNotCall, ScheduledCall
from backend.calls.tasks import (
    advance_calls,
    call_customer,
    call_expiring_policies,
    call_next_customers,
    extract_call_outcome,
)
from backend.core.data_plane import Refused
from backend.core.errors import TransientError
from backend.recordings.tasks import transcribe_recording
from tests.factories.people import (
    ANSWERS,
    ASKS_TO_STOP,
    BUSY,
    CARRIER_ERROR,
    DECLINES,
    HANGS_THE_CALL,
    HANGS_UP,
    NO_RESPONSE,
    RINGS_OUT,
    UNAVAILABLE,
    UNKNOWN_NUMBER,
    VOICEMAIL,
    add_customer,
)
from tests.fixtures.product import Product, Start, eventually

CLIPS = json.loads((Path(__file__).parents[2] / "backend/simulator/clips/clips.json").read_text())


async def outreach(product: Product) -> None:
    """The daily job, and its messages worked off."""
    await call_expiring_policies(product.runtime)
    await work_off(product)


async def work_off(product: Product) -> None:
    for arguments in product.sent.named("call_customer"):
        await call_customer(product.runtime, **arguments)  # type: ignore[arg-type]
    product.sent.clear()


async def ended(product: Product) -> Call | None:
    """The one call, once it has ended."""
    async with product.db.transaction() as session:
        return (await session.exec(select(Call).where(col(Call.ended_at).is_not(None)))).first()


async def ended_call(product: Product, *, within: float = 15) -> Call:
    call = await eventually(lambda: ended(product), within=within)
    assert isinstance(call, Call)
    return call


async def scheduled(product: Product) -> ScheduledCall:
    async with product.db.transaction() as session:
        return (await session.exec(select(ScheduledCall))).one()


@pytest.mark.parametrize(
    ("phone", "status", "reason", "then", "sip_code"),
    [
        (ANSWERS, "completed", "hangup", "completed", None),
        (BUSY, "busy", "busy", "pending", 486),
        (DECLINES, "busy", "declined", "pending", 603),
        (UNKNOWN_NUMBER, "failed", "invalid_number", "exhausted", 404),
        (UNAVAILABLE, "no_answer", "unavailable", "pending", 480),
        (CARRIER_ERROR, "failed", "carrier_error", "pending", 503),
        (RINGS_OUT, "no_answer", "ring_timeout", "pending", None),
        (NO_RESPONSE, "failed", "trunk_timeout", "pending", None),
        (VOICEMAIL, "voicemail", "machine-vm", "pending", None),
    ],
)
async def test_each_way_a_phone_behaves_ends_as_it_should(
    start: Start, phone: str, status: str, reason: str, then: str, sip_code: int | None
) -> None:
    product = await start(CALLS_RECORDING="off", CALLS_BACKOFF_SCALE="1")
    await add_customer(product.db, phone)
    await outreach(product)
    call = await ended_call(product)
    assert (call.status, call.end_reason, call.sip_code) == (status, reason, sip_code)
    row = await scheduled(product)
    assert row.status == then
    dials = await product.dials()
    assert [dial["number"] for dial in dials] == [call.to_e164]


async def test_a_number_that_does_not_exist_is_marked(start: Start) -> None:
    product = await start(CALLS_RECORDING="off")
    customer = await add_customer(product.db, UNKNOWN_NUMBER)
    await outreach(product)
    await ended_call(product)
    async with product.db.transaction() as session:
        row = await session.get(Customer, customer)
    assert row is not None
    assert row.phone_status == "invalid"


async def test_a_customer_who_drops_the_call_at_once_is_called_once_more(start: Start) -> None:
    product = await start(CALLS_RECORDING="off", CALLS_SHORT_SECONDS="10")
    await add_customer(product.db, HANGS_UP)
    await outreach(product)
    assert (await ended_call(product)).status == "completed"
    row = await scheduled(product)
    assert (row.status, row.counted_attempts) == ("pending", 1)


async def test_a_dial_whose_answer_never_comes_is_ended_by_the_sweep_and_not_dialed_again(start: Start) -> None:
    product = await start(CALLS_RECORDING="off", CALLS_RING_SECONDS="1", CALLS_BACKOFF_SCALE="1")
    await add_customer(product.db, HANGS_THE_CALL)
    await outreach(product)

    async def swept() -> Call | None:
        await advance_calls(product.runtime)
        return await ended(product)

    call = await eventually(swept, within=30)
    assert isinstance(call, Call)
    assert (call.status, call.end_reason) == ("no_answer", "ring_timeout")
    assert len(await product.dials()) == 1


async def test_the_daily_job_twice_calls_nobody_twice(start: Start) -> None:
    product = await start(CALLS_RECORDING="off")
    for _ in range(4):
        await add_customer(product.db, ANSWERS)
    first = await call_expiring_policies(product.runtime)
    second = await call_expiring_policies(product.runtime)
    assert (first["planned"], first["sent"]) == (4, 4)
    assert (second["planned"], second["sent"]) == (0, 0)
    messages = product.sent.named("call_customer")
    for arguments in messages + messages:
        await call_customer(product.runtime, **arguments)  # type: ignore[arg-type]
    await eventually(lambda: _all_ended(product, 4))
    assert len(await product.dials()) == 4


async def _all_ended(product: Product, count: int) -> bool:
    async with product.db.transaction() as session:
        return len((await session.exec(select(Call).where(col(Call.ended_at).is_not(None)))).all()) == count


async def test_do_not_call_customers_are_never_dialed(start: Start) -> None:
    product = await start(CALLS_RECORDING="off")
    await add_customer(product.db, ANSWERS, do_not_call=True)
    done = await call_expiring_policies(product.runtime)
    assert (done["planned"], done["skipped"], done["sent"]) == (0, {"do_not_call": 1}, 0)
    assert await product.dials() == []


async def test_a_customer_who_asks_to_stop_is_on_the_list_from_then_on(start: Start) -> None:
    product = await start(CALLS_RECORDING="off")
    await add_customer(product.db, ASKS_TO_STOP)
    await outreach(product)
    call = await ended_call(product)

    async def blocked() -> list[str]:
        async with product.db.transaction() as session:
            return list((await session.exec(select(DoNotCall.phone_e164))).all())

    assert await eventually(blocked) == [call.to_e164]


async def test_a_busy_customer_is_called_again_until_no_attempt_is_left(start: Start) -> None:
    product = await start(CALLS_RECORDING="off", CALLS_MAX_ATTEMPTS="3")
    await add_customer(product.db, BUSY)
    await call_expiring_policies(product.runtime)

    async def exhausted() -> bool:
        await work_off(product)
        await advance_calls(product.runtime)
        return (await scheduled(product)).status == "exhausted"

    await eventually(exhausted, within=30)
    row = await scheduled(product)
    assert (row.attempt_no, row.counted_attempts, row.reason) == (3, 3, "busy")
    assert len(await product.dials()) == 3


async def test_the_line_that_becomes_free_asks_for_the_next_customer(start: Start) -> None:
    product = await start(CALLS_RECORDING="off", CALLS_MAX_CONCURRENT="1")
    for _ in range(2):
        await add_customer(product.db, ANSWERS)
    await outreach(product)
    await ended_call(product)
    await eventually(lambda: _sent(product, "call_next_customers"))
    assert await call_next_customers(product.runtime) == {"sent": 1}


async def _sent(product: Product, name: str) -> bool:
    return bool(product.sent.named(name))


async def test_an_answered_call_is_recorded_transcribed_and_its_words_are_the_clips(product: Product) -> None:
    await add_customer(product.db, ANSWERS)
    await outreach(product)
    call = await ended_call(product)
    await eventually(lambda: _sent(product, "transcribe_recording"), within=30)
    for arguments in product.sent.named("transcribe_recording"):
        assert await transcribe_recording(product.runtime, **arguments) == "ready"  # type: ignore[arg-type]
        assert await transcribe_recording(product.runtime, **arguments) is None  # type: ignore[arg-type]
    assert product.sent.named("extract_call_outcome") == [{"call_id": str(call.id)}]
    for _ in range(2):
        await extract_call_outcome(product.runtime, call_id=str(call.id))

    shown: dict[str, Any] = (await product.client.get(f"/api/calls/{call.id}")).json()
    played = (await product.dials())[0]["clip"]
    clip = next(clip for clip in CLIPS if clip["id"] == played)
    for speaker, text in (("agent", clip["agent_text"]), ("customer", clip["customer_text"])):
        heard = " ".join(s["text"] for s in shown["transcript"]["segments"] if s["speaker"] == speaker)
        assert jiwer.wer(_plain(text), _plain(heard)) <= 0.35
    assert shown["outcome"]["source"] == "transcript"
    assert shown["status"] == "completed"
    listed = (await product.client.get("/api/scheduler/scheduled-calls")).json()["items"][0]
    assert listed["first_line"] == shown["transcript"]["segments"][0]["text"]
    assert listed["outcome"] == shown["outcome"]["intent"]


def _plain(text: str) -> str:
    return " ".join("".join(c for c in text.lower() if c.isalnum() or c in " '").split())


async def test_an_outcome_is_not_read_before_there_is_a_transcript(product: Product) -> None:
    await add_customer(product.db, BUSY)
    await outreach(product)
    call = await ended_call(product)
    with pytest.raises(Refused, match="no_transcript"):
        await extract_call_outcome(product.runtime, call_id=str(call.id))
    with pytest.raises(Refused, match="not_found"):
        await extract_call_outcome(product.runtime, call_id=str(UUID(int=0)))


async def test_a_customer_who_cannot_be_called_now_ends_the_task_without_an_error(product: Product) -> None:
    await add_customer(product.db, ANSWERS, policies=2)
    await call_expiring_policies(product.runtime)
    answers = [
        await call_customer(product.runtime, **arguments)  # type: ignore[arg-type]
        for arguments in product.sent.named("call_customer")
    ]
    assert answers[1] == {"refused": "call_in_progress"}


async def test_a_message_for_an_unknown_customer_fails_for_good(product: Product) -> None:
    nobody = str(UUID(int=0))
    with pytest.raises(Refused, match="404"):
        await call_customer(product.runtime, scheduled_call_id=nobody, customer_id=nobody, attempt_no=1)


async def test_a_livekit_that_is_away_costs_no_attempt_and_loses_nothing(start: Start) -> None:
    product = await start(simulator={"off": "yes"}, CALLS_BACKOFF_SCALE="1")
    await add_customer(product.db, ANSWERS)
    await outreach(product)
    call = await ended_call(product)
    assert (call.status, call.end_reason) == ("failed", "unavailable")
    row = await scheduled(product)
    assert (row.status, row.counted_attempts) == ("pending", 0)


async def test_without_an_agent_nobody_is_dialed(start: Start) -> None:
    product = await start(simulator={"SIM_AGENTS": "none"}, CALLS_AGENT_WAIT_SECONDS="0.5")
    await add_customer(product.db, ANSWERS)
    await outreach(product)
    call = await ended_call(product)
    assert (call.status, call.end_reason) == ("failed", "agent_unavailable")
    assert await product.dials() == []


async def test_an_api_that_is_away_is_tried_again(product: Product) -> None:
    await product.stop_api()
    with pytest.raises(TransientError):
        await call_expiring_policies(product.runtime)
