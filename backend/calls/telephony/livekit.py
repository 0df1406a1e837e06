"""LiveKit through livekit-api: rooms, agents, SIP, egress and webhooks."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import jwt
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, ParseError
from livekit import api
from livekit.protocol.egress import EgressInfo, EgressStatus
from livekit.protocol.models import ParticipantInfo
from livekit.protocol.webhook import WebhookEvent

from backend.calls.telephony.base import (
    BadSignature,
    DialOrder,
    DialResult,
    EventKind,
    Observation,
    RecordingResult,
    TelephonyAway,
    TelephonyEvent,
)
from backend.config import Config

PHONE = "phone"
_TALKED = {"active", "hangup"}
_LEFT_EVENTS = {"participant_left", "participant_connection_aborted"}
_RUNNING = {EgressStatus.EGRESS_STARTING, EgressStatus.EGRESS_ACTIVE, EgressStatus.EGRESS_ENDING}
# Twirp codes of a server that cannot work now, and of a recording that has already ended.
_AWAY = {"unavailable", "internal", "unknown", "dataloss", "deadline_exceeded"}
_UNSIGNED = {"hash mismatch", "sha256 was not found in the token"}


@contextmanager
def _reaching() -> Iterator[None]:
    """Turn what a LiveKit that is away throws into TelephonyAway."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError) as fault:
        raise TelephonyAway(f"LiveKit: {fault or type(fault).__name__}") from fault
    except api.ServerError as fault:
        if fault.code in _AWAY or fault.status >= 500:
            raise TelephonyAway(f"LiveKit: {fault.code}: {fault.message}") from fault
        raise


class LiveKit:
    """The adapter. Build it inside the running event loop that will use it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        # The SDK would send CreateSIPParticipant again on a time-out, and the phone would ring twice.
        self._lk = api.LiveKitAPI(config.livekit_url, config.livekit_api_key, config.livekit_api_secret, failover=False)
        self._receiver = api.WebhookReceiver(api.TokenVerifier(config.livekit_api_key, config.livekit_api_secret))
        self._trunk_id: str | None = None
        self._trunk_lock = asyncio.Lock()

    async def close(self) -> None:
        await self._lk.aclose()

    async def open_room(self, room: str, agent_job: dict[str, str]) -> None:
        agent = api.RoomAgentDispatch(agent_name=self._config.livekit_agent_name, metadata=json.dumps(agent_job))
        request = api.CreateRoomRequest(
            name=room,
            empty_timeout=60,
            departure_timeout=5,
            max_participants=4,
            metadata=json.dumps({"call_id": agent_job["call_id"]}),
            agents=[agent],
        )
        with _reaching():
            await self._trunk()
            await self._lk.room.create_room(request)

    async def agent_present(self, room: str) -> bool:
        return any(who.kind == ParticipantInfo.Kind.AGENT for who in await self._participants(room))

    async def _participants(self, room: str) -> list[ParticipantInfo]:
        with _reaching():
            answer = await self._lk.room.list_participants(api.ListParticipantsRequest(room=room))
        return list(answer.participants)

    async def _trunk(self) -> str:
        """The trunk's id, looked up by name once, created when it does not exist."""
        async with self._trunk_lock:
            if self._trunk_id is None:
                self._trunk_id = await self._find_trunk() or await self._create_trunk()
        return self._trunk_id

    async def _find_trunk(self) -> str | None:
        trunks = await self._lk.sip.list_outbound_trunk(api.ListSIPOutboundTrunkRequest())
        return next((t.sip_trunk_id for t in trunks.items if t.name == self._config.livekit_sip_trunk), None)

    async def _create_trunk(self) -> str:
        info = api.SIPOutboundTrunkInfo(
            name=self._config.livekit_sip_trunk,
            address=self._config.livekit_sip_address,
            numbers=[self._config.livekit_sip_number],
        )
        created = await self._lk.sip.create_outbound_trunk(api.CreateSIPOutboundTrunkRequest(trunk=info))
        return created.sip_trunk_id

    async def dial(self, order: DialOrder) -> DialResult:
        try:
            info = await self._lk.sip.create_sip_participant(await self._request(order))
        except api.SipCallError as fault:  # a ServerError too, so it comes first
            return _refused(fault)
        except api.ServerError as fault:
            if fault.code == "not_found":
                # The trunk was deleted at LiveKit; look it up again for the next call.
                self._trunk_id = None
            return DialResult(error=_dial_error(fault))
        except aiohttp.ClientConnectorError:  # never connected, so nobody's phone rang
            return DialResult(error="unavailable")
        except (TimeoutError, aiohttp.ClientError):
            return DialResult(uncertain=True)
        return DialResult(answered=True, sip_call_id=info.sip_call_id)

    async def _request(self, order: DialOrder) -> api.CreateSIPParticipantRequest:
        return api.CreateSIPParticipantRequest(
            sip_trunk_id=await self._trunk(),
            sip_call_to=order.to_e164,
            sip_number=order.caller_id,
            room_name=order.room,
            participant_identity=PHONE,
            participant_name="customer",
            hide_phone_number=True,
            wait_until_answered=True,
            ringing_timeout=Duration(seconds=order.ring_seconds),
            max_call_duration=Duration(seconds=order.max_seconds),
            participant_attributes={"beatline.call_id": order.call_id},
        )

    async def start_recording(self, room: str, path: str) -> str:
        request = api.RoomCompositeEgressRequest(
            room_name=room,
            # A layout, even a default one, silently turns the two channels into a mix.
            audio_only=True,
            audio_mixing=api.AudioMixing.DUAL_CHANNEL_AGENT,
            file_outputs=[api.EncodedFileOutput(file_type=api.EncodedFileType.OGG, filepath=path)],
        )
        with _reaching():
            info = await self._lk.egress.start_room_composite_egress(request)
        return info.egress_id

    async def close_room(self, room: str) -> None:
        try:
            with _reaching():
                await self._lk.room.delete_room(api.DeleteRoomRequest(room=room))
        except api.ServerError as fault:
            if fault.code != "not_found":
                raise

    async def observe(self, room: str) -> Observation:
        with _reaching():
            rooms = await self._lk.room.list_rooms(api.ListRoomsRequest(names=[room]))
            egresses = await self._lk.egress.list_egress(api.ListEgressRequest(room_name=room))
        recording = next((_recording(info) for info in egresses.items if info.status not in _RUNNING), None)
        running = any(info.status in _RUNNING for info in egresses.items)
        phone = None
        if rooms.rooms:
            phone = next((who for who in await self._participants(room) if who.identity == PHONE), None)
        return Observation(
            room_exists=bool(rooms.rooms),
            phone_present=phone is not None,
            phone_status=phone.attributes.get("sip.callStatus") if phone else None,
            recording=recording,
            recording_running=running,
        )

    def receive(self, body: bytes, authorization: str) -> TelephonyEvent:
        try:
            event = self._receiver.receive(body.decode(), authorization)
        except (jwt.PyJWTError, ParseError, UnicodeDecodeError) as fault:
            raise BadSignature(str(fault) or type(fault).__name__) from fault
        except Exception as fault:
            # livekit-api raises bare Exceptions for these two.
            if str(fault) in _UNSIGNED:
                raise BadSignature(str(fault)) from fault
            raise
        return _event(event)


