"""What the simulator holds in memory: rooms, their participants, and the phone call of a room."""

import asyncio
from dataclasses import dataclass, field
from uuid import uuid4

from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import DisconnectReason, ParticipantInfo
from livekit.protocol.models import Room as RoomInfo

from backend.simulator.clock import Clock
from backend.simulator.dials import Dial
from backend.simulator.phones import Clip, Failure, Phone

_DEPENDENT = {ParticipantInfo.Kind.AGENT, ParticipantInfo.Kind.EGRESS}


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex[:12]}"


def new_signal() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False, slots=True)
class Seat:
    """One participant in a room; `gone` holds why it left."""

    info: ParticipantInfo
    gone: asyncio.Future[DisconnectReason]

    @property
    def keeps_room_open(self) -> bool:
        return self.info.kind not in _DEPENDENT


@dataclass(eq=False, slots=True)
class Room:
    """`leg` is the newest call that was dialed into the room."""

    info: RoomInfo
    closed: asyncio.Future[None]
    seats: dict[str, Seat] = field(default_factory=dict)
    dispatches: dict[str, AgentDispatch] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    leg: "Leg | None" = None

    @property
    def name(self) -> str:
        return self.info.name

    def snapshot(self) -> RoomInfo:
        info = RoomInfo()
        info.CopyFrom(self.info)
        info.num_participants = sum(seat.keeps_room_open for seat in self.seats.values())
        info.num_publishers = len(self.seats)
        return info

    def agent(self) -> Seat | None:
        return next((seat for seat in self.seats.values() if seat.info.kind == ParticipantInfo.Kind.AGENT), None)

    def cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@dataclass(eq=False, slots=True)
class Leg:
    """One phone call. `result` is None once answered, else the failure; times are simulated seconds.

    `spoken` is set when the talk ends; `answered_at` is a `time.monotonic()`.
    """

    room: Room
    seat: Seat
    phone: Phone
    clip: Clip | None
    dial: Dial
    ringing_timeout: float
    max_seconds: float
    result: asyncio.Future[Failure | None]
    over: asyncio.Future[None] = field(default_factory=new_signal)
    pick_up: asyncio.Future[None] = field(default_factory=new_signal)
    hang_up: asyncio.Future[None] = field(default_factory=new_signal)
    answered_at: float | None = None
    spoken: float | None = None

    def spoken_seconds(self, clock: Clock) -> float:
        if self.spoken is not None:
            return self.spoken
        return 0.0 if self.answered_at is None else clock.since(self.answered_at)
