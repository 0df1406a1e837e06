import asyncio
import time
from datetime import datetime, timedelta

import pytest
from livekit import api
from livekit.protocol.models import DisconnectReason

from backend.simulator.phones import clip_of, load_clips
from tests.simulator.conftest import PREFIX, Begin, Rig, eventually


@pytest.mark.parametrize(
    ("suffix", "code", "status", "sip_code", "reason", "outcome"),
    [
        ("486", "resource_exhausted", 429, 486, DisconnectReason.USER_REJECTED, "busy"),
        ("603", "permission_denied", 403, 603, DisconnectReason.USER_REJECTED, "declined"),
        ("404", "not_found", 404, 404, DisconnectReason.USER_UNAVAILABLE, "bad_number"),
        ("484", "invalid_argument", 400, 484, DisconnectReason.USER_REJECTED, "bad_number"),
        ("480", "resource_exhausted", 429, 480, DisconnectReason.USER_UNAVAILABLE, "unavailable"),
        ("503", "failed_precondition", 412, 503, DisconnectReason.UNKNOWN_REASON, "carrier_error"),
    ],
)
async def test_a_refusal_has_its_sip_code_in_the_error_and_its_reason_in_the_webhook(
    rig: Rig, suffix: str, code: str, status: int, sip_code: int, reason: int, outcome: str
) -> None:
    await rig.open_room("call-1")
    with pytest.raises(api.SipCallError) as refused:
        await rig.dial(suffix, "call-1")
    assert (refused.value.code, refused.value.status, refused.value.sip_status_code) == (code, status, sip_code)
    assert refused.value.sip_status
    await rig.receiver.finished("call-1")
    left = rig.receiver.of("participant_left", "call-1")[0].participant
    assert (left.identity, left.disconnect_reason) == ("phone", reason)
    assert left.attributes["sip.callStatus"] == "ringing"
    assert (await rig.last_dial())["outcome"] == outcome


async def test_a_phone_that_rings_out_ends_without_a_sip_code_after_the_ringing_time(rig: Rig) -> None:
    await rig.open_room("call-1")
    started = time.monotonic()
    with pytest.raises(api.ServerError) as rung:
        await rig.dial("000", "call-1")
    assert 0.3 < time.monotonic() - started < 2
    assert not isinstance(rung.value, api.SipCallError)
    assert (rung.value.code, rung.value.status, rung.value.message) == ("canceled", 408, "sip request timed out")
    await rig.receiver.finished("call-1")
    left = rig.receiver.of("participant_left", "call-1")[0].participant
    assert left.disconnect_reason == DisconnectReason.USER_UNAVAILABLE


async def test_a_phone_that_would_answer_too_late_rings_out(rig: Rig) -> None:
    with pytest.raises(api.ServerError, match="timed out"):
        await rig.dial("200", "call-1", ringing_timeout=timedelta(seconds=1))


async def test_a_phone_without_any_sip_response_is_a_transaction_time_out(rig: Rig) -> None:
    with pytest.raises(api.ServerError) as silent:
        await rig.dial("999", "call-1")
    assert silent.value.code == "canceled"
    assert "transaction failed to complete (0" in silent.value.message
    await rig.receiver.finished("call-1")
    left = rig.receiver.of("participant_left", "call-1")[0].participant
    assert left.attributes["sip.callStatus"] == "dialing"


async def test_an_answered_phone_talks_as_long_as_its_clip_and_hangs_up(slow: Rig) -> None:
    await slow.open_room("call-1")
    info = await slow.dial("200", "call-1")
    assert (info.participant_identity, info.room_name) == ("phone", "call-1")
    assert info.sip_call_id.startswith("SCL_")
    phone = next(one for one in await slow.participants("call-1") if one.identity == "phone")
    assert phone.sid == info.participant_id
    assert phone.attributes["sip.callStatus"] == "active"
    assert phone.attributes["sip.callID"] == info.sip_call_id
    assert phone.attributes["beatline.call_id"] == "id-call-1"
    await slow.receiver.finished("call-1")
    left = slow.receiver.of("participant_left", "call-1")[0].participant
    assert left.attributes["sip.callStatus"] == "hangup"
    assert left.disconnect_reason == DisconnectReason.CLIENT_INITIATED
    dial = await slow.last_dial()
    talked = datetime.fromisoformat(dial["ended_at"]) - datetime.fromisoformat(dial["answered_at"])
    assert talked.total_seconds() >= 0.9 * 0.05 * load_clips()[dial["clip"]].seconds
    assert dial["outcome"] == "hangup"


async def test_a_phone_hangs_up_after_a_second(rig: Rig) -> None:
    await rig.open_room("call-1")
    await rig.dial("111", "call-1")
    await rig.receiver.finished("call-1")
    dial = await rig.last_dial()
    assert (dial["behaviour"], dial["outcome"]) == ("hangs up after a second", "hangup")


async def test_a_call_ends_at_its_longest_duration(rig: Rig) -> None:
    await rig.open_room("call-1")
    started = time.monotonic()
    await rig.dial("777", "call-1", max_call_duration=timedelta(seconds=3))
    await eventually(lambda: rig.receiver.of("participant_left", "call-1"))
    assert time.monotonic() - started < 2
    assert rig.receiver.of("participant_left", "call-1")[0].participant.identity == "phone"


async def test_a_voicemail_system_is_told_apart_and_the_agent_deletes_the_room(rig: Rig) -> None:
    await rig.open_room("call-1")
    await rig.dial("777", "call-1")
    await rig.receiver.finished("call-1")
    left = rig.receiver.of("participant_left", "call-1")
    assert {event.participant.disconnect_reason for event in left} == {DisconnectReason.ROOM_DELETED}
    dial = await rig.last_dial()
    assert (dial["clip"], dial["outcome"]) == ("voicemail", "agent_hangup")


