"""Who may read a recording, who may change it, and for whom it does not exist."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest

from backend.core.principal import Scope
from backend.recordings.models import Recording
from tests.factories.recordings import add_recording, at
from tests.fixtures.people import People, Person, add_api_key


@dataclass
class Everybody:
    """Those who ask, by name."""

    people: People
    owner: Person
    clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    async def statuses(self, ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> dict[str, int]:
        return {name: (await ask(client)).status_code for name, client in self.clients.items()}


@pytest.fixture
async def everybody(people: People) -> Everybody:
    owner = await people.viewer("olga")
    _, read_key = await add_api_key(people.product.db, owner.user, Scope.READ, name="reads")
    clients = {
        "owner": owner.client,
        "owner_reads": await people.client(read_key),
        "viewer": (await people.viewer()).client,
        "operator": (await people.operator()).client,
        "admin": (await people.admin()).client,
        "service": people.product.client,
        "nobody": await people.client(None),
    }
    return Everybody(people, owner, clients)


READING = ("", "/transcript", "/segments", "/speakers", "/segments/0/versions", "/audio", "/speakers/Speaker 1/sample")
CHANGES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PATCH", "", {"title": "Other"}),
    ("PUT", "/segments/0", {"version": 1, "text": "Good morning, this is the insurance office."}),
    ("PUT", "/speakers/Speaker 1", {"name": None}),
    ("POST", "/shares", {}),
    ("GET", "/shares", {}),
)


async def made(everybody: Everybody, owner: Person | None, **fields: Any) -> Recording:
    product = everybody.people.product
    storage = product.config.recordings.storage.folder
    return await add_recording(product.db, owner.id if owner else None, storage=storage, **fields)


async def changed(
    everybody: Everybody, recording: Recording, method: str, path: str, body: dict[str, Any]
) -> dict[str, int]:
    sent = body if method != "GET" else None
    return await everybody.statuses(lambda client: client.request(method, at(recording, path), json=sent))


async def seen(everybody: Everybody, recording: Recording, path: str) -> dict[str, int]:
    return await everybody.statuses(lambda client: client.get(at(recording, path)))


async def test_a_note_is_its_owners_alone_and_an_admin_sees_only_that_it_is_there(everybody: Everybody) -> None:
    note = await made(everybody, everybody.owner)
    others = {"viewer": 404, "operator": 404, "service": 404, "nobody": 401}
    expected = {"owner": 200, "owner_reads": 200, "admin": 200} | others
    assert await seen(everybody, note, "") == expected
    for path in READING[1:]:
        assert await seen(everybody, note, path) == expected | {"admin": 403}, path
    shown = (await everybody.clients["admin"].get(at(note))).json()
    hidden: dict[str, object] = {
        "title": None,
        "filename": None,
        "transcript": None,
        "speakers": [],
        "summary": None,
        "options": {},
    }
    assert {name: shown[name] for name in hidden} == hidden
    assert (shown["owner"], shown["size_bytes"], shown["state"]) == ("olga", note.size_bytes, "ready")
    assert (shown["may_read"], shown["may_change"], shown["may_manage"]) == (False, False, True)


async def test_a_teams_recording_is_read_by_everybody_and_changed_by_operators(everybody: Everybody) -> None:
    recording = await made(everybody, None)
    for path in READING:
        statuses = await seen(everybody, recording, path)
        assert statuses == dict.fromkeys(everybody.clients, 200) | {"nobody": 401}, path
    for method, path, body in CHANGES:
        statuses = await changed(everybody, recording, method, path, body)
        assert {name for name, status in statuses.items() if status < 300} == {"operator", "admin", "service"}, path
        assert {statuses[name] for name in ("viewer", "owner", "owner_reads")} == {403}, path
    refused = (await everybody.clients["viewer"].patch(at(recording), json={"title": "Mine"})).json()
    assert (refused["code"], refused["needed_role"]) == ("role_needed", "operator")


async def test_only_the_owner_changes_a_note_and_no_key_for_reading(everybody: Everybody) -> None:
    note = await made(everybody, everybody.owner)
    for method, path, body in CHANGES:
        statuses = await changed(everybody, note, method, path, body)
        assert {name for name, status in statuses.items() if status < 300} == {"owner"}, path
        assert statuses["owner_reads"] == 403
        assert statuses["admin"] == 403
        assert {statuses[name] for name in ("viewer", "operator", "service")} == {404}
    refused = (await everybody.clients["owner_reads"].patch(at(note), json={"title": "Mine"})).json()
    assert (refused["code"], refused["needed_scope"]) == ("scope_needed", "write")
    assert (await everybody.clients["admin"].patch(at(note), json={"title": "x"})).json()["code"] == "not_owner"


@pytest.mark.parametrize(
    ("role", "readers"),
    [
        ("viewer", {"owner", "owner_reads", "viewer", "operator", "admin", "service"}),
        ("operator", {"owner", "owner_reads", "operator", "admin", "service"}),
        ("admin", {"owner", "owner_reads", "admin"}),
    ],
)
async def test_a_note_that_is_shared_with_a_role_is_read_by_it_and_those_above(
    everybody: Everybody, role: str, readers: set[str]
) -> None:
    note = await made(everybody, everybody.owner)
    answer = await everybody.clients["owner"].patch(at(note), json={"shared_role": role})
    assert (answer.status_code, answer.json()["shared_role"]) == (200, role)
    statuses = await seen(everybody, note, "/transcript")
    assert {name for name, status in statuses.items() if status == 200} == readers
    listed = await everybody.statuses(lambda client: client.get("/api/recordings"))
    assert {name for name, status in listed.items() if status != 200} == {"nobody"}
    for name in sorted(readers - {"owner", "owner_reads"}):
        refused = await everybody.clients[name].patch(at(note), json={"title": "Mine now"})
        assert refused.status_code == 403, name
    await everybody.clients["owner"].patch(at(note), json={"shared_role": None})
    assert (await seen(everybody, note, "/transcript"))["operator"] == 404


async def test_the_list_holds_what_one_may_know_of(everybody: Everybody) -> None:
    note = await made(everybody, everybody.owner)
    shared = await made(everybody, everybody.owner, shared_role="operator")
    teams = await made(everybody, None)

    async def listed(name: str, query: str = "") -> set[str]:
        answer = await everybody.clients[name].get(f"/api/recordings{query}")
        return {item["id"] for item in answer.json()["items"]}

    every = {str(note.id), str(shared.id), str(teams.id)}
    assert await listed("owner") == await listed("admin") == every
    assert await listed("viewer") == {str(teams.id)}
    assert await listed("operator") == await listed("service") == {str(shared.id), str(teams.id)}
    assert await listed("owner", "?mine=true") == {str(note.id), str(shared.id)}
    assert await listed("service", "?mine=true") == await listed("admin", "?mine=true") == set()
    private = next(
        item
        for item in (await everybody.clients["admin"].get("/api/recordings")).json()["items"]
        if item["id"] == str(note.id)
    )
    assert (private["title"], private["filename"], private["may_read"]) == (None, None, False)


async def test_what_is_hidden_is_answered_as_what_does_not_exist(everybody: Everybody) -> None:
    note = await made(everybody, everybody.owner)
    viewer, unknown = everybody.clients["viewer"], uuid4()
    for path in ("", "/transcript", "/shares"):
        hidden, missing = await viewer.get(at(note, path)), await viewer.get(f"/api/recordings/{unknown}{path}")
        assert hidden.status_code == missing.status_code == 404
        assert hidden.json()["detail"].replace(str(note.id), str(unknown)) == missing.json()["detail"]


async def test_a_teams_recording_is_shared_already(everybody: Everybody) -> None:
    recording = await made(everybody, None)
    answer = await everybody.clients["operator"].patch(at(recording), json={"shared_role": "admin"})
    assert (answer.status_code, answer.json()["code"]) == (422, "shared_role")
