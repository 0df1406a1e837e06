"""What admins do about people."""

import asyncio
from typing import Any

import pytest

from backend.core.principal import Role, Scope
from tests.accounts.conftest import change, problem, rows
from tests.fixtures.people import PASSWORD, People, add_api_key, add_session, add_user

USERS, ME = "/api/users", "/api/auth/me"


def wish(**fields: Any) -> dict[str, Any]:
    return {"username": "vera", "password": PASSWORD, **fields}


async def test_an_admin_makes_an_account_that_can_sign_in(people: People) -> None:
    ada = await people.admin()
    answer = await ada.client.post(USERS, json=wish(email="v@example.net", display_name="Vera", role="operator"))
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["Location"] == f"/api/users/{made['id']}"
    assert (made["username"], made["role"], made["is_active"], made["created_by"]) == ("vera", "operator", True, "ada")
    assert "hash" not in answer.text
    assert PASSWORD not in answer.text
    tried = await (await people.client(None)).post(
        "/api/auth/login", json={"username": "v@example.net", "password": PASSWORD}
    )
    assert tried.status_code == 200
    shown = (await ada.client.get(f"{USERS}/{made['id']}")).json()
    assert shown["last_login_at"] is not None
    assert shown["stats"] is None
    # A second delivery makes no second one, whatever the case.
    for again in (wish(), wish(username="VERA"), wish(username="other", email="V@EXAMPLE.net")):
        assert problem(await ada.client.post(USERS, json=again)) == (409, "taken")
    assert (await ada.client.post(USERS, json=wish(username="plain"))).json()["role"] == "viewer"


async def test_ten_requests_at_once_make_one_account(people: People) -> None:
    ada = await people.admin()
    answers = await asyncio.gather(*(ada.client.post(USERS, json=wish()) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"username": ""}, "invalid"),
        ({"username": "a"}, "invalid"),
        ({"username": "a b"}, "invalid"),
        ({"username": "vera@example.net"}, "invalid"),
        ({"username": "wéra"}, "invalid"),
        ({"username": "Service"}, "invalid"),
        ({"username": "cli"}, "invalid"),
        ({"username": "x" * 65}, "invalid"),
        ({"email": "nonsense"}, "invalid"),
        ({"email": "a@b@example.net"}, "invalid"),
        ({"email": "a,b@example.net"}, "invalid"),
        ({"email": "Vera <v@example.net>"}, "invalid"),
        ({"email": "v@example..net"}, "invalid"),
        ({"email": "v@" + "x" * 250 + ".net"}, "invalid"),
        ({"display_name": "a\u0000b"}, "invalid"),
        ({"role": "root"}, "invalid"),
        ({"password": "short"}, "weak_password"),
        ({"username": "walrus-lover", "password": "walrus-lover-7"}, "weak_password"),
        ({"is_active": False}, "invalid"),
        ({"id": "00000000-0000-0000-0000-000000000000"}, "invalid"),
    ],
)
async def test_an_account_that_cannot_be_is_refused(people: People, fields: dict[str, Any], code: str) -> None:
    ada = await people.admin()
    assert problem(await ada.client.post(USERS, json=wish(**fields))) == (422, code)
    assert await rows(people.product.db, "select username from users") == [("ada",)]


async def test_blanks_around_a_name_are_nobodys_meaning(people: People) -> None:
    ada = await people.admin()
    made = (await ada.client.post(USERS, json=wish(username=" vera ", email="v@example.net\n"))).json()
    assert (made["username"], made["email"]) == ("vera", "v@example.net")