async def status_of_phone(rig: Rig, room: str) -> str:
    found = [one.attributes["sip.callStatus"] for one in await rig.participants(room) if one.identity == "phone"]
    return found[0] if found else ""


async def test_a_phone_keeps_ringing_while_its_caller_waits_in_vain(rig: Rig) -> None:
    await rig.open_room("call-1")
    dialing = asyncio.create_task(rig.dial("408", "call-1", ringing_timeout=timedelta(seconds=1)))
    await asyncio.sleep(0.2)
    assert await status_of_phone(rig, "call-1") == "ringing"
    assert not dialing.done()
    dialing.cancel()
    await rig.receiver.finished("call-1")
    left = rig.receiver.of("participant_left", "call-1")[0].participant
    assert left.disconnect_reason == DisconnectReason.USER_UNAVAILABLE


async def test_the_status_goes_from_dialing_over_ringing_to_active(slow: Rig) -> None:
    dialing = asyncio.create_task(slow.dial("777", "call-1"))
    seen: list[str] = []
    while not dialing.done():
        if (status := await status_of_phone(slow, "call-1")) and status not in seen:
            seen.append(status)
        await asyncio.sleep(0.002)
    await dialing
    phone = await slow.lk.room.get_participant(api.RoomParticipantIdentity(room="call-1", identity="phone"))
    assert phone.attributes["sip.callStatus"] == "active"
    assert [status for status in seen if status not in {"dialing", "active"}] == ["ringing"]
    assert seen == sorted(seen, key=["dialing", "ringing", "active"].index)
    joined = slow.receiver.of("participant_joined", "call-1")[0].participant
    assert joined.attributes["sip.callStatus"] == "dialing"


async def test_a_room_that_is_deleted_while_the_phone_rings_cancels_the_call(slow: Rig) -> None:
    dialing = asyncio.create_task(slow.dial("000", "call-1"))
    await eventually(lambda: slow.receiver.of("participant_joined", "call-1"))
    await asyncio.sleep(0.05)
    await slow.lk.room.delete_room(api.DeleteRoomRequest(room="call-1"))
    with pytest.raises(api.ServerError) as canceled:
        await dialing
    assert canceled.value.code == "canceled"
    assert "timed out" not in canceled.value.message
    await slow.receiver.finished("call-1")
    left = slow.receiver.of("participant_left", "call-1")[0].participant
    assert left.disconnect_reason == DisconnectReason.ROOM_DELETED


@pytest.mark.parametrize("suffix", ["999", "408", "000"])
async def test_a_phone_may_lose_its_room_at_any_moment(slow: Rig, suffix: str) -> None:
    dialing = asyncio.create_task(slow.dial(suffix, "call-1"))
    await eventually(lambda: slow.receiver.of("participant_joined", "call-1"))
    await slow.lk.room.delete_room(api.DeleteRoomRequest(room="call-1"))
    with pytest.raises(api.ServerError, match="canceled"):
        await dialing


async def test_the_same_identity_again_puts_the_first_phone_out(slow: Rig) -> None:
    first = asyncio.create_task(slow.dial("000", "call-1"))
    await eventually(lambda: slow.receiver.of("participant_joined", "call-1"))
    await slow.dial("200", "call-1")
    with pytest.raises(api.ServerError, match="canceled"):
        await first
    left = slow.receiver.of("participant_left", "call-1")[0].participant
    assert left.disconnect_reason == DisconnectReason.DUPLICATE_IDENTITY


async def test_a_dial_that_does_not_wait_returns_while_the_phone_is_dialed(begin: Begin) -> None:
    rig = await begin(SIM_SPEED="1")
    await rig.dial("200", "call-1", wait_until_answered=False)
    assert await status_of_phone(rig, "call-1") in {"dialing", "ringing"}


async def test_numbers_stay_out_of_the_attributes_only_when_that_is_wanted(rig: Rig) -> None:
    await rig.dial("200", "hidden", participant_identity="")
    await rig.dial("200", "shown", hide_phone_number=False, sip_number="+911600000002")
    hidden, shown = (rig.receiver.of("participant_joined", name)[0].participant for name in ("hidden", "shown"))
    assert hidden.identity == f"sip_{PREFIX}200"
    assert not any("hone" in name for name in hidden.attributes)
    assert shown.attributes["sip.phoneNumber"] == f"{PREFIX}200"
    assert shown.attributes["sip.trunkPhoneNumber"] == "+911600000002"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"sip_trunk_id": "ST_none"}, "not_found"),
        ({"sip_call_to": "sip:someone@example.net"}, "invalid_argument"),
        ({"sip_call_to": ""}, "invalid_argument"),
        ({"room_name": ""}, "invalid_argument"),
        ({"trunk": api.SIPOutboundConfig(hostname="sip.example.net")}, "unimplemented"),
    ],
)
async def test_a_dial_that_makes_no_sense_rings_nowhere(rig: Rig, fields: dict[str, object], code: str) -> None:
    with pytest.raises(api.ServerError) as refused:
        await rig.dial("200", "call-1", **fields)
    assert refused.value.code == code
    assert (await rig.look("calls"))["calls"] == []


def test_a_number_always_has_the_same_clip_and_numbers_share_them_all() -> None:
    clips = load_clips()
    spoken = [clip_of(f"+9198{number:08d}", clips) for number in range(300)]
    assert spoken == [clip_of(f"+9198{number:08d}", clips) for number in range(300)]
    used = {clip.id for clip in spoken if clip is not None}
    assert used == {clip.id for clip in clips.values() if clip.role == "conversation"}
    assert clip_of(f"{PREFIX}486", clips) is None
