import time
from typing import Any

import aiohttp
import jwt
import pytest
from livekit import api

from tests.simulator.conftest import KEY, SECRET, Rig

ROOMS = "livekit.RoomService"


def token(secret: str = SECRET, **claims: Any) -> dict[str, str]:
    body = {"iss": KEY, "exp": int(time.time()) + 60, "video": {"roomCreate": True, "roomList": True}, **claims}
    body = {name: value for name, value in body.items() if value is not None}
    return {"Authorization": f"Bearer {jwt.encode(body, secret, algorithm='HS256')}"}


async def post(rig: Rig, path: str, data: Any = b"", **headers: str) -> tuple[int, str, Any]:
    """Status, content type and body."""
    url = f"{rig.url}/twirp/{path}"
    async with rig.http.post(url, data=data, headers={"Content-Type": "application/protobuf", **headers}) as answer:
        is_json = answer.content_type == "application/json"
        return answer.status, answer.content_type, await answer.json() if is_json else await answer.text()


@pytest.mark.parametrize("path", [f"{ROOMS}/Nothing", "livekit.Nobody/CreateRoom", "x"])
async def test_an_unknown_method_is_a_bad_route(rig: Rig, path: str) -> None:
    status, _, body = await post(rig, path, **token())
    assert (status, body["code"]) == (404, "bad_route")
    assert path in body["msg"]


async def test_only_posts_are_answered(rig: Rig) -> None:
    async with rig.http.get(f"{rig.url}/twirp/{ROOMS}/ListRooms", headers=token()) as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "bad_route")


async def test_a_method_that_exists_but_is_not_simulated_says_so(rig: Rig) -> None:
    headers = token(video={"roomAdmin": True, "room": "a"})
    body = api.MuteRoomTrackRequest(room="a").SerializeToString()
    assert (await post(rig, f"{ROOMS}/MutePublishedTrack", body, **headers))[0] == 501


async def test_json_is_understood_and_answered_in_json(rig: Rig) -> None:
    headers = {**token(), "Content-Type": "application/json"}
    status, kind, body = await post(rig, f"{ROOMS}/CreateRoom", '{"name": "a", "emptyTimeout": 7, "new": 1}', **headers)
    assert (status, kind) == (200, "application/json")
    assert (body["name"], body["empty_timeout"], body["num_participants"]) == ("a", 7, 0)
    assert isinstance(body["creation_time"], str)


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"\xff\xff", "application/protobuf", 400, "malformed"),
        (b"{", "application/json", 400, "malformed"),
        (b"\xff", "application/json", 400, "malformed"),
        (b"", "text/plain", 404, "bad_route"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(rig: Rig, body: bytes, kind: str, status: int, code: str) -> None:
    answer = await post(rig, f"{ROOMS}/CreateRoom", body, **{**token(), "Content-Type": kind})
    assert (answer[0], answer[2]["code"]) == (status, code)


@pytest.mark.parametrize(
    "headers",
    [
        token(secret="another-secret-of-thirty-two-characters"),
        token(iss="somebody-else"),
        token(iss=None),
        token(exp=None),
        token(exp=int(time.time()) - 90),
        token(nbf=int(time.time()) + 600),
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic abc"},
        {"Authorization": f"Bearer {jwt.encode({'iss': KEY, 'exp': 9999999999}, SECRET, algorithm='HS512')}"},
    ],
    ids=["secret", "issuer", "no issuer", "no expiry", "expired", "not yet", "garbage", "scheme", "algorithm"],
)
async def test_a_bad_token_is_refused_in_plain_text(rig: Rig, headers: dict[str, str]) -> None:
    status, kind, body = await post(rig, f"{ROOMS}/ListRooms", **headers)
    assert (status, kind) == (401, "text/plain")
    assert "invalid" in body


async def test_a_token_may_be_a_minute_late(rig: Rig) -> None:
    assert (await post(rig, f"{ROOMS}/ListRooms", **token(exp=int(time.time()) - 30)))[0] == 200


@pytest.mark.parametrize(
    ("path", "claims", "request_"),
    [
        (f"{ROOMS}/ListRooms", {"video": None}, api.ListRoomsRequest()),
        (f"{ROOMS}/ListRooms", {"video": "all"}, api.ListRoomsRequest()),
        (f"{ROOMS}/ListRooms", {"video": {"roomCreate": True}}, api.ListRoomsRequest()),
        (f"{ROOMS}/DeleteRoom", {"video": {"roomAdmin": True, "room": "a"}}, api.DeleteRoomRequest(room="a")),
        (
            f"{ROOMS}/ListParticipants",
            {"video": {"roomAdmin": True, "room": "b"}},
            api.ListParticipantsRequest(room="a"),
        ),
        ("livekit.Egress/ListEgress", {}, api.ListEgressRequest()),
        ("livekit.SIP/ListSIPOutboundTrunk", {"sip": {"call": True}}, api.ListSIPOutboundTrunkRequest()),
        ("livekit.SIP/CreateSIPParticipant", {"sip": {"admin": True}}, api.CreateSIPParticipantRequest()),
        ("livekit.SIP/TransferSIPParticipant", {"sip": {"call": True}}, api.TransferSIPParticipantRequest()),
        ("livekit.AgentDispatchService/ListDispatch", {}, api.ListAgentDispatchRequest(room="a")),
    ],
)
async def test_a_missing_grant_is_unauthenticated(rig: Rig, path: str, claims: dict[str, Any], request_: Any) -> None:
    status, _, body = await post(rig, path, request_.SerializeToString(), **token(**claims))
    assert (status, body) == (401, {"code": "unauthenticated", "msg": "permissions denied"})


async def test_no_token_at_all_is_unauthenticated(rig: Rig) -> None:
    status, _, body = await post(rig, f"{ROOMS}/ListRooms")
    assert (status, body["code"]) == (401, "unauthenticated")


async def test_a_transfer_is_granted_to_the_admin_of_the_room_and_not_simulated(rig: Rig) -> None:
    headers = token(video={"roomAdmin": True, "room": "a"}, sip={"call": True})
    body = api.TransferSIPParticipantRequest(room_name="a").SerializeToString()
    assert (await post(rig, "livekit.SIP/TransferSIPParticipant", body, **headers))[0] == 501


async def test_the_client_reads_a_bad_secret_as_an_unknown_error(rig: Rig) -> None:
    async with api.LiveKitAPI(rig.url, KEY, SECRET[::-1], failover=False) as stranger:
        with pytest.raises(api.ServerError) as refused:
            await stranger.room.list_rooms(api.ListRoomsRequest())
    assert (refused.value.code, refused.value.status) == ("unknown", 401)


async def test_a_server_that_cannot_answer_says_unavailable_until_it_can(rig: Rig) -> None:
    assert (await rig.control("faults", {"rpc_unavailable": True}))[0] == 200
    with pytest.raises(api.ServerError) as away:
        await rig.lk.room.list_rooms(api.ListRoomsRequest())
    assert (away.value.code, away.value.status) == ("unavailable", 503)
    await rig.control("faults", {"rpc_unavailable": False})
    await rig.lk.room.list_rooms(api.ListRoomsRequest())


async def test_an_address_outside_the_simulator_is_not_found(rig: Rig) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{rig.url}/rtc") as answer:
        assert answer.status == 404