async def test_users_are_listed_newest_first_by_pages_and_filters(people: People) -> None:
    ada = await people.admin()
    for n in range(5):
        await add_user(people.product.db, f"user{n}", Role.OPERATOR if n % 2 else Role.VIEWER, is_active=n != 4)
    names, cursor = [], None
    while True:
        page = (await ada.client.get(USERS, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        names += [user["username"] for user in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert names == ["user4", "user3", "user2", "user1", "user0", "ada"]
    found = (await ada.client.get(USERS, params={"role": "operator"})).json()["items"]
    assert [user["username"] for user in found] == ["user3", "user1"]
    found = (await ada.client.get(USERS, params={"is_active": False})).json()["items"]
    assert [user["username"] for user in found] == ["user4"]
    assert (await ada.client.get(USERS, params={"cursor": "x"})).status_code == 422


async def test_a_role_counts_from_the_next_request_on(people: People) -> None:
    ada, otto = await people.admin(), await people.operator()
    assert (await otto.client.post("/api/job-templates", json={})).status_code == 422
    for _ in range(2):
        answer = await ada.client.patch(f"{USERS}/{otto.id}", json={"role": "viewer"})
        assert (answer.status_code, answer.json()["role"]) == (200, "viewer")
    assert problem(await otto.client.post("/api/job-templates", json={})) == (403, "role_needed")
    assert (await otto.client.get("/api/job-templates")).status_code == 200
    await ada.client.patch(f"{USERS}/{otto.id}", json={"role": "admin"})
    assert (await otto.client.get(USERS)).status_code == 200


async def test_who_is_deactivated_is_out_at_once_and_not_back_by_old_tokens(people: People) -> None:
    product = people.product
    ada, otto = await people.admin(), await people.operator()
    _, key = await add_api_key(product.db, otto.user, Scope.READ)
    holder = await people.client(key)
    answer = await ada.client.patch(f"{USERS}/{otto.id}", json={"is_active": False})
    assert answer.json()["is_active"] is False
    assert (await otto.client.get(ME)).status_code == 401
    assert (await holder.get(ME)).status_code == 401
    assert await rows(product.db, "select revoked_why from user_sessions where user_id = :id", id=otto.id) == [
        ("deactivated",)
    ]
    await ada.client.patch(f"{USERS}/{otto.id}", json={"is_active": True})
    assert (await otto.client.get(ME)).status_code == 401
    assert (await holder.get(ME)).status_code == 200


@pytest.mark.parametrize("fields", [{"role": "operator"}, {"is_active": False}, {"role": "viewer", "is_active": False}])
async def test_the_last_active_admin_stays_one(people: People, fields: dict[str, Any]) -> None:
    ada = await people.admin()
    await add_user(people.product.db, "gone", Role.ADMIN, is_active=False)
    assert problem(await ada.client.patch(f"{USERS}/{ada.id}", json=fields)) == (409, "last_admin")
    assert (await ada.client.get(USERS)).status_code == 200
    await add_user(people.product.db, "eve", Role.ADMIN)
    assert (await ada.client.patch(f"{USERS}/{ada.id}", json=fields)).status_code == 200


async def test_two_admins_who_demote_each_other_at_once_leave_one(people: People) -> None:
    for n in range(5):
        one, other = await people.admin(f"one{n}"), await people.admin(f"other{n}")
        answers = await asyncio.gather(
            one.client.patch(f"{USERS}/{other.id}", json={"role": "viewer"}),
            other.client.patch(f"{USERS}/{one.id}", json={"role": "viewer"}),
        )
        assert min(answer.status_code for answer in answers) == 200
        left = await rows(people.product.db, "select id from users where role = 'admin' and is_active")
        assert len(left) == 1
        await change(people.product.db, "update users set role = 'viewer'")


async def test_name_and_address_are_edited_and_what_is_left_out_stays(people: People) -> None:
    ada = await people.admin()
    vera = await people.person("vera", email="v@example.net", display_name="Vera")
    await add_user(people.product.db, "other", email="o@example.net")
    edited = (await ada.client.patch(f"{USERS}/{vera.id}", json={"display_name": "V."})).json()
    assert (edited["display_name"], edited["email"], edited["role"]) == ("V.", "v@example.net", "viewer")
    assert problem(await ada.client.patch(f"{USERS}/{vera.id}", json={"email": "O@example.net"})) == (409, "taken")
    assert (await ada.client.patch(f"{USERS}/{vera.id}", json={"email": None})).json()["email"] is None
    assert (await ada.client.patch(f"{USERS}/{vera.id}", json={"username": "new"})).status_code == 422
    assert (await ada.client.patch(f"{USERS}/{vera.id}", json={})).status_code == 200


async def test_a_password_that_an_admin_sets_ends_all_sessions(people: People) -> None:
    ada, vera = await people.admin(), await people.viewer()
    await add_session(people.product.db, people.product.config, vera.user)
    url = f"{USERS}/{vera.id}/password"
    assert problem(await ada.client.post(url, json={"new_password": "short"})) == (422, "weak_password")
    assert (await vera.client.get(ME)).status_code == 200
    assert (await ada.client.post(url, json={"new_password": PASSWORD})).json() == {"ended": 2}
    assert (await vera.client.get(ME)).status_code == 401
    assert (await ada.client.post(url, json={"new_password": PASSWORD})).json() == {"ended": 0}
    tried = await (await people.client(None)).post("/api/auth/login", json={"username": "vera", "password": PASSWORD})
    assert tried.status_code == 200


async def test_an_admin_sees_and_ends_sessions_and_keys_of_others(people: People) -> None:
    ada, vera = await people.admin(), await people.viewer()
    row, key = await add_api_key(people.product.db, vera.user, Scope.READ)
    mine, _ = await add_api_key(people.product.db, ada.user, Scope.READ)
    url = f"{USERS}/{vera.id}"
    assert [one["id"] for one in (await ada.client.get(f"{url}/sessions")).json()] == [str(vera.session.id)]
    keys = await ada.client.get(f"{url}/api-keys")
    assert [one["id"] for one in keys.json()] == [str(row.id)]
    assert key not in keys.text
    assert problem(await ada.client.delete(f"{url}/api-keys/{mine.id}")) == (404, "not_found")
    assert (await ada.client.delete(f"{url}/api-keys/{row.id}")).status_code == 204
    assert problem(await ada.client.delete(f"{url}/api-keys/{row.id}")) == (404, "not_found")
    assert (await (await people.client(key)).get(ME)).status_code == 401
    assert [(await ada.client.delete(f"{url}/sessions")).json() for _ in range(2)] == [{"ended": 1}, {"ended": 0}]
    assert (await vera.client.get(ME)).status_code == 401


async def test_nobody_is_not_found(people: People) -> None:
    ada = await people.admin()
    url = f"{USERS}/00000000-0000-0000-0000-000000000000"
    answers = [
        await ada.client.get(url),
        await ada.client.patch(url, json={"role": "admin"}),
        await ada.client.post(f"{url}/password", json={"new_password": PASSWORD}),
        await ada.client.get(f"{url}/sessions"),
        await ada.client.delete(f"{url}/sessions"),
        await ada.client.get(f"{url}/api-keys"),
        await ada.client.delete(f"{url}/api-keys/{ada.id}"),
    ]
    assert {problem(answer) for answer in answers} == {(404, "not_found")}
    assert (await ada.client.get(f"{USERS}/nonsense")).status_code == 422


async def test_what_is_made_and_started_names_who_did_it(people: People) -> None:
    otto = await people.operator()
    _, key = await add_api_key(people.product.db, otto.user, Scope.WRITE)
    for number, client, name in (
        (1, otto.client, "otto"),
        (2, await people.client(key), "otto"),
        (3, people.product.client, "service"),
    ):
        body = {"name": f"template {number}", "kind": "noop", "parameters": {}}
        template = (await client.post("/api/job-templates", json=body)).json()
        timed = {"template_id": template["id"], "cron_expression": "0 2 * * *"}
        schedule = (await client.post("/api/job-schedules", json=timed)).json()
        run = (await client.post(f"/api/job-schedules/{schedule['id']}/run-now")).json()
        again = (await client.post(f"/api/job-runs/{run['id']}/cancel")).json()
        assert [template["created_by"], schedule["created_by"], run["triggered_by"]] == [name] * 3
        assert again["triggered_by"] == name
