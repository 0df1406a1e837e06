import asyncio
import base64
import hashlib
import time
from pathlib import Path

import jwt
import pytest
from livekit import api
from livekit.protocol.models import Room
from livekit.protocol.webhook import WebhookEvent

from backend.simulator.clock import Clock, Tasks
from backend.simulator.config import load
from backend.simulator.outgoing import Client
from backend.simulator.webhooks import Webhooks
from devstack.readiness import free_port
from tests.simulator.conftest import KEY, SECRET, Begin, Receiver, Rig, environment, eventually

STORY = [
    "room_started",
    "participant_joined agent",
    "participant_joined phone",
    "participant_left phone",
    "participant_left agent",
    "room_finished",
]


async def test_a_call_is_told_in_order_and_signed(rig: Rig) -> None:
    opened = await rig.open_room("call-1")
    await rig.dial("200", "call-1")
    await rig.receiver.finished("call-1")
    assert rig.receiver.story("call-1") == STORY
    assert rig.receiver.bad == []
    started = rig.receiver.webhooks[0]
    assert (started.room.sid, started.id[:3]) == (opened.sid, "EV_")
    assert abs(started.created_at - time.time()) < 10
    joined = rig.receiver.of("participant_joined", "call-1")[1].participant
    assert joined.attributes["sip.callStatus"] == "dialing"
    published = rig.receiver.of("track_published", "call-1")[1]
    assert published.participant.identity == "phone"
    assert published.participant.kind == 0
    assert dict(published.participant.attributes) == {}
    assert len({event.id for event in rig.receiver.webhooks}) == len(rig.receiver.webhooks)


async def test_a_webhook_is_json_with_a_bare_token_of_five_minutes(rig: Rig) -> None:
    await rig.open_room("call-1")
    await eventually(lambda: rig.receiver.headers)
    headers = rig.receiver.headers[0]
    assert headers["Content-Type"] == "application/webhook+json"
    claims = jwt.decode(headers["Authorization"], SECRET, algorithms=["HS256"], issuer=KEY)
    assert claims["exp"] - claims["nbf"] == 300
    assert len(base64.b64decode(claims["sha256"])) == hashlib.sha256().digest_size


@pytest.mark.parametrize("status", [503, 500, 429])
async def test_a_refused_webhook_comes_again_with_the_same_id_and_the_order_holds(rig: Rig, status: int) -> None:
    rig.receiver.answers = [204, 204, status, status]
    await rig.open_room("call-1")
    await rig.dial("200", "call-1")
    await rig.receiver.finished("call-1")
    third, fourth, fifth = rig.receiver.webhooks[2:5]
    assert third.id == fourth.id == fifth.id
    ids = [event.id for event in rig.receiver.webhooks]
    rig.receiver.webhooks = [event for n, event in enumerate(rig.receiver.webhooks) if ids.index(event.id) == n]
    assert rig.receiver.story("call-1") == STORY


@pytest.mark.parametrize("status", [400, 401, 404, 501])
async def test_a_final_answer_is_not_followed_by_another_try(rig: Rig, status: int) -> None:
    rig.receiver.answers = [status]
    await rig.open_room("call-1")
    await rig.lk.room.delete_room(api.DeleteRoomRequest(room="call-1"))
    await rig.receiver.finished("call-1")
    assert rig.receiver.story("call-1").count("room_started") == 1


async def test_after_five_posts_an_event_is_given_up_and_the_next_one_follows(rig: Rig) -> None:
    rig.receiver.answers = [503] * 5
    await rig.open_room("call-1")
    await eventually(lambda: rig.receiver.of("participant_joined", "call-1"))
    assert rig.receiver.story("call-1") == ["room_started"] * 5 + ["participant_joined agent"]


async def test_the_receiver_may_say_when_to_come_again(rig: Rig) -> None:
    rig.receiver.retry_after = "20"
    rig.receiver.answers = [503]
    started = time.monotonic()
    await rig.open_room("call-1")
    await eventually(lambda: len(rig.receiver.webhooks) > 1)
    assert time.monotonic() - started >= 0.2


async def test_a_receiver_that_cannot_be_reached_is_tried_again(begin: Begin, receiver: Receiver) -> None:
    rig = await begin(SIM_WEBHOOK_URL=f"http://127.0.0.1:{free_port()}/none")
    await rig.open_room("call-1")
    await rig.dial("200", "call-1")
    async with asyncio.timeout(5):
        while (await rig.look("health"))["waiting_webhooks"]:
            await asyncio.sleep(0.02)
    assert receiver.webhooks == []


async def test_duplicates_have_the_same_id(rig: Rig) -> None:
    assert (await rig.control("faults", {"webhooks": "duplicate"}))[0] == 200
    await rig.open_room("call-1")
    await eventually(lambda: len(rig.receiver.webhooks) >= 2)
    first, second = rig.receiver.webhooks[:2]
    assert (first.event, first.id) == (second.event, second.id)


async def test_webhooks_can_be_lost_or_wrongly_signed(rig: Rig) -> None:
    await rig.control("faults", {"webhooks": "drop"})
    await rig.open_room("lost")
    await rig.control("faults", {"webhooks": "wrong_signature"})
    await rig.open_room("forged")
    await eventually(lambda: rig.receiver.bad)
    assert set(rig.receiver.bad) == {"InvalidSignatureError"}
    await rig.control("faults", {"webhooks": "off"})
    await rig.open_room("good")
    await eventually(lambda: rig.receiver.webhooks)
    assert {event.room.name for event in rig.receiver.webhooks} == {"good"}


@pytest.fixture
def queue(receiver: Receiver, tmp_path: Path) -> tuple[Webhooks, Tasks, Client]:
    config = load(environment(tmp_path, 0, receiver.url))
    tasks, client = Tasks(), Client()
    return Webhooks(config, Clock(config.speed), client, tasks), tasks, client


async def test_a_receiver_that_hangs_holds_up_its_room_only_and_a_full_queue_drops(
    queue: tuple[Webhooks, Tasks, Client], receiver: Receiver
) -> None:
    webhooks, tasks, client = queue
    receiver.open.clear()
    for number in range(250):
        webhooks.send("full", WebhookEvent(event=f"event-{number}", room=Room(name="full")))
    webhooks.send("other", WebhookEvent(event="event", room=Room(name="other")))
    assert len(webhooks) == 201
    receiver.open.set()
    await eventually(lambda: not len(webhooks))
    assert [event.event for event in receiver.webhooks if event.room.name == "full"] == [
        f"event-{number}" for number in range(200)
    ]
    await tasks.close()
    await client.close()


async def test_an_event_that_waited_too_long_is_dropped(
    queue: tuple[Webhooks, Tasks, Client], receiver: Receiver
) -> None:
    webhooks, tasks, client = queue
    webhooks.max_age = 0.05
    receiver.open.clear()
    webhooks.send("room", WebhookEvent(event="first"))
    webhooks.send("room", WebhookEvent(event="second"))
    await asyncio.sleep(0.1)
    receiver.open.set()
    await eventually(lambda: not len(webhooks))
    assert [event.event for event in receiver.webhooks] == ["first"]
    await tasks.close()
    webhooks.send("room", WebhookEvent(event="after the end"))
    assert len(tasks) == 0
    await client.close()
