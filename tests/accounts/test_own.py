"""What belongs to a user: password, sessions, API keys."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from backend.core.clock import utc_now
from backend.core.principal import Role, Scope
from tests.accounts.conftest import change, outcomes, problem, rows
from tests.fixtures.people import PASSWORD, People, add_api_key, add_session

ME, CHANGE, SESSIONS, KEYS = "/api/auth/me", "/api/auth/password", "/api/auth/sessions", "/api/auth/api-keys"
FRESH = "nine clams eat a walrus"


def wish(current: str = PASSWORD, new: str = FRESH) -> dict[str, str]:
    return {"current_password": current, "new_password": new}


async def test_a_new_password_ends_all_other_sessions_and_keeps_api_keys(people: People) -> None:
    product = people.product
    vera = await people.person("vera", password=PASSWORD)
    otto = await people.operator()
    _, elsewhere = await add_session(product.db, product.config, vera.user)
    _, key = await add_api_key(product.db, vera.user, Scope.READ)
    answer = await vera.client.post(CHANGE, json=wish())
    assert (answer.status_code, answer.json()) == (200, {"ended": 1})
    assert (await vera.client.get(ME)).status_code == 200
    assert (await (await people.client(elsewhere)).get(ME)).status_code == 401
    assert (await (await people.client(key)).get(ME)).status_code == 200
    assert (await otto.client.get(ME)).status_code == 200
    client = await people.client(None)
    for password, status in ((PASSWORD, 401), (FRESH, 200)):
        tried = await client.post("/api/auth/login", json={"username": "vera", "password": password})
        assert tried.status_code == status
    # A second delivery finds another current password.
    assert problem(await vera.client.post(CHANGE, json=wish())) == (422, "wrong_password")
    assert await rows(product.db, "select revoked_why from user_sessions where revoked_at is not null") == [
        ("password",)
    ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (wish("wrong"), "wrong_password"),
        (wish(new="short"), "weak_password"),
        (wish(new="password1234"), "weak_password"),
        (wish(new="vera-vera-vera-1x"), "weak_password"),
        ({"new_password": FRESH}, "invalid"),
        (wish(new="x" * 300), "invalid"),
        (wish() | {"user": "otto"}, "invalid"),
    ],
)
async def test_a_password_change_that_cannot_be_changes_nothing(
    people: People, body: dict[str, str], code: str
) -> None:
    product = people.product
    vera = await people.person("vera", password=PASSWORD)
    await add_session(product.db, product.config, vera.user)
    before = await rows(product.db, "select password_hash from users")
    answer = await vera.client.post(CHANGE, json=body)
    assert problem(answer) == (422, code)
    assert FRESH not in answer.text
    assert await rows(product.db, "select password_hash from users") == before
    assert await rows(product.db, "select * from user_sessions where revoked_at is not null") == []


async def test_a_stolen_session_cannot_guess_the_password_for_long(people: People) -> None:
    vera = await people.person("vera", password=PASSWORD)
    answers = [await vera.client.post(CHANGE, json=wish(f"wrong-{n}")) for n in range(11)]
    assert [answer.status_code for answer in answers] == [422] * 10 + [429]
    assert await outcomes(people.product.db) == ["wrong_password"] * 10


async def test_two_password_changes_at_once_are_one(people: People) -> None:
    vera = await people.person("vera", password=PASSWORD)
    answers = await asyncio.gather(*(vera.client.post(CHANGE, json=wish(new=f"{FRESH} {n}")) for n in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_one_sees_and_ends_ones_own_sessions(people: People) -> None:
    product = people.product
    vera, otto = await people.viewer(), await people.operator()
    other, token = await add_session(product.db, product.config, vera.user, address="192.0.2.7", user_agent="phone")
    await add_session(product.db, product.config, vera.user, revoked_at=utc_now())
    await add_session(product.db, product.config, vera.user, expires_at=utc_now() - timedelta(seconds=1))
    seen = (await vera.client.get(SESSIONS)).json()
    assert {(one["id"], one["is_current"]) for one in seen} == {(str(vera.session.id), True), (str(other.id), False)}
    assert "seed" not in seen[0]
    assert (await vera.client.delete(f"{SESSIONS}/{other.id}")).status_code == 204
    assert problem(await vera.client.delete(f"{SESSIONS}/{other.id}")) == (404, "not_found")
    assert (await (await people.client(token)).get(ME)).status_code == 401
    assert problem(await vera.client.delete(f"{SESSIONS}/{otto.session.id}")) == (404, "not_found")
    assert (await otto.client.get(ME)).status_code == 200
    assert (await vera.client.delete(f"{SESSIONS}/nonsense")).status_code == 422


async def test_one_ends_all_ones_other_sessions(people: People) -> None:
    product = people.product
    vera, otto = await people.viewer(), await people.operator()
    for _ in range(3):
        await add_session(product.db, product.config, vera.user)
    assert [(await vera.client.delete(SESSIONS)).json() for _ in range(2)] == [{"ended": 3}, {"ended": 0}]
    assert (await vera.client.get(ME)).status_code == 200
    assert (await otto.client.get(ME)).status_code == 200


async def test_an_api_key_is_shown_once_and_opens_what_its_scopes_say(people: People) -> None:
    db = people.product.db
    otto = await people.operator()
    answer = await otto.client.post(KEYS, json={"name": "nightly build"})
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    made = answer.json()
    assert made["key"].startswith(f"bl_{made['prefix']}_")
    assert (made["scopes"], made["expires_at"], made["last_used_at"]) == (["read"], None, None)
    reading = await people.client(made["key"])
    me = (await reading.get(ME)).json()
    assert (me["kind"], me["name"], me["role"], me["scopes"]) == ("api_key", "otto", "viewer", ["read"])
    assert (await reading.get("/api/job-schedules")).status_code == 200
    refused = await reading.post("/api/tasks/noop")
    assert problem(refused) == (403, "scope_needed")
    assert refused.json()["needed_scope"] == "write"
    writing = await people.client((await otto.client.post(KEYS, json={"name": "w", "scopes": ["write"]})).json()["key"])
    assert (await writing.get("/api/job-schedules")).status_code == 200
    assert (await writing.post("/api/job-schedules/preview", json={})).status_code == 422
    listed = await otto.client.get(KEYS)
    assert made["key"] not in listed.text
    assert [one["name"] for one in listed.json()] == ["w", "nightly build"]
    assert listed.json()[1]["last_used_at"] is not None
    assert made["key"][-48:] not in str(await rows(db, "select row_to_json(k)::text from api_keys k"))


async def test_a_revoked_an_expired_and_a_changed_key_open_nothing(people: People) -> None:
    db = people.product.db
    vera = await people.viewer()
    made = (await vera.client.post(KEYS, json={"name": "a"})).json()
    holder = await people.client(made["key"])
    assert (await holder.get(ME)).status_code == 200
    for key in (
        made["key"][:-1] + ("0" if made["key"][-1] != "0" else "1"),
        made["key"] + "0",
        f"bl_{'a' * 10}_{'0' * 48}",
    ):
        assert (await (await people.client(key)).get(ME)).status_code == 401
    await change(db, "update api_keys set expires_at = now() - interval '1 second'")
    assert (await holder.get(ME)).status_code == 401
    await change(db, "update api_keys set expires_at = null")
    assert (await vera.client.delete(f"{KEYS}/{made['id']}")).status_code == 204
    assert (await holder.get(ME)).status_code == 401
    assert problem(await vera.client.delete(f"{KEYS}/{made['id']}")) == (404, "not_found")
    assert (await vera.client.get(KEYS)).json() == []
    # The name is free again.
    assert (await vera.client.post(KEYS, json={"name": "a"})).status_code == 201


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid"),
        ({"name": ""}, 422, "invalid"),
        ({"name": "a\nb"}, 422, "invalid"),
        ({"name": "a", "scopes": []}, 422, "invalid"),
        ({"name": "a", "scopes": ["root"]}, 422, "invalid"),
        ({"name": "a", "expires_at": "2030-01-01T00:00:00"}, 422, "invalid"),
        ({"name": "a", "expires_at": "2020-01-01T00:00:00Z"}, 422, "expires_at"),
        ({"name": "a", "expires_at": "9999-12-31T23:59:59Z"}, 422, "invalid"),
        ({"name": "a", "scopes": ["read", "write"]}, 422, "scopes"),
        ({"name": "a", "scopes": ["admin"]}, 422, "scopes"),
        ({"name": "taken"}, 409, "taken"),
        ({"name": "a", "key": "bl_mine"}, 422, "invalid"),
    ],
)
async def test_an_api_key_that_cannot_be_is_refused(
    people: People, body: dict[str, Any], status: int, code: str
) -> None:
    vera = await people.viewer()
    await vera.client.post(KEYS, json={"name": "taken"})
    assert problem(await vera.client.post(KEYS, json=body)) == (status, code)
    assert await rows(people.product.db, "select name from api_keys") == [("taken",)]


async def test_nobody_has_more_than_fifty_keys(people: People) -> None:
    vera = await people.viewer()
    answers = await asyncio.gather(*(vera.client.post(KEYS, json={"name": f"key {n}"}) for n in range(52)))
    assert sorted(answer.status_code for answer in answers) == [201] * 50 + [409] * 2


async def test_an_api_key_gives_no_power_over_its_owners_account(people: People) -> None:
    ada = await people.admin()
    _, key = await add_api_key(people.product.db, ada.user, Scope.ADMIN)
    holder = await people.client(key)
    asked = [
        await holder.get(SESSIONS),
        await holder.delete(SESSIONS),
        await holder.get(KEYS),
        await holder.post(KEYS, json={"name": "more"}),
        await holder.delete(f"{KEYS}/{ada.id}"),
        await holder.post(CHANGE, json=wish()),
        await holder.post("/api/auth/logout"),
    ]
    assert {problem(answer) for answer in asked} == {(403, "sign_in_needed")}
    # What its scope is for, it may do.
    assert (await holder.get("/api/users")).status_code == 200


async def test_a_demoted_owner_narrows_a_key_at_once(people: People) -> None:
    otto = await people.person("otto", Role.OPERATOR)
    _, key = await add_api_key(people.product.db, otto.user, Scope.WRITE)
    holder = await people.client(key)
    assert (await holder.post("/api/job-templates", json={})).status_code == 422
    await change(people.product.db, "update users set role = 'viewer'")
    refused = await holder.post("/api/job-templates", json={})
    assert problem(refused) == (403, "role_needed")
    assert refused.json()["needed_role"] == "operator"
    assert (await holder.get(ME)).json()["role"] == "viewer"


async def test_the_service_key_is_an_operator_without_an_account(people: People) -> None:
    client = people.product.client
    me = (await client.get(ME)).json()
    assert (me["kind"], me["name"], me["role"], me["user"]) == ("service", "service", "operator", None)
    assert problem(await client.get(KEYS)) == (403, "sign_in_needed")
    assert problem(await client.get("/api/users")) == (403, "role_needed")
