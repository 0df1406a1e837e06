import asyncio
import json
from typing import Any

import pytest
from livekit import api
from livekit.protocol.models import DisconnectReason, ParticipantInfo

from tests.simulator.conftest import Begin, Rig, eventually


async def test_the_same_name_is_the_same_room_with_one_agent(rig: Rig) -> None:
    first = await rig.open_room("call-1", metadata="first")
    again = await rig.lk.room.create_room(
        api.CreateRoomRequest(name="call-1", metadata="second", agents=[api.RoomAgentDispatch(agent_name="another")])
    )
    assert again.sid == first.sid
    assert (again.metadata, again.empty_timeout, again.departure_timeout) == ("second", 60, 5)
    assert len(rig.receiver.of("room_started", "call-1")) <= 1
    assert len(await rig.lk.agent_dispatch.list_dispatch("call-1")) == 1


async def test_rooms_are_listed_by_name_or_all(rig: Rig) -> None:
    for name in ("a", "b"):
        await rig.lk.room.create_room(api.CreateRoomRequest(name=name))

    async def names(*wanted: str) -> list[str]:
        found = await rig.lk.room.list_rooms(api.ListRoomsRequest(names=wanted))
        return [room.name for room in found.rooms]

    assert await names() == ["a", "b"]
    assert await names("b", "none") == ["b"]
    (room,) = (await rig.lk.room.list_rooms(api.ListRoomsRequest(names=["a"]))).rooms
    assert (room.empty_timeout, room.departure_timeout, room.num_participants) == (300, 20, 0)


async def test_a_room_needs_a_name_and_starts_no_recording_by_itself(rig: Rig) -> None:
    with pytest.raises(api.ServerError, match="invalid_argument"):
        await rig.lk.room.create_room(api.CreateRoomRequest())
    with pytest.raises(api.ServerError, match="unimplemented"):
        await rig.lk.room.create_room(api.CreateRoomRequest(name="a", egress=api.RoomEgress()))


async def test_a_deleted_room_is_gone_with_everybody_in_it(rig: Rig) -> None:
    await rig.open_room("call-1")
    await rig.lk.room.delete_room(api.DeleteRoomRequest(room="call-1"))
    await rig.receiver.finished("call-1")
    (left,) = rig.receiver.of("participant_left", "call-1")
    assert left.participant.disconnect_reason == DisconnectReason.ROOM_DELETED
    assert await rig.participants("call-1") == []
    with pytest.raises(api.ServerError) as gone:
        await rig.lk.room.delete_room(api.DeleteRoomRequest(room="call-1"))
    assert (gone.value.code, gone.value.status) == ("not_found", 404)


async def test_a_room_closes_after_its_departure_time_though_the_agent_stays(rig: Rig) -> None:
    await rig.open_room("call-1")
    await rig.dial("200", "call-1")
    await rig.receiver.finished("call-1")
    assert (await rig.look("health")) == {"status": "ok", "rooms": 0, "live_calls": 0, "waiting_webhooks": 0}


async def test_a_room_that_nobody_joined_closes_in_real_time(rig: Rig) -> None:
    await rig.lk.room.create_room(api.CreateRoomRequest(name="call-1", empty_timeout=1))
    await asyncio.sleep(0.3)
    assert rig.receiver.story("call-1") == ["room_started"]
    await rig.receiver.finished("call-1")


async def test_a_participant_can_be_looked_up_and_removed(slow: Rig) -> None:
    await slow.open_room("call-1")
    await slow.dial("777", "call-1")
    phone = api.RoomParticipantIdentity(room="call-1", identity="phone")
    assert (await slow.lk.room.get_participant(phone)).kind == ParticipantInfo.Kind.SIP
    await slow.lk.room.remove_participant(phone)
    await eventually(lambda: slow.receiver.of("participant_left", "call-1"))
    left = slow.receiver.of("participant_left", "call-1")[0].participant
    assert left.disconnect_reason == DisconnectReason.PARTICIPANT_REMOVED
    assert (await slow.last_dial())["outcome"] == "removed"
    for room in ("call-1", "none"):
        with pytest.raises(api.ServerError, match="not_found"):
            await slow.lk.room.get_participant(api.RoomParticipantIdentity(room=room, identity="phone"))


async def test_an_agent_can_be_dispatched_into_a_room_that_it_opens(rig: Rig) -> None:
    made = await rig.lk.agent_dispatch.create_dispatch(
        api.CreateAgentDispatchRequest(agent_name="helper", room="call-1", metadata="{}")
    )
    assert made.id.startswith("AD_")
    await eventually(lambda: rig.receiver.of("participant_joined", "call-1"))
    (agent,) = await rig.participants("call-1")
    assert (agent.kind, agent.name) == (ParticipantInfo.Kind.AGENT, "helper")
    assert (await rig.lk.agent_dispatch.get_dispatch(made.id, "call-1")) == made
    await rig.lk.agent_dispatch.delete_dispatch(made.id, "call-1")
    assert await rig.lk.agent_dispatch.list_dispatch("call-1") == []
    with pytest.raises(api.ServerError, match="not_found"):
        await rig.lk.agent_dispatch.delete_dispatch(made.id, "call-1")


async def test_without_agents_a_dispatch_brings_nobody(begin: Begin) -> None:
    rig = await begin(SIM_AGENTS="none")
    agents = [api.RoomAgentDispatch(agent_name="x", metadata="{}")]
    await rig.lk.room.create_room(api.CreateRoomRequest(name="call-1", agents=agents))
    await rig.dial("200", "call-1")
    await rig.receiver.finished("call-1")
    assert "participant_joined agent" not in rig.receiver.story("call-1")
    assert rig.receiver.agent_events == []


async def test_a_room_that_is_deleted_at_once_gets_no_agent(begin: Begin) -> None:
    rig = await begin(SIM_SPEED="0.5")
    agents = [api.RoomAgentDispatch(agent_name="x", metadata=json.dumps({}))]
    await rig.lk.room.create_room(api.CreateRoomRequest(name="call-1", agents=agents))
    await rig.lk.room.delete_room(api.DeleteRoomRequest(room="call-1"))
    await rig.receiver.finished("call-1")
    await asyncio.sleep(0.2)
    assert rig.receiver.story("call-1") == ["room_started", "room_finished"]


async def test_trunks_are_made_listed_and_deleted(rig: Rig) -> None:
    async def names(**query: Any) -> list[str]:
        found = await rig.lk.sip.list_outbound_trunk(api.ListSIPOutboundTrunkRequest(**query))
        return [trunk.name for trunk in found.items]

    assert await names() == ["beatline"]
    assert await names(trunk_ids=[rig.trunk], numbers=["+911600000001"]) == ["beatline"]
    assert await names(numbers=["+910000000000"]) == []
    await rig.lk.sip.delete_trunk(api.DeleteSIPTrunkRequest(sip_trunk_id=rig.trunk))
    assert await names() == []
    for trunk in (
        api.SIPOutboundTrunkInfo(name="x", address="sip:example.net;transport=tcp", numbers=["+911600000001"]),
        api.SIPOutboundTrunkInfo(name="x", address="sip.example.net:5060"),
    ):
        with pytest.raises(api.ServerError, match="invalid_argument"):
            await rig.lk.sip.create_outbound_trunk(api.CreateSIPOutboundTrunkRequest(trunk=trunk))
