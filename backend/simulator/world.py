"""Rooms and who is in them. Everything here changes state at once and queues the webhooks that tell of it."""

import asyncio
import time

from livekit.protocol.models import DisconnectReason, ParticipantInfo, TrackInfo, TrackSource, TrackType
from livekit.protocol.models import Room as RoomInfo
from livekit.protocol.room import CreateRoomRequest
from livekit.protocol.webhook import WebhookEvent

from backend.simulator.clock import Clock, settle
from backend.simulator.state import Room, Seat, new_id
from backend.simulator.webhooks import Webhooks

EMPTY_TIMEOUT = 300
DEPARTURE_TIMEOUT = 20


class World:
    """Finished rooms are forgotten at once."""

    def __init__(self, clock: Clock, webhooks: Webhooks) -> None:
        self._clock, self._webhooks = clock, webhooks
        self.rooms: dict[str, Room] = {}

    def open_room(self, request: CreateRoomRequest) -> tuple[Room, bool]:
        """The room of that name, and whether this request made it; an existing one takes over the non-zero fields."""
        room = self.rooms.get(request.name)
        created = room is None
        if room is None:
            now = time.time()
            info = RoomInfo(
                sid=new_id("RM"),
                name=request.name,
                empty_timeout=EMPTY_TIMEOUT,
                departure_timeout=DEPARTURE_TIMEOUT,
                creation_time=int(now),
                creation_time_ms=int(now * 1000),
            )
            room = self.rooms[request.name] = Room(info, asyncio.get_running_loop().create_future())
        for name in ("empty_timeout", "departure_timeout", "max_participants", "metadata"):
            if value := getattr(request, name):
                setattr(room.info, name, value)
        if created:
            self._webhooks.send(room.name, WebhookEvent(event="room_started", room=room.snapshot()))
            # Not scaled: it guards against a client that never dials, and the client's own clock is not scaled either.
            self._close_later(room, room.info.empty_timeout)
        return room, created

    def _close_later(self, room: Room, real_seconds: float) -> None:
        room.cancel_timer()
        room.timer = asyncio.get_running_loop().call_later(real_seconds, self.close_room, room)

    def close_room(self, room: Room, reason: DisconnectReason = DisconnectReason.ROOM_CLOSED) -> None:
        if self.rooms.get(room.name) is not room:
            return
        del self.rooms[room.name]
        room.cancel_timer()
        for seat in list(room.seats.values()):
            self.leave(room, seat, reason)
        room.cancel_timer()
        self._webhooks.send(room.name, WebhookEvent(event="room_finished", room=room.snapshot()))
        settle(room.closed, None)

    def join(self, room: Room, info: ParticipantInfo) -> Seat:
        """Seat the participant and publish its voice; the same identity again puts the first one out."""
        if (earlier := room.seats.get(info.identity)) is not None:
            self.leave(room, earlier, DisconnectReason.DUPLICATE_IDENTITY)
        now = time.time()
        info.sid, info.joined_at, info.joined_at_ms = new_id("PA"), int(now), int(now * 1000)
        info.state = ParticipantInfo.State.ACTIVE
        seat = Seat(info, asyncio.get_running_loop().create_future())
        room.seats[info.identity] = seat
        if seat.keeps_room_open:
            room.cancel_timer()
        self._tell(room, "participant_joined", info)
        self._publish(room, info)
        return seat

    def _publish(self, room: Room, info: ParticipantInfo) -> None:
        track = TrackInfo(
            sid=new_id("TR"),
            type=TrackType.AUDIO,
            source=TrackSource.MICROPHONE,
            mime_type="audio/opus",
            stream="camera",
        )
        info.tracks.append(track)
        info.is_publisher = True
        event = WebhookEvent(
            event="track_published",
            room=RoomInfo(sid=room.info.sid, name=room.name),
            participant=ParticipantInfo(sid=info.sid, identity=info.identity),
            track=track,
        )
        self._webhooks.send(room.name, event)

    def leave(self, room: Room, seat: Seat, reason: DisconnectReason) -> None:
        """Nothing happens to one who has left already."""
        if room.seats.get(seat.info.identity) is not seat:
            return
        del room.seats[seat.info.identity]
        seat.info.state = ParticipantInfo.State.DISCONNECTED
        seat.info.disconnect_reason = reason
        self._tell(room, "participant_left", seat.info)
        settle(seat.gone, reason)
        if seat.keeps_room_open and not any(other.keeps_room_open for other in room.seats.values()):
            self._close_later(room, room.info.departure_timeout * self._clock.speed)

    def _tell(self, room: Room, event: str, info: ParticipantInfo) -> None:
        copy = ParticipantInfo()
        copy.CopyFrom(info)
        self._webhooks.send(room.name, WebhookEvent(event=event, room=room.snapshot(), participant=copy))

    def stop_timers(self) -> None:
        for room in self.rooms.values():
            room.cancel_timer()
