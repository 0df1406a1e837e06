"""Scripted voice agents: they join after a dispatch and tell Beatline what a real agent would."""

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aiohttp
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import DisconnectReason, ParticipantInfo

from backend.simulator.clock import Clock, Tasks
from backend.simulator.config import SimConfig
from backend.simulator.outgoing import Client
from backend.simulator.state import Leg, Room, new_id
from backend.simulator.world import World

logger = logging.getLogger("simulator")

_JOIN_SECONDS = 0.3
_DETECTION_SECONDS = 1.5
_OUTCOME_SHARE = 0.7
_LEAVE_SECONDS = 0.2
_WAITS = (1, 2, 4)
_TIMEOUT = aiohttp.ClientTimeout(total=10)


class Agents:
    def __init__(self, config: SimConfig, world: World, clock: Clock, http: Client, tasks: Tasks) -> None:
        self._config, self._world, self._clock = config, world, clock
        self._http, self._tasks = http, tasks

    def dispatched(self, room: Room, dispatch: AgentDispatch) -> None:
        if self._config.agents:
            self._tasks.spawn(self._join(room, dispatch))

    async def _join(self, room: Room, dispatch: AgentDispatch) -> None:
        if await self._clock.wait(_JOIN_SECONDS, room.closed) or dispatch.id not in room.dispatches:
            return
        info = ParticipantInfo(
            identity=f"agent-{new_id('AJ')}",
            kind=ParticipantInfo.Kind.AGENT,
            name=dispatch.agent_name,
            attributes={"lk.agent.name": dispatch.agent_name, "lk.agent.state": "listening"},
        )
        self._world.join(room, info)

    def answered(self, leg: Leg) -> None:
        if leg.room.agent() is not None:
            self._tasks.spawn(self._talk(leg))

    async def _talk(self, leg: Leg) -> None:
        await self._clock.wait(_DETECTION_SECONDS, leg.over)
        await self.report(leg.room, type="amd", category=leg.phone.category)
        if leg.phone.category == "human":
            await self._converse(leg)
        elif leg.clip is not None and not await self._clock.wait(leg.clip.seconds - _DETECTION_SECONDS, leg.over):
            self._world.close_room(leg.room, DisconnectReason.ROOM_DELETED)
        await leg.over
        await self.report(leg.room, type="session_end")

    async def _converse(self, leg: Leg) -> None:
        if leg.phone.outcome is None or leg.clip is None:
            return
        await self._clock.wait(max(leg.clip.seconds * _OUTCOME_SHARE - _DETECTION_SECONDS, 0.0), leg.over)
        said: dict[str, str] = {"outcome": leg.phone.outcome}
        if leg.phone.outcome == "callback":
            said["callback_at"] = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0).isoformat()
        await self.report(leg.room, type="outcome", **said)

    def phone_gone(self, leg: Leg) -> None:
        """An agent has nothing left to do once the phone has left, answered or not."""
        self._tasks.spawn(self._leave(leg))

    async def _leave(self, leg: Leg) -> None:
        await self._clock.wait(_LEAVE_SECONDS, leg.room.closed)
        if (seat := leg.room.agent()) is not None:
            self._world.leave(leg.room, seat, DisconnectReason.CLIENT_INITIATED)

    async def report(self, room: Room, **fields: str) -> bool:
        """Post one event with the token of the room's job; whether Beatline took it. One who is away is no failure."""
        job = _job(room)
        if job is None:
            return False
        url = f"{self._config.api_url}/api/calls/{job['call_id']}/agent-events"
        headers = {"Authorization": f"Bearer {job['callback_token']}", "Content-Type": "application/json"}
        body = {"event_id": str(uuid4()), **fields}
        for wait in (*_WAITS, None):
            again, problem = await self._post(url, body, headers)
            if not problem:
                return True
            if wait is None or not again:
                logger.warning("Agent event %s for %s not delivered: %s", fields.get("type"), room.name, problem)
                return False
            await self._clock.sleep(wait)
        return False

    async def _post(self, url: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[bool, str]:
        """Whether to try again, and what went wrong."""
        try:
            async with self._http.post(url, data=json.dumps(body), headers=headers, timeout=_TIMEOUT) as answer:
                status = answer.status
        except (aiohttp.ClientError, OSError) as fault:
            return True, str(fault) or type(fault).__name__
        return (False, "") if status < 300 else (status == 429 or status >= 500, f"HTTP {status}")


def _job(room: Room) -> dict[str, str] | None:
    """The metadata of the first dispatch that names a call and its token."""
    for dispatch in room.dispatches.values():
        try:
            job = json.loads(dispatch.metadata)
        except ValueError:
            continue
        if isinstance(job, dict) and {"call_id", "callback_token"} <= job.keys():
            return job
    return None
