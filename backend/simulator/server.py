"""The simulator as one aiohttp application."""

from aiohttp import web

from backend.simulator.agents import Agents
from backend.simulator.auth import BadToken, demand, read_claims
from backend.simulator.clock import Clock, Tasks
from backend.simulator.config import SimConfig
from backend.simulator.control import Control, Switches
from backend.simulator.dials import DialLog
from backend.simulator.egress import Egress
from backend.simulator.legs import Legs
from backend.simulator.outgoing import Client
from backend.simulator.phones import load_clips
from backend.simulator.rooms import Rooms
from backend.simulator.sip import Sip
from backend.simulator.webhooks import Webhooks
from backend.simulator.wire import Caller, Handler, TwirpError, methods, read_message, room_of, write_message
from backend.simulator.world import World


class Twirp:
    """Answers everything under /twirp/."""

    def __init__(self, config: SimConfig, handlers: dict[str, Handler], switches: Switches) -> None:
        self._config, self._switches = config, switches
        self._methods = {method.path: method for method in methods(handlers)}

    async def handle(self, request: web.Request) -> web.Response:
        try:
            return await self._answer(request)
        except BadToken as fault:
            return web.Response(status=401, text=str(fault))
        except TwirpError as fault:
            return fault.response()

    async def _answer(self, request: web.Request) -> web.Response:
        if self._switches.rpc_unavailable:
            raise TwirpError("unavailable", "no response from servers")
        header = request.headers.get("Authorization", "")
        claims = read_claims(header, self._config.api_key, self._config.api_secret)
        method = self._methods.get(request.path)
        if method is None or request.method != "POST":
            raise TwirpError("bad_route", f"no handler for path {request.method} {request.path}")
        message = await read_message(request, method.request_class)
        demand(claims, method.service, method.name, room_of(message))
        if method.handler is None:
            raise TwirpError("unimplemented", f"the simulator does not know {method.service}.{method.name}")
        return write_message(request, await method.handler(message, Caller(request)))


class Simulator:
    """Everything that one simulator is made of, and how it starts and ends."""

    def __init__(self, config: SimConfig) -> None:
        clips, clock, self._tasks, self._client = load_clips(), Clock(config.speed), Tasks(), Client()
        self._log, switches = DialLog(config.state_dir), Switches()
        webhooks = Webhooks(config, clock, self._client, self._tasks)
        self._world = World(clock, webhooks)
        agents = Agents(config, self._world, clock, self._client, self._tasks)
        self._legs = Legs(self._world, clock, self._tasks, agents)
        rooms = Rooms(self._world, agents)
        sip = Sip(self._world, self._legs, self._log, clips)
        egress = Egress(config, self._world, webhooks, clock, self._tasks)
        self.twirp = Twirp(config, _handlers(rooms, sip, egress), switches)
        self.control = Control(
            world=self._world,
            legs=self._legs,
            log=self._log,
            clips=clips,
            agents=agents,
            webhooks=webhooks,
            switches=switches,
        )

    async def start(self, _app: web.Application) -> None:
        self._log.open()

    async def stop(self, _app: web.Application) -> None:
        """Runs before the server waits for its open requests, so that none of them holds it up."""
        self._world.stop_timers()
        self._legs.stop()
        await self._tasks.close()
        await self._client.close()

    async def close(self, _app: web.Application) -> None:
        self._log.close()


def _handlers(rooms: Rooms, sip: Sip, egress: Egress) -> dict[str, Handler]:
    return {
        "RoomService/CreateRoom": rooms.create_room,
        "RoomService/ListRooms": rooms.list_rooms,
        "RoomService/DeleteRoom": rooms.delete_room,
        "RoomService/ListParticipants": rooms.list_participants,
        "RoomService/GetParticipant": rooms.get_participant,
        "RoomService/RemoveParticipant": rooms.remove_participant,
        "AgentDispatchService/CreateDispatch": rooms.create_dispatch,
        "AgentDispatchService/ListDispatch": rooms.list_dispatch,
        "AgentDispatchService/DeleteDispatch": rooms.delete_dispatch,
        "SIP/CreateSIPOutboundTrunk": sip.create_sip_outbound_trunk,
        "SIP/ListSIPOutboundTrunk": sip.list_sip_outbound_trunk,
        "SIP/DeleteSIPTrunk": sip.delete_sip_trunk,
        "SIP/CreateSIPParticipant": sip.create_sip_participant,
        "Egress/StartRoomCompositeEgress": egress.start_room_composite_egress,
        "Egress/StopEgress": egress.stop_egress,
        "Egress/ListEgress": egress.list_egress,
    }


def create_app(config: SimConfig) -> web.Application:
    simulator = Simulator(config)
    app = web.Application()
    app.router.add_route("*", "/twirp/{tail:.*}", simulator.twirp.handle)
    app.add_routes(simulator.control.routes())
    app.on_startup.append(simulator.start)
    app.on_shutdown.append(simulator.stop)
    app.on_cleanup.append(simulator.close)
    return app
