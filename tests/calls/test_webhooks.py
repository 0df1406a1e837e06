"""LiveKit's webhooks and the agents' reports: signed, stored once, in any order."""

import asyncio
import base64
import hashlib
import json
import time
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from sqlmodel import select

from backend.calls import service as calls
from backend.calls.models import Call, CallEvent, DoNotCall, ScheduledCall
from backend.core.clock import utc_now
from backend.recordings.models import Recording
from tests.factories.people import add_customer
from tests.fixtures.product import Product, Start

_PHONE = {"identity": "phone", "kind": "SIP"}


async def accepted(product: Product) -> Call:
    """A call that was accepted and, as far as this process knows, is ringing; nobody really dials."""
    await add_customer(product.db)
    async with product.db.transaction() as session:
        await calls.plan(session, config=product.config)
        due = (await calls.pending(session, config=product.config, limit=1, claim=True))[0]
    key = f"{due.scheduled_call_id}:{due.attempt_no}"
    taken = await calls.accept(
        product.db, config=product.config, customer_id=due.customer_id, scheduled_call_id=due.scheduled_call_id, key=key
    )
    async with product.db.transaction() as session:
        call = await session.get(Call, taken.call.id)
        assert call is not None
        call.dial_claimed_at = call.dialing_at = utc_now()
        call.status = "dialing"
    return call


def sign(product: Product, body: bytes, *, secret: str | None = None, issuer: str | None = None, age: float = 0) -> str:
    now = int(time.time() - age)
    claims = {
        "iss": issuer or product.config.livekit_api_key,
        "nbf": now,
        "exp": now + 300,
        "sha256": base64.b64encode(hashlib.sha256(body).digest()).decode(),
    }
    return jwt.encode(claims, secret or product.config.livekit_api_secret, algorithm="HS256")


def event(name: str, room: str, **fields: Any) -> dict[str, Any]:
    return {
        "event": name,
        "id": f"EV_{uuid4().hex[:12]}",
        "createdAt": str(int(time.time())),
        "room": {"name": room},
        **fields,
    }


async def post(product: Product, what: dict[str, Any], **how: Any) -> httpx.Response:
    body = json.dumps(what).encode()
    headers = {"Authorization": sign(product, body, **how), "Content-Type": "application/webhook+json"}
    return await product.client.post("/api/webhooks/livekit", content=body, headers=headers)


async def state(product: Product, call: Call) -> tuple[str, str | None]:
    async with product.db.transaction() as session:
        fresh = await session.get(Call, call.id)
    assert fresh is not None
    return fresh.status, fresh.end_reason


async def events(product: Product) -> int:
    async with product.db.transaction() as session:
        return len((await session.exec(select(CallEvent))).all())


async def test_a_signed_webhook_is_stored_and_answered_without_content(product: Product) -> None:
    call = await accepted(product)
    answer = await post(product, event("participant_joined", call.room_name, participant=_PHONE))
    assert (answer.status_code, answer.content) == (204, b"")
    assert await events(product) == 1


@pytest.mark.parametrize(
    "how",
    [{"secret": "another-secret-0123456789-0123456789"}, {"issuer": "stranger"}, {"age": 3600}],
    ids=["wrong secret", "unknown issuer", "expired"],
)
async def test_a_wrong_signature_is_refused_and_changes_nothing(product: Product, how: dict[str, Any]) -> None:
    call = await accepted(product)
    answer = await post(product, event("participant_left", call.room_name, participant=_PHONE), **how)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert await events(product) == 0
    assert await state(product, call) == ("dialing", None)


async def test_a_body_altered_after_signing_is_refused(product: Product) -> None:
    call = await accepted(product)
    body = json.dumps(event("participant_left", call.room_name)).encode()
    token = sign(product, body)
    for altered, authorization in (
        (body + b" ", token),
        (body, f"Bearer {token}"),
        (body, ""),
        (b"not json", sign(product, b"not json")),
    ):
        answer = await product.client.post(
            "/api/webhooks/livekit", content=altered, headers={"Authorization": authorization}
        )
        assert answer.status_code == 401
    assert await events(product) == 0


