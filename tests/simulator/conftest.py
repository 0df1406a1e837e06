"""The simulator on a real socket, with a receiver for what it sends."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from livekit import api
from livekit.protocol.models import ParticipantInfo
from livekit.protocol.webhook import WebhookEvent

from backend.simulator.config import load
from backend.simulator.server import create_app
from devstack.readiness import free_port

KEY, SECRET = "beatline-test", "a-secret-of-the-simulator-tests-" + 32 * "0"
TOKEN = "callback-token"
PREFIX = "+919800000"


async def eventually(check: Callable[[], object], *, within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not check():
            await asyncio.sleep(0.01)


@dataclass
class Receiver:
    """Beatline as the simulator sees it. `answers` are the statuses of the next webhooks, 204 when it is empty."""

    url: str
    webhooks: list[WebhookEvent] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    agent_events: list[dict[str, Any]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    agent_answers: list[int] = field(default_factory=list)
    retry_after: str = ""
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def webhook(self, request: web.Request) -> web.Response:
        await self.open.wait()
        verifier = api.WebhookReceiver(api.TokenVerifier(KEY, SECRET))
        self.headers.append(dict(request.headers))
        try:
            event = verifier.receive(await request.text(), request.headers["Authorization"])
        except jwt.PyJWTError as fault:
            self.bad.append(type(fault).__name__)
            return web.Response(status=401)
        self.webhooks.append(event)
        status = self.answers.pop(0) if self.answers else 204
        return web.Response(status=status, headers={"Retry-After": self.retry_after} if self.retry_after else {})

    async def agent_event(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        self.agent_events.append({"call": request.match_info["call"], **await request.json()})
        return web.Response(status=self.agent_answers.pop(0) if self.agent_answers else 204)

    def story(self, room: str) -> list[str]:
        """What the room's webhooks told, egress and tracks left out."""
        kinds = {ParticipantInfo.Kind.AGENT: "agent", ParticipantInfo.Kind.SIP: "phone"}
        return [
            f"{event.event} {kinds[event.participant.kind]}" if event.HasField("participant") else event.event
            for event in self.webhooks
            if event.room.name == room and "egress" not in event.event and "track" not in event.event
        ]

    def of(self, name: str, room: str) -> list[WebhookEvent]:
        return [event for event in self.webhooks if event.event == name and event.room.name == room]

    async def finished(self, room: str) -> None:
        await eventually(lambda: self.of("room_finished", room))


@dataclass
class Rig:
    """One simulator and its client."""

    url: str
    lk: api.LiveKitAPI
    http: aiohttp.ClientSession
    receiver: Receiver
    folder: Path
    trunk: str

    async def open_room(self, room: str, **fields: Any) -> api.Room:
        """A room with an agent, who is there when this returns."""
        metadata = json.dumps({"call_id": f"id-{room}", "callback_token": TOKEN})
        agents = [api.RoomAgentDispatch(agent_name="beatline-renewal", metadata=metadata)]
        opened = await self.lk.room.create_room(
            api.CreateRoomRequest(
                **{"name": room, "empty_timeout": 60, "departure_timeout": 5, "agents": agents, **fields}
            )
        )
        async with asyncio.timeout(5):
            while not (await self.participants(room)):
                await asyncio.sleep(0.01)
        return opened

    async def participants(self, room: str) -> list[ParticipantInfo]:
        return list((await self.lk.room.list_participants(api.ListParticipantsRequest(room=room))).participants)

    async def dial(self, suffix: str, room: str, **fields: Any) -> api.SIPParticipantInfo:
        request: dict[str, Any] = {
            "sip_trunk_id": self.trunk,
            "sip_call_to": PREFIX + suffix,
            "room_name": room,
            "participant_identity": "phone",
            "wait_until_answered": True,
            "hide_phone_number": True,
            "ringing_timeout": timedelta(seconds=35),
            "participant_attributes": {"beatline.call_id": f"id-{room}"},
            **fields,
        }
        return await self.lk.sip.create_sip_participant(api.CreateSIPParticipantRequest(**request))

    async def record(self, room: str, path: str, **fields: Any) -> api.EgressInfo:
        request: dict[str, Any] = {
            "room_name": room,
            "audio_only": True,
            "audio_mixing": api.AudioMixing.DUAL_CHANNEL_AGENT,
            "file_outputs": [api.EncodedFileOutput(file_type=api.EncodedFileType.OGG, filepath=path)],
            **fields,
        }
        return await self.lk.egress.start_room_composite_egress(api.RoomCompositeEgressRequest(**request))

    async def recorded(self, egress_id: str) -> api.EgressInfo:
        """What the webhook said of a recording once it was over."""
        found: list[api.EgressInfo] = []

        def ended() -> list[api.EgressInfo]:
            events = [event for event in self.receiver.webhooks if event.event == "egress_ended"]
            found[:] = [event.egress_info for event in events if event.egress_info.egress_id == egress_id]
            return found

        await eventually(ended)
        return found[0]

    async def control(self, path: str, body: object = None) -> tuple[int, Any]:
        async with self.http.post(f"{self.url}/_sim/{path}", json=body) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    async def look(self, path: str) -> Any:
        async with self.http.get(f"{self.url}/_sim/{path}") as answer:
            assert answer.status == 200
            return await answer.json()

    async def last_dial(self) -> dict[str, Any]:
        dial: dict[str, Any] = (await self.look("calls"))["calls"][-1]
        return dial


def environment(folder: Path, port: int, beatline: str, **settings: str) -> dict[str, str]:
    return {
        "LIVEKIT_API_KEY": KEY,
        "LIVEKIT_API_SECRET": SECRET,
        "SIM_PORT": str(port),
        "SIM_WEBHOOK_URL": f"{beatline}/webhook",
        "SIM_SPEED": "0.01",
        "SIM_STATE_DIR": str(folder / "state"),
        "EGRESS_DIR": str(folder / "egress"),
        "BEATLINE_API_URL": beatline,
        **settings,
    }


@asynccontextmanager
async def listening(app: web.Application, port: int) -> AsyncIterator[str]:
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    port = free_port()
    beatline = Receiver(f"http://127.0.0.1:{port}")
    beatline.open.set()
    app = web.Application()
    app.router.add_post("/webhook", beatline.webhook)
    app.router.add_post("/api/calls/{call}/agent-events", beatline.agent_event)
    async with listening(app, port):
        yield beatline


Begin = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def begin(receiver: Receiver, tmp_path: Path) -> AsyncIterator[Begin]:
    """Starts a simulator with settings of the test's own."""
    async with AsyncExitStack() as stack:

        async def start(**settings: str) -> Rig:
            port = free_port()
            app = create_app(load(environment(tmp_path, port, receiver.url, **settings)))
            url = await stack.enter_async_context(listening(app, port))
            lk = await stack.enter_async_context(api.LiveKitAPI(url, KEY, SECRET, failover=False))
            http = await stack.enter_async_context(aiohttp.ClientSession())
            trunk = api.SIPOutboundTrunkInfo(name="beatline", address="sip.example.net", numbers=["+911600000001"])
            made = await lk.sip.create_outbound_trunk(api.CreateSIPOutboundTrunkRequest(trunk=trunk))
            return Rig(url, lk, http, receiver, tmp_path, made.sip_trunk_id)

        yield start


@pytest.fixture
async def rig(begin: Begin) -> Rig:
    return await begin()


@pytest.fixture
async def slow(begin: Begin) -> Rig:
    """For tests that act while a call goes on."""
    return await begin(SIM_SPEED="0.05")