def _refused(fault: api.SipCallError) -> DialResult:
    if fault.sip_status_code is None:
        return DialResult(error=_dial_error(fault))
    return DialResult(sip_code=fault.sip_status_code, sip_text=fault.sip_status)


def _dial_error(fault: api.ServerError) -> str:
    """A name for an error without a SIP code; a ring-out is one of them."""
    message = fault.message.lower()
    if fault.code == "canceled":
        return (
            "trunk_timeout"
            if "transaction failed" in message
            else "ring_timeout"
            if "timed out" in message
            else "canceled"
        )
    if fault.code == "failed_precondition" and "auth" in message:
        return "trunk_rejected"
    return "media" if fault.code == "failed_precondition" else str(fault.code)


def _recording(info: EgressInfo) -> RecordingResult:
    file = info.file_results[0] if info.file_results else None
    complete = info.status == EgressStatus.EGRESS_COMPLETE and file is not None and bool(file.filename)
    return RecordingResult(
        egress_id=info.egress_id,
        path=file.filename if complete and file is not None else None,
        duration_ms=file.duration // 1_000_000 if file is not None else 0,
        problem=None if complete else info.error or EgressStatus.Name(info.status),
    )


def _kind(event: WebhookEvent) -> EventKind:
    is_agent = event.participant.kind == ParticipantInfo.Kind.AGENT
    is_phone = event.participant.identity == PHONE
    if event.event == "participant_joined" and (is_agent or is_phone):
        return "agent_joined" if is_agent else "phone_joined"
    if event.event in _LEFT_EVENTS and is_phone:
        return "phone_left"
    if event.event == "room_finished":
        return "room_finished"
    if event.event == "egress_started":
        return "recording_started"
    return "recording_ended" if event.event == "egress_ended" else "other"


def _event(event: WebhookEvent) -> TelephonyEvent:
    kind = _kind(event)
    attributes = event.participant.attributes
    ended = kind == "recording_ended"
    return TelephonyEvent(
        event_id=event.id,
        kind=kind,
        type=event.event,
        room=event.room.name or event.egress_info.room_name,
        was_answered=kind == "phone_left" and attributes.get("sip.callStatus") in _TALKED,
        reason=_reason(event) if kind == "phone_left" else None,
        sip_call_id=attributes.get("sip.callID"),
        recording=_recording(event.egress_info) if ended else None,
        body=_body(event),
    )


def _reason(event: WebhookEvent) -> str:
    return str(api.DisconnectReason.Name(event.participant.disconnect_reason))


def _body(event: WebhookEvent) -> dict[str, object]:
    """The event for the record, without what names a person: metadata and phone numbers stay out."""
    body: dict[str, object] = MessageToDict(event)
    for part in ("room", "participant"):
        section = body.get(part)
        if isinstance(section, dict):
            section.pop("metadata", None)
            attributes = section.get("attributes", {})
            for name in [name for name in attributes if "phone" in name.lower()]:
                attributes.pop(name)
    return body
