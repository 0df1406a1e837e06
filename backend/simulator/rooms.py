"""RoomService and AgentDispatchService."""

import time

from livekit.protocol import agent_dispatch, room
from livekit.protocol.models import DisconnectReason, ParticipantInfo
from livekit.protocol.models import Room as RoomInfo

from backend.simulator.agents import Agents
from backend.simulator.state import Room, Seat, new_id
from backend.simulator.wire import Caller, TwirpError
from backend.simulator.world import World


class Rooms:
    def __init__(self, world: World, agents: Agents) -> None:
        self._world, self._agents = world, agents

    async def create_room(self, request: room.CreateRoomRequest, _caller: Caller) -> RoomInfo:
        if not request.name:
            raise TwirpError("invalid_argument", "room name cannot be empty")
        if request.HasField("egress"):
            raise TwirpError("unimplemented", "the simulator starts recordings by StartRoomCompositeEgress only")
        opened, created = self._world.open_room(request)
        if created:
            for agent in request.agents:
                self._dispatch(opened, agent.agent_name, agent.metadata)
        return opened.snapshot()

    async def list_rooms(self, request: room.ListRoomsRequest, _caller: Caller) -> room.ListRoomsResponse:
        rooms = self._world.rooms
        found = [rooms[name] for name in request.names if name in rooms] if request.names else list(rooms.values())
        return room.ListRoomsResponse(rooms=[one.snapshot() for one in found])

    async def delete_room(self, request: room.DeleteRoomRequest, _caller: Caller) -> room.DeleteRoomResponse:
        self._world.close_room(self._room(request.room), DisconnectReason.ROOM_DELETED)
        return room.DeleteRoomResponse()

    async def list_participants(
        self, request: room.ListParticipantsRequest, _caller: Caller
    ) -> room.ListParticipantsResponse:
        found = self._world.rooms.get(request.room)
        seats = found.seats.values() if found is not None else []
        return room.ListParticipantsResponse(participants=[seat.info for seat in seats])

    async def get_participant(self, request: room.RoomParticipantIdentity, _caller: Caller) -> ParticipantInfo:
        return self._seat(request).info

    async def remove_participant(
        self, request: room.RoomParticipantIdentity, _caller: Caller
    ) -> room.RemoveParticipantResponse:
        seat = self._seat(request)
        self._world.leave(self._room(request.room), seat, DisconnectReason.PARTICIPANT_REMOVED)
        return room.RemoveParticipantResponse()

    async def create_dispatch(
        self, request: agent_dispatch.CreateAgentDispatchRequest, _caller: Caller
    ) -> agent_dispatch.AgentDispatch:
        opened, _ = self._world.open_room(room.CreateRoomRequest(name=request.room))
        return self._dispatch(opened, request.agent_name, request.metadata)

    async def list_dispatch(
        self, request: agent_dispatch.ListAgentDispatchRequest, _caller: Caller
    ) -> agent_dispatch.ListAgentDispatchResponse:
        found = [one for one in self._room(request.room).dispatches.values() if request.dispatch_id in {"", one.id}]
        return agent_dispatch.ListAgentDispatchResponse(agent_dispatches=found)

    async def delete_dispatch(
        self, request: agent_dispatch.DeleteAgentDispatchRequest, _caller: Caller
    ) -> agent_dispatch.AgentDispatch:
        gone = self._room(request.room).dispatches.pop(request.dispatch_id, None)
        if gone is None:
            raise TwirpError("not_found", "dispatch does not exist")
        return gone

    def _dispatch(self, opened: Room, agent_name: str, metadata: str) -> agent_dispatch.AgentDispatch:
        dispatch = agent_dispatch.AgentDispatch(
            id=new_id("AD"),
            agent_name=agent_name,
            room=opened.name,
            metadata=metadata,
            state=agent_dispatch.AgentDispatchState(created_at=time.time_ns()),
        )
        opened.dispatches[dispatch.id] = dispatch
        self._agents.dispatched(opened, dispatch)
        return dispatch

    def _room(self, name: str) -> Room:
        found = self._world.rooms.get(name)
        if found is None:
            raise TwirpError("not_found", "requested room does not exist")
        return found

    def _seat(self, request: room.RoomParticipantIdentity) -> Seat:
        found = self._world.rooms.get(request.room)
        seat = found.seats.get(request.identity) if found is not None else None
        if seat is None:
            raise TwirpError("not_found", "participant does not exist")
        return seat
