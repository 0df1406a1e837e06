"""The SIP service: outbound trunks, and the dial itself."""

import asyncio
import re
import time

from livekit.protocol import sip
from livekit.protocol.models import ParticipantInfo
from livekit.protocol.room import CreateRoomRequest

from backend.simulator.dials import Dial, DialLog, now
from backend.simulator.legs import Legs, new_leg
from backend.simulator.phones import Clip, clip_of, phone_of
from backend.simulator.state import Leg, new_id
from backend.simulator.wire import Caller, TwirpError
from backend.simulator.world import World

_ADDRESS = re.compile(r"^[^:;@\s]+(:[0-9]{1,5})?$")
_CALL_ID = "beatline.call_id"


class Sip:
    def __init__(self, world: World, legs: Legs, log: DialLog, clips: dict[str, Clip]) -> None:
        self._world, self._legs, self._log, self._clips = world, legs, log, clips
        self._trunks: dict[str, sip.SIPOutboundTrunkInfo] = {}

    async def create_sip_outbound_trunk(
        self, request: sip.CreateSIPOutboundTrunkRequest, _caller: Caller
    ) -> sip.SIPOutboundTrunkInfo:
        trunk = sip.SIPOutboundTrunkInfo()
        trunk.CopyFrom(request.trunk)
        if not _ADDRESS.match(trunk.address):
            raise TwirpError("invalid_argument", "address must be host[:port], without scheme or transport")
        if not trunk.numbers:
            raise TwirpError("invalid_argument", "no trunk numbers specified")
        trunk.sip_trunk_id = new_id("ST")
        trunk.created_at.FromSeconds(int(time.time()))
        self._trunks[trunk.sip_trunk_id] = trunk
        return trunk

    async def list_sip_outbound_trunk(
        self, request: sip.ListSIPOutboundTrunkRequest, _caller: Caller
    ) -> sip.ListSIPOutboundTrunkResponse:
        found = [
            trunk
            for trunk in self._trunks.values()
            if (not request.trunk_ids or trunk.sip_trunk_id in request.trunk_ids)
            and (not request.numbers or set(trunk.numbers) & set(request.numbers))
        ]
        return sip.ListSIPOutboundTrunkResponse(items=found)

    async def delete_sip_trunk(self, request: sip.DeleteSIPTrunkRequest, _caller: Caller) -> sip.SIPTrunkInfo:
        trunk = self._trunks.pop(self._trunk(request.sip_trunk_id).sip_trunk_id)
        return sip.SIPTrunkInfo(sip_trunk_id=trunk.sip_trunk_id, name=trunk.name)

    def _trunk(self, trunk_id: str) -> sip.SIPOutboundTrunkInfo:
        trunk = self._trunks.get(trunk_id)
        if trunk is None:
            raise TwirpError("not_found", "requested sip trunk does not exist")
        return trunk

    async def create_sip_participant(
        self, request: sip.CreateSIPParticipantRequest, caller: Caller
    ) -> sip.SIPParticipantInfo:
        leg = self._dial(request)
        self._legs.start(leg, caller.has_left)
        if request.wait_until_answered and (failure := await asyncio.shield(leg.result)) is not None:
            raise failure.error()
        return sip.SIPParticipantInfo(
            participant_id=leg.seat.info.sid,
            participant_identity=leg.seat.info.identity,
            room_name=leg.room.name,
            sip_call_id=leg.dial.sip_call_id,
        )

    def _dial(self, request: sip.CreateSIPParticipantRequest) -> Leg:
        _check(request)
        trunk = self._trunk(request.sip_trunk_id)
        number = request.sip_call_to
        phone, clip = phone_of(number), clip_of(number, self._clips)
        dial = Dial(
            number=number,
            room=request.room_name,
            call_id=request.participant_attributes.get(_CALL_ID),
            trunk=trunk.sip_trunk_id,
            caller_id=request.sip_number or trunk.numbers[0],
            sip_call_id=new_id("SCL"),
            behaviour=phone.behaviour,
            clip=clip.id if clip is not None else None,
            dialed_at=now(),
        )
        self._log.add(dial)
        room, _ = self._world.open_room(CreateRoomRequest(name=request.room_name))
        seat = self._world.join(room, _participant(request, dial, trunk))
        ringing, longest = request.ringing_timeout.ToSeconds(), request.max_call_duration.ToSeconds()
        return new_leg(room, seat, phone, clip, dial, ringing, longest)


def _check(request: sip.CreateSIPParticipantRequest) -> None:
    if request.HasField("trunk"):
        raise TwirpError("unimplemented", "the simulator dials over stored trunks only")
    if not request.room_name:
        raise TwirpError("invalid_argument", "room name cannot be empty")
    number = request.sip_call_to
    if not number or "@" in number:
        raise TwirpError("invalid_argument", "call to must be a phone number, not a SIP address")


def _participant(
    request: sip.CreateSIPParticipantRequest, dial: Dial, trunk: sip.SIPOutboundTrunkInfo
) -> ParticipantInfo:
    attributes = {
        **request.participant_attributes,
        "sip.callID": dial.sip_call_id,
        "sip.callIDFull": f"{dial.sip_call_id}@simulator",
        "sip.callTag": dial.sip_call_id[-8:],
        "sip.trunkID": trunk.sip_trunk_id,
        "sip.callStatus": "dialing",
    }
    if not request.hide_phone_number:
        attributes["sip.phoneNumber"] = dial.number
        attributes["sip.trunkPhoneNumber"] = dial.caller_id
        attributes["sip.hostname"] = trunk.address
    return ParticipantInfo(
        identity=request.participant_identity or f"sip_{dial.number}",
        name=request.participant_name,
        metadata=request.participant_metadata,
        kind=ParticipantInfo.Kind.SIP,
        attributes=attributes,
    )
