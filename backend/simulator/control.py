"""The control API under /_sim: what was dialed, and a hand on the calls that run."""

import json
from dataclasses import asdict, dataclass
from typing import Any, get_args

from aiohttp import web

from backend.simulator.agents import Agents
from backend.simulator.clock import settle
from backend.simulator.dials import DialLog
from backend.simulator.legs import Legs
from backend.simulator.phones import Clip
from backend.simulator.state import Leg
from backend.simulator.webhooks import Fault, Webhooks
from backend.simulator.world import World


@dataclass(slots=True)
class Switches:
    """Faults that concern the whole server."""

    rpc_unavailable: bool = False


class Control:
    def __init__(
        self,
        *,
        world: World,
        legs: Legs,
        log: DialLog,
        clips: dict[str, Clip],
        agents: Agents,
        webhooks: Webhooks,
        switches: Switches,
    ) -> None:
        self._world, self._legs, self._log, self._clips = world, legs, log, clips
        self._agents, self._webhooks, self._switches = agents, webhooks, switches

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/_sim/health", self.health),
            web.get("/_sim/calls", self.calls),
            web.get("/_sim/clips", self.clips),
            web.post("/_sim/calls/{room}/hangup", self.hangup),
            web.post("/_sim/calls/{room}/answer", self.answer),
            web.post("/_sim/calls/{room}/event", self.event),
            web.post("/_sim/faults", self.faults),
        ]

    async def health(self, _request: web.Request) -> web.Response:
        body = {
            "status": "ok",
            "rooms": len(self._world.rooms),
            "live_calls": len(self._legs.live),
            "waiting_webhooks": len(self._webhooks),
        }
        return web.json_response(body)

    async def calls(self, _request: web.Request) -> web.Response:
        return web.json_response({"calls": self._log.dump()})

    async def clips(self, _request: web.Request) -> web.Response:
        return web.json_response({"clips": [asdict(clip) for clip in self._clips.values()]})

    async def hangup(self, request: web.Request) -> web.Response:
        """The customer hangs up, or declines when it still rings."""
        settle(self._leg(request).hang_up, None)
        return web.Response(status=204)

    async def answer(self, request: web.Request) -> web.Response:
        leg = self._leg(request)
        if leg.answered_at is not None:
            raise _problem(web.HTTPConflict, "the call is answered already")
        if leg.clip is None:
            leg.clip = next(clip for clip in self._clips.values() if clip.role == "conversation")
        settle(leg.pick_up, None)
        return web.Response(status=204)

    async def event(self, request: web.Request) -> web.Response:
        """Post the body to Beatline as an event of this call's agent."""
        leg, body = self._leg(request), await _read_object(request)
        if not await self._agents.report(leg.room, **body):
            raise _problem(web.HTTPBadGateway, "Beatline did not take the event")
        return web.Response(status=204)

    async def faults(self, request: web.Request) -> web.Response:
        body = await _read_object(request)
        webhooks = body.pop("webhooks", self._webhooks.fault)
        rpc_unavailable = body.pop("rpc_unavailable", self._switches.rpc_unavailable)
        if body or webhooks not in get_args(Fault) or not isinstance(rpc_unavailable, bool):
            raise _problem(
                web.HTTPBadRequest, f"webhooks: {' | '.join(get_args(Fault))}; rpc_unavailable: true | false; no other"
            )
        self._webhooks.fault, self._switches.rpc_unavailable = webhooks, rpc_unavailable
        return web.json_response({"webhooks": webhooks, "rpc_unavailable": rpc_unavailable})

    def _leg(self, request: web.Request) -> Leg:
        leg = self._legs.live.get(request.match_info["room"])
        if leg is None:
            raise _problem(web.HTTPNotFound, "no call is under way in that room")
        return leg


def _problem(kind: type[web.HTTPError], message: str) -> web.HTTPError:
    return kind(text=json.dumps({"error": message}), content_type="application/json")


async def _read_object(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise _problem(web.HTTPBadRequest, "the body must be a JSON object")
    return body