async def test_a_token_without_a_digest_is_refused(product: Product) -> None:
    now = int(time.time())
    claims = {"iss": product.config.livekit_api_key, "nbf": now, "exp": now + 60}
    token = jwt.encode(claims, product.config.livekit_api_secret, algorithm="HS256")
    answer = await product.client.post("/api/webhooks/livekit", content=b"{}", headers={"Authorization": token})
    assert answer.status_code == 401


async def test_an_oversized_webhook_is_refused_unread(product: Product) -> None:
    answer = await product.client.post("/api/webhooks/livekit", content=b"x" * 300_000)
    assert answer.status_code == 413


async def test_a_second_delivery_changes_nothing(product: Product) -> None:
    call = await accepted(product)
    what = event("participant_joined", call.room_name, participant=_PHONE)
    assert [(await post(product, what)).status_code for _ in range(3)] == [204, 204, 204]
    assert await events(product) == 1


async def test_an_event_of_a_foreign_room_is_kept_without_a_call(product: Product) -> None:
    assert (await post(product, event("room_started", "somebody-elses"))).status_code == 204
    assert await events(product) == 1


async def test_numbers_and_metadata_are_not_kept(product: Product) -> None:
    call = await accepted(product)
    attributes = {"sip.phoneNumber": "+919800000200", "sip.trunkPhoneNumber": "+911600000001", "sip.callID": "SCL_1"}
    what = event("participant_joined", call.room_name, participant=_PHONE | {"attributes": attributes})
    what["room"]["metadata"] = '{"customer_name": "A"}'
    await post(product, what)
    async with product.db.transaction() as session:
        body = (await session.exec(select(CallEvent.body))).one()
    assert "+91" not in json.dumps(body)
    assert "metadata" not in json.dumps(body)
    assert body["participant"]["attributes"] == {"sip.callID": "SCL_1"}


def _life(call: Call) -> list[dict[str, Any]]:
    """Every report of one answered call, as LiveKit would send them."""
    room = call.room_name
    file = {"filename": f"/egress/calls/{call.id}.ogg", "duration": "12000000000", "size": "1000"}
    egress = {"egressId": "EG_1", "roomName": room, "status": "EGRESS_COMPLETE", "fileResults": [file]}
    hung_up = _PHONE | {"disconnectReason": "CLIENT_INITIATED", "attributes": {"sip.callStatus": "hangup"}}
    return [
        event("participant_joined", room, participant=_PHONE | {"attributes": {"sip.callStatus": "dialing"}}),
        event("participant_left", room, participant=hung_up),
        event("room_finished", room),
        {"event": "egress_ended", "id": f"EV_{uuid4().hex}", "room": {"name": room}, "egressInfo": egress},
    ]


async def test_every_order_of_the_reports_ends_the_same(start: Start) -> None:
    product = await start(CALLS_AGENT_WAIT_SECONDS="60")
    for order in permutations(range(4)):
        call = await accepted(product)
        reports = _life(call)
        for index in order:
            await post(product, reports[index])
            await post(product, reports[index])
        assert await state(product, call) == ("completed", "hangup")
        async with product.db.transaction() as session:
            row = await session.get(ScheduledCall, call.scheduled_call_id)
            made = (await session.exec(select(Recording).where(Recording.subject_id == call.id))).all()
        assert row is not None
        assert row.status == "completed"
        assert len(made) == 1


async def test_reports_of_one_call_at_the_same_time_make_one_recording(product: Product) -> None:
    call = await accepted(product)
    await asyncio.gather(*(post(product, report) for report in _life(call) * 3))
    assert await state(product, call) == ("completed", "hangup")
    assert len(product.sent.named("transcribe_recording")) == 1


async def test_leaving_alone_does_not_end_a_call_whose_dial_is_still_open(product: Product) -> None:
    call = await accepted(product)
    gone = _PHONE | {"disconnectReason": "USER_REJECTED", "attributes": {"sip.callStatus": "dialing"}}
    await post(product, event("participant_left", call.room_name, participant=gone))
    assert await state(product, call) == ("dialing", None)


