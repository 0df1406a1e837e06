"""The life of one phone call: dialing, ringing, talking, gone."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from livekit.protocol.models import DisconnectReason

from backend.simulator import dials
from backend.simulator.agents import Agents
from backend.simulator.clock import Clock, Tasks, settle
from backend.simulator.phones import (
    CANCELED,
    DECLINED,
    RING_OUT,
    SHUT_DOWN,
    TRUNK_SECONDS,
    TRUNK_TIMEOUT,
    Clip,
    Failure,
    Phone,
    talk_seconds,
)
from backend.simulator.state import Leg, Room, Seat
from backend.simulator.world import World

_TRYING_SECONDS = 0.1
_DEFAULT_RINGING = 180.0
_DEFAULT_CALL = 24 * 3600.0
_HANGING_SECONDS = 120.0
_POLL_SECONDS = 0.05
_OUTCOMES = {
    DisconnectReason.CLIENT_INITIATED: "hangup",
    DisconnectReason.ROOM_DELETED: "agent_hangup",
    DisconnectReason.ROOM_CLOSED: "room_closed",
}


def new_leg(
    room: Room, seat: Seat, phone: Phone, clip: Clip | None, dial: dials.Dial, ringing: float, longest: float
) -> Leg:
    """Zero seconds mean LiveKit's own limits."""
    leg = Leg(
        room=room,
        seat=seat,
        phone=phone,
        clip=clip,
        dial=dial,
        ringing_timeout=ringing or _DEFAULT_RINGING,
        max_seconds=longest or _DEFAULT_CALL,
        result=asyncio.get_running_loop().create_future(),
    )
    room.leg = leg
    return leg


class Legs:
    """Runs the calls; `live` holds those that are under way, by room."""

    def __init__(self, world: World, clock: Clock, tasks: Tasks, agents: Agents) -> None:
        self._world, self._clock, self._tasks, self._agents = world, clock, tasks, agents
        self.live: dict[str, Leg] = {}

    def start(self, leg: Leg, has_left: Callable[[], bool]) -> None:
        self.live[leg.room.name] = leg
        self._tasks.spawn(self._run(leg, has_left))

    async def _run(self, leg: Leg, has_left: Callable[[], bool]) -> None:
        failure = await self._until_answered(leg, has_left)
        if failure is None:
            await self._talk(leg)
        else:
            self._world.leave(leg.room, leg.seat, failure.reason)
            self._end(leg, failure.outcome)
        settle(leg.result, failure)

    def stop(self) -> None:
        """Let everybody go who still waits for an answer."""
        for leg in self.live.values():
            settle(leg.result, SHUT_DOWN)

    def _end(self, leg: Leg, outcome: str) -> None:
        leg.dial.ended_at, leg.dial.outcome = dials.now(), outcome
        if self.live.get(leg.room.name) is leg:
            del self.live[leg.room.name]
        settle(leg.over, None)
        self._agents.phone_gone(leg)

    async def _until_answered(self, leg: Leg, has_left: Callable[[], bool]) -> Failure | None:
        """None when somebody picked up."""
        if await self._clock.wait(_TRYING_SECONDS, leg.seat.gone):
            return CANCELED
        if not leg.phone.trying:
            silent = min(TRUNK_SECONDS, leg.ringing_timeout)
            return CANCELED if await self._clock.wait(silent, leg.seat.gone) else TRUNK_TIMEOUT
        leg.seat.info.attributes["sip.callStatus"] = "ringing"
        if leg.phone.hangs_rpc:
            return await self._hang(leg, has_left)
        rings = leg.ringing_timeout if leg.phone.rings is None else min(leg.phone.rings, leg.ringing_timeout)
        if await self._clock.wait(rings, leg.seat.gone, leg.pick_up, leg.hang_up):
            return self._interrupted(leg)
        if leg.phone.rings is None or leg.phone.rings > leg.ringing_timeout:
            return RING_OUT
        return leg.phone.refusal

    @staticmethod
    def _interrupted(leg: Leg) -> Failure | None:
        if leg.seat.gone.done():
            return CANCELED
        return DECLINED if leg.hang_up.done() else None

    async def _hang(self, leg: Leg, has_left: Callable[[], bool]) -> Failure | None:
        """Ring until the caller has given up waiting for the answer, which it measures in real seconds."""
        gives_up = time.monotonic() + leg.ringing_timeout + _HANGING_SECONDS
        signals: list[asyncio.Future[Any]] = [leg.seat.gone, leg.pick_up, leg.hang_up]
        while time.monotonic() < gives_up and not has_left():
            await asyncio.wait(signals, timeout=_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if any(signal.done() for signal in signals):
                return self._interrupted(leg)
        return CANCELED if await self._clock.wait(1.0, leg.seat.gone) else RING_OUT

    async def _talk(self, leg: Leg) -> None:
        leg.answered_at, leg.dial.answered_at = time.monotonic(), dials.now()
        leg.seat.info.attributes["sip.callStatus"] = "active"
        settle(leg.result, None)
        self._agents.answered(leg)
        planned = min(talk_seconds(leg.phone, leg.clip) if leg.clip else leg.max_seconds, leg.max_seconds)
        interrupted = await self._clock.wait(planned, leg.seat.gone, leg.hang_up)
        # The plan, not the clock, says how much was spoken: on a busy machine timers come late.
        leg.spoken = min(self._clock.since(leg.answered_at), planned) if interrupted else planned
        leg.seat.info.attributes["sip.callStatus"] = "hangup"
        self._world.leave(leg.room, leg.seat, DisconnectReason.CLIENT_INITIATED)
        self._end(leg, _OUTCOMES.get(leg.seat.gone.result(), "removed"))
