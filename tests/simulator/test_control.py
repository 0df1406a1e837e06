import asyncio
import json
import time
from pathlib import Path

import pytest
from livekit import api

from backend.simulator.dials import DialLog
from tests.simulator.conftest import PREFIX, Begin, Rig, eventually


async def test_the_dial_log_says_who_was_called_and_how_it_ended(rig: Rig) -> None:
    await rig.open_room("call-1")
    await rig.dial("200", "call-1")
    await rig.receiver.finished("call-1")
    dial = await rig.last_dial()
    assert dial["number"] == f"{PREFIX}200"
    assert (dial["call_id"], dial["room"], dial["trunk"]) == ("id-call-1", "call-1", rig.trunk)
    assert (dial["caller_id"], dial["behaviour"]) == ("+911600000001", "talks")
    assert dial["dialed_at"] < dial["answered_at"] < dial["ended_at"]


async def test_every_dial_is_one_line_of_a_file_that_the_next_start_reads(begin: Begin, tmp_path: Path) -> None:
    rig = await begin()
    with pytest.raises(api.SipCallError):
        await rig.dial("486", "call-1")
    await rig.dial("200", "call-2")
    file = tmp_path / "state" / "dials.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["number"], line["room"]) for line in lines] == [
        (f"{PREFIX}486", "call-1"),
        (f"{PREFIX}200", "call-2"),
    ]
    assert lines[0]["clip"] is None
    assert lines[1]["clip"]
    second = await begin()
    assert [dial["room"] for dial in (await second.look("calls"))["calls"]] == ["call-1", "call-2"]


def test_a_line_that_was_cut_off_spoils_neither_the_others_nor_the_next(tmp_path: Path) -> None:
    log = DialLog(tmp_path)
    log.open()
    log.close()
    good = json.dumps({"number": "1", "room": "r", "call_id": None, "trunk": "t", "caller_id": "c", "sip_call_id": "s",
                       "behaviour": "b", "clip": None, "dialed_at": "d", "unknown": 1})  # fmt: skip
    (tmp_path / "dials.jsonl").write_text(f'{good}\n[]\n{{"number": "2"}}\n{{"numb')
    log = DialLog(tmp_path)
    log.open()
    assert [dial.number for dial in log.entries] == ["1"]
    log.add(log.entries[0])
    log.close()
    assert json.loads((tmp_path / "dials.jsonl").read_text().splitlines()[-1])["number"] == "1"


async def test_without_a_folder_the_dial_log_lives_in_memory(begin: Begin, tmp_path: Path) -> None:
    rig = await begin(SIM_STATE_DIR="")
    await rig.dial("200", "call-1")
    assert (await rig.last_dial())["room"] == "call-1"
    assert not (tmp_path / "state").exists()


async def test_the_clips_are_listed_with_their_words(rig: Rig) -> None:
    clips = (await rig.look("clips"))["clips"]
    assert {"office", "voicemail"} <= {clip["id"] for clip in clips}
    assert all(clip["customer_text"] for clip in clips)


async def test_a_customer_can_be_made_to_hang_up(slow: Rig) -> None:
    await slow.dial("777", "call-1")
    assert (await slow.control("calls/call-1/hangup"))[0] == 204
    await eventually(lambda: slow.receiver.of("participant_left", "call-1"))
    assert (await slow.last_dial())["outcome"] == "hangup"


@pytest.mark.parametrize("suffix", ["000", "408"])
async def test_a_phone_that_rings_can_be_answered_or_declined_by_hand(slow: Rig, suffix: str) -> None:
    answered = asyncio.create_task(slow.dial(suffix, "answered"))
    declined = asyncio.create_task(slow.dial(suffix, "declined"))
    await eventually(lambda: slow.receiver.of("participant_joined", "declined"))
    await asyncio.sleep(0.02)
    assert (await slow.control("calls/answered/answer"))[0] == 204
    assert (await slow.control("calls/declined/hangup"))[0] == 204
    await answered
    assert (await slow.control("calls/answered/answer"))[0] == 409
    with pytest.raises(api.SipCallError) as refused:
        await declined
    assert refused.value.sip_status_code == 603


async def test_an_agent_can_be_made_to_report(slow: Rig) -> None:
    await slow.open_room("call-1")
    await slow.dial("777", "call-1")
    assert (await slow.control("calls/call-1/event", {"type": "outcome", "outcome": "complaint"}))[0] == 204
    assert {"outcome", "complaint"} <= {str(v) for event in slow.receiver.agent_events for v in event.values()}
    await slow.dial("777", "no-agent")
    assert (await slow.control("calls/no-agent/event", {"type": "outcome"}))[0] == 502


async def test_a_call_that_is_not_under_way_cannot_be_touched(rig: Rig) -> None:
    for action in ("hangup", "answer", "event"):
        status, body = await rig.control(f"calls/nowhere/{action}")
        assert (status, body) == (404, {"error": "no call is under way in that room"})


@pytest.mark.parametrize("body", [{"webhooks": "sometimes"}, {"rpc_unavailable": "yes"}, {"other": 1}, [], None])
async def test_an_unknown_fault_is_refused_and_changes_nothing(rig: Rig, body: object) -> None:
    assert (await rig.control("faults", body))[0] == 400
    async with rig.http.post(f"{rig.url}/_sim/faults", data=b"{") as answer:
        assert answer.status == 400
    assert await rig.control("faults", {}) == (200, {"webhooks": "off", "rpc_unavailable": False})


async def test_sixty_calls_at_once_leave_nothing_behind(rig: Rig) -> None:
    started = time.monotonic()

    async def call(number: int) -> None:
        room = f"call-{number}"
        await rig.open_room(room)
        await rig.dial("200", room)

    await asyncio.gather(*(call(number) for number in range(60)))
    assert time.monotonic() - started < 10
    async with asyncio.timeout(10):
        while (await rig.look("health")) != {"status": "ok", "rooms": 0, "live_calls": 0, "waiting_webhooks": 0}:
            await asyncio.sleep(0.05)
    assert len((await rig.look("calls"))["calls"]) == 60
    assert all(rig.receiver.story(f"call-{number}")[-1] == "room_finished" for number in range(60))
