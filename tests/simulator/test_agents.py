from datetime import UTC, datetime, timedelta

import pytest
from livekit import api

from devstack.readiness import free_port
from tests.simulator.conftest import Begin, Rig, eventually


async def talk(rig: Rig, suffix: str) -> list[dict[str, str]]:
    await rig.open_room("call-1")
    await rig.dial(suffix, "call-1")
    await eventually(lambda: any(event["type"] == "session_end" for event in rig.receiver.agent_events))
    return rig.receiver.agent_events


async def test_an_agent_reports_a_human_and_the_end(rig: Rig) -> None:
    said = await talk(rig, "200")
    assert [(event["type"], event.get("category")) for event in said] == [("amd", "human"), ("session_end", None)]
    assert {event["call"] for event in said} == {"id-call-1"}
    assert len({event["event_id"] for event in said}) == 2


async def test_an_agent_reports_a_voicemail_system(rig: Rig) -> None:
    said = await talk(rig, "777")
    assert said[0]["category"] == "machine-vm"


async def test_an_agent_reports_who_must_not_be_called_again(rig: Rig) -> None:
    said = await talk(rig, "666")
    assert [event["type"] for event in said] == ["amd", "outcome", "session_end"]
    assert said[1]["outcome"] == "do_not_call"


async def test_an_agent_reports_a_callback_for_tomorrow(rig: Rig) -> None:
    outcome = (await talk(rig, "222"))[1]
    assert outcome["outcome"] == "callback"
    due = datetime.fromisoformat(outcome["callback_at"])
    assert abs(due - datetime.now(UTC) - timedelta(days=1)) < timedelta(seconds=10)


async def test_an_agent_says_nothing_of_a_phone_that_nobody_answered(rig: Rig) -> None:
    await rig.open_room("call-1")
    with pytest.raises(api.SipCallError):
        await rig.dial("486", "call-1")
    await rig.receiver.finished("call-1")
    assert rig.receiver.agent_events == []


async def test_a_report_that_beatline_cannot_take_now_comes_again(rig: Rig) -> None:
    rig.receiver.agent_answers = [503, 429]
    said = await talk(rig, "200")
    assert [event["type"] for event in said[:3]] == ["amd", "amd", "amd"]
    assert len({event["event_id"] for event in said[:3]}) == 1


async def test_a_report_that_beatline_refuses_is_given_up(rig: Rig) -> None:
    rig.receiver.agent_answers = [401]
    said = await talk(rig, "200")
    assert [event["type"] for event in said] == ["amd", "session_end"]


async def test_a_call_goes_on_though_beatline_is_away(begin: Begin) -> None:
    rig = await begin(BEATLINE_API_URL=f"http://127.0.0.1:{free_port()}")
    await rig.open_room("call-1")
    await rig.dial("666", "call-1")
    await rig.receiver.finished("call-1")
    assert (await rig.last_dial())["outcome"] == "hangup"


@pytest.mark.parametrize("metadata", ["", "no json", "[]", '{"call_id": "1"}'])
async def test_an_agent_without_a_job_keeps_silent(rig: Rig, metadata: str) -> None:
    agents = [api.RoomAgentDispatch(agent_name="x", metadata=metadata)]
    await rig.lk.room.create_room(api.CreateRoomRequest(name="call-1", departure_timeout=5, agents=agents))
    await eventually(lambda: rig.receiver.of("participant_joined", "call-1"))
    await rig.dial("200", "call-1")
    await rig.receiver.finished("call-1")
    assert rig.receiver.agent_events == []