@pytest.mark.parametrize(
    "result",
    [
        {"status": "EGRESS_COMPLETE"},
        {"status": "EGRESS_FAILED", "error": "disk full"},
        {"status": "EGRESS_ABORTED", "fileResults": [{"filename": "/egress/x.ogg"}]},
    ],
)
async def test_a_recording_without_a_file_has_failed(product: Product, result: dict[str, Any]) -> None:
    call = await accepted(product)
    what = {
        "event": "egress_ended",
        "id": "EV_1",
        "egressInfo": {"egressId": "EG_1", "roomName": call.room_name, **result},
    }
    assert (await post(product, what)).status_code == 204
    async with product.db.transaction() as session:
        fresh = await session.get(Call, call.id)
    assert fresh is not None
    assert fresh.recording_state == "failed"
    assert product.sent.named("transcribe_recording") == []


async def report(product: Product, call_id: UUID, what: dict[str, Any], token: str | None = None) -> httpx.Response:
    bearer = token if token is not None else calls.agent_token(product.config, call_id)
    return await product.client.post(
        f"/api/calls/{call_id}/agent-events", json=what, headers={"Authorization": f"Bearer {bearer}"}
    )


async def test_an_agents_verdict_makes_an_answered_call_a_voicemail(product: Product) -> None:
    call = await accepted(product)
    assert (
        await report(product, call.id, {"event_id": "1", "type": "amd", "category": "machine-vm"})
    ).status_code == 204
    for what in _life(call):
        await post(product, what)
    assert await state(product, call) == ("voicemail", "machine-vm")


async def test_an_agents_outcome_stands_above_a_transcripts(product: Product) -> None:
    call = await accepted(product)
    what = {"event_id": "1", "type": "outcome", "outcome": "do_not_call", "note": "said so"}
    for _ in range(2):
        assert (await report(product, call.id, what)).status_code == 204
    async with product.db.transaction() as session:
        fresh = await session.get(Call, call.id)
        blocked = (await session.exec(select(DoNotCall))).one()
    assert fresh is not None
    assert fresh.outcome == {"intent": "do_not_call", "source": "agent", "note": "said so"}
    assert (blocked.phone_e164, blocked.call_id) == (call.to_e164, call.id)


async def test_a_callback_puts_the_call_back_into_the_plan(product: Product) -> None:
    call = await accepted(product)
    at = "2027-01-05T11:00:00+05:30"
    await report(product, call.id, {"event_id": "1", "type": "outcome", "outcome": "callback", "callback_at": at})
    for what in _life(call):
        await post(product, what)
    async with product.db.transaction() as session:
        row = await session.get(ScheduledCall, call.scheduled_call_id)
    assert row is not None
    assert (row.status, row.reason, row.next_attempt_at.isoformat()) == (
        "pending",
        "callback",
        "2027-01-05T05:30:00+00:00",
    )


async def test_an_agent_may_say_that_the_call_was_answered(product: Product) -> None:
    call = await accepted(product)
    await report(product, call.id, {"event_id": "1", "type": "answered"})
    assert await state(product, call) == ("answered", None)


async def test_an_agents_token_is_good_for_its_own_call_alone(product: Product) -> None:
    first, second = await accepted(product), await accepted(product)
    what = {"event_id": "1", "type": "outcome", "outcome": "do_not_call"}
    for token in (calls.agent_token(product.config, first.id), product.config.service_key, "x"):
        assert (await report(product, second.id, what, token)).status_code == 401
    async with product.db.transaction() as session:
        assert (await session.exec(select(DoNotCall))).all() == []


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"event_id": "1", "type": "dance"},
        {"event_id": "1", "type": "outcome", "outcome": "rich"},
        {"event_id": "", "type": "amd"},
    ],
)
async def test_a_malformed_report_names_the_field(product: Product, what: dict[str, Any]) -> None:
    call = await accepted(product)
    answer = await report(product, call.id, what)
    assert answer.status_code == 422
    assert answer.json()["errors"]


async def test_a_report_of_an_unknown_call_is_not_found(product: Product) -> None:
    nobody = uuid4()
    assert (await report(product, nobody, {"event_id": "1", "type": "answered"})).status_code == 404
