"""Signing in, going on and signing out, through the door."""

import asyncio
from datetime import timedelta

import httpx
import pytest
from argon2 import PasswordHasher
from jwt import decode

from backend.accounts import service as accounts
from backend.core.principal import Role
from devstack.servers import PostgresServer
from tests.accounts.conftest import change, outcomes, problem, rows
from tests.fixtures.people import PASSWORD, People, access_token, add_user

LOGIN, REFRESH, LOGOUT, ME = "/api/auth/login", "/api/auth/refresh", "/api/auth/logout", "/api/auth/me"


async def log_in(client: httpx.AsyncClient, username: str = "vera", password: str = PASSWORD) -> httpx.Response:
    return await client.post(LOGIN, json={"username": username, "password": password})


async def refreshed(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post(REFRESH, json={"refresh_token": token})


async def test_a_login_gives_tokens_that_open_the_api_and_is_noted(people: People) -> None:
    db = people.product.db
    await add_user(db, "Vera", Role.VIEWER, password=PASSWORD, email="Vera@Example.net", display_name="Vera V.")
    client = await people.client(None)
    for name in ("vera", " VERA ", "vera@example.NET"):
        answer = await log_in(client, name)
        assert answer.status_code == 200, answer.text
    body = answer.json()
    assert answer.headers["Cache-Control"] == "no-store"
    assert (body["token_type"], body["expires_in"]) == ("bearer", 900)
    assert (body["user"]["username"], body["user"]["role"]) == ("Vera", "viewer")
    assert "password" not in answer.text.replace("password_changed_at", "")
    claims = decode(body["access_token"], options={"verify_signature": False})
    assert set(claims) == {"iss", "sub", "sid", "iat", "exp"}
    assert claims["sid"] == body["session_id"]
    me = (await (await people.client(body["access_token"])).get(ME)).json()
    assert (me["kind"], me["name"], me["role"], me["session_id"]) == ("user", "Vera", "viewer", body["session_id"])
    assert await outcomes(db) == ["success"] * 3
    [(count, last, address, agent)] = await rows(
        db,
        "select login_count, last_login_at, address, user_agent from users u join user_sessions s on s.user_id = u.id"
        " where s.id = :id",
        id=body["session_id"],
    )
    assert (count, last is not None, address) == (3, True, "127.0.0.1")
    assert agent.startswith("python-httpx")


async def test_no_token_and_no_password_stands_in_the_database(people: People) -> None:
    await add_user(people.product.db, "vera", password=PASSWORD)
    body = (await log_in(await people.client(None))).json()
    secrets = (body["access_token"], body["refresh_token"], body["refresh_token"][-64:], PASSWORD)
    for table in ("users", "user_sessions", "login_throttles", "audit_outbox"):
        kept = str(await rows(people.product.db, f"select row_to_json(t)::text from {table} t"))
        assert [secret for secret in secrets if secret in kept] == []


async def test_wrong_name_wrong_password_and_a_deactivated_user_are_answered_alike(people: People) -> None:
    db = people.product.db
    await add_user(db, "vera", password=PASSWORD)
    await add_user(db, "gone", password=PASSWORD, is_active=False)
    client = await people.client(None)
    answers = [await log_in(client, "vera", "wrong"), await log_in(client, "nobody"), await log_in(client, "gone")]
    assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}
    assert problem(answers[0]) == (401, "wrong_credentials")
    assert answers[0].headers["WWW-Authenticate"] == "Bearer"
    assert await outcomes(db) == ["wrong_password", "unknown_user", "inactive"]
    assert await rows(db, "select * from user_sessions") == []


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        "[]",
        "{no json",
        '{"username": "vera"}',
        '{"username": "vera", "password": ""}',
        '{"username": "", "password": "x"}',
        '{"username": "ve\\u0000ra", "password": "x"}',
        '{"username": "vera", "password": "\\ud800"}',
        '{"username": "\\udfff", "password": "x"}',
        '{"username": 7, "password": ["x"]}',
        '{"username": "vera", "password": "x", "role": "admin"}',
        '{"username": "' + "v" * 256 + '", "password": "x"}',
        '{"username": "vera", "password": "' + "x" * 1025 + '"}',
    ],
)
async def test_a_login_that_is_malformed_is_refused_without_repeating_the_password(people: People, body: str) -> None:
    answer = await (await people.client(None)).post(LOGIN, content=body, headers={"Content-Type": "application/json"})
    assert problem(answer) == (422, "invalid")
    assert "xxx" not in answer.text
    assert await outcomes(people.product.db) == []


async def test_a_hash_of_old_parameters_is_made_anew_at_the_next_login(people: People) -> None:
    db = people.product.db
    user = await add_user(db, "vera", password=PASSWORD)
    old = PasswordHasher(time_cost=1, memory_cost=8_192, parallelism=1).hash(PASSWORD)
    await change(db, "update users set password_hash = :old", old=old)
    client = await people.client(None)
    assert (await log_in(client, password="wrong")).status_code == 401
    assert await rows(db, "select password_hash from users") == [(old,)]
    assert (await log_in(client)).status_code == 200
    [(fresh,)] = await rows(db, "select password_hash from users where id = :id", id=user.id)
    assert fresh.startswith("$argon2id$v=19$m=47104")
    assert (await log_in(client)).status_code == 200
    assert await rows(db, "select password_hash from users") == [(fresh,)]


async def test_hashing_holds_up_no_other_request(people: People) -> None:
    await add_user(people.product.db, "vera", password=PASSWORD)
    client = await people.client(None)
    logins = [asyncio.create_task(log_in(client, password="wrong")) for _ in range(6)]
    await asyncio.sleep(0.02)
    answers = [(await client.get("/healthz")).status_code for _ in range(5)]
    assert not all(login.done() for login in logins)
    assert answers == [200] * 5
    await asyncio.gather(*logins)


async def test_a_refresh_token_gives_the_next_and_is_good_once(people: People) -> None:
    db = people.product.db
    await add_user(db, "vera", password=PASSWORD)
    client = await people.client(None)
    first = (await log_in(client)).json()
    second = await refreshed(client, first["refresh_token"])
    assert second.status_code == 200
    assert second.headers["Cache-Control"] == "no-store"
    third = (await refreshed(client, second.json()["refresh_token"])).json()
    assert len({first["refresh_token"], second.json()["refresh_token"], third["refresh_token"]}) == 3
    assert third["session_id"] == first["session_id"]
    assert third["session_expires_at"] == first["session_expires_at"]
    assert (await (await people.client(third["access_token"])).get(ME)).status_code == 200
    # The first is two behind.
    assert problem(await refreshed(client, first["refresh_token"])) == (401, "token_reused")
    assert problem(await refreshed(client, third["refresh_token"])) == (401, "refresh_token")
    for token in (first["access_token"], third["access_token"]):
        assert (await (await people.client(token)).get(ME)).status_code == 401
    assert await outcomes(db) == ["success", "token_reused"]
    assert await rows(db, "select revoked_why from user_sessions") == [("token_reused",)]


async def test_ten_refreshes_at_once_give_the_same_token_and_end_nothing(people: People) -> None:
    await add_user(people.product.db, "vera", password=PASSWORD)
    client = await people.client(None)
    first = (await log_in(client)).json()["refresh_token"]
    answers = await asyncio.gather(*(refreshed(client, first) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert await rows(people.product.db, "select generation from user_sessions") == [(2,)]


async def test_the_token_before_the_newest_ends_the_session_once_its_successor_has_had_its_time(people: People) -> None:
    db = people.product.db
    await add_user(db, "vera", password=PASSWORD)
    client = await people.client(None)
    first = (await log_in(client)).json()["refresh_token"]
    second = (await refreshed(client, first)).json()["refresh_token"]
    await change(db, "update user_sessions set rotated_at = now() - interval '11 seconds'")
    assert problem(await refreshed(client, first)) == (401, "token_reused")
    assert problem(await refreshed(client, second)) == (401, "refresh_token")


async def test_a_refresh_token_of_nobody_ends_nothing(people: People) -> None:
    db = people.product.db
    await add_user(db, "vera", password=PASSWORD)
    client = await people.client(None)
    good = (await log_in(client)).json()["refresh_token"]
    head, generation, proof = good.rsplit("_", 2)
    forged = [
        "garbage",
        f"{head}_{generation}_{'0' * 64}",
        f"{head}_0_{proof}",
        f"{head}_2_{proof}",
        f"blr_{'0' * 32}_{generation}_{proof}",
    ]
    for token in forged:
        assert problem(await refreshed(client, token)) == (401, "refresh_token")
    assert (await client.post(REFRESH, json={})).status_code == 422
    assert (await refreshed(client, good)).status_code == 200


@pytest.mark.parametrize(
    "end",
    [
        "update user_sessions set revoked_at = now()",
        "update user_sessions set expires_at = now() - interval '1 second'",
        "update users set is_active = false",
        "delete from user_sessions",
    ],
)
async def test_a_session_that_is_over_is_over_for_every_token(people: People, end: str) -> None:
    db = people.product.db
    await add_user(db, "vera", password=PASSWORD)
    body = (await log_in(await people.client(None))).json()
    client = await people.client(body["access_token"])
    assert (await client.get(ME)).status_code == 200
    await change(db, end)
    assert problem(await client.get(ME)) == (401, "unauthorized")
    assert problem(await refreshed(client, body["refresh_token"])) == (401, "refresh_token")


async def test_an_access_token_ends_before_its_session(people: People) -> None:
    vera = await people.viewer()
    expired = access_token(people.product.config, vera.session, lasting=timedelta(seconds=-1))
    assert (await (await people.client(expired)).get(ME)).status_code == 401
    assert (await vera.client.get(ME)).status_code == 200


async def test_logging_out_ends_the_session_at_once_and_no_other(people: People) -> None:
    db = people.product.db
    await add_user(db, "vera", password=PASSWORD)
    client = await people.client(None)
    one, other = (await log_in(client)).json(), (await log_in(client)).json()
    leaving = await people.client(one["access_token"])
    assert (await leaving.post(LOGOUT)).status_code == 204
    assert (await leaving.post(LOGOUT)).status_code == 401
    assert (await leaving.get(ME)).status_code == 401
    assert problem(await refreshed(client, one["refresh_token"])) == (401, "refresh_token")
    assert (await (await people.client(other["access_token"])).get(ME)).status_code == 200
    assert await outcomes(db) == ["success", "success", "logout"]


async def test_a_page_may_have_a_token_that_lasts_as_long_as_its_session(people: People) -> None:
    product = people.product
    await add_user(product.db, "vera", password=PASSWORD)
    day = timedelta(hours=12)
    signed = await accounts.login(
        product.db,
        config=product.config,
        username="vera",
        password=PASSWORD,
        client=accounts.Client("192.0.2.7"),
        session_lasting=day,
        access_lasting=day,
    )
    claims = decode(signed.access_token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == pytest.approx(12 * 3600, abs=2)
    authenticate = accounts.authenticator(product.config)
    principal = await authenticate(product.db, signed.access_token)
    assert principal is not None
    await accounts.logout(product.db, principal, client=accounts.Client("192.0.2.7"))
    await accounts.logout(product.db, principal, client=accounts.Client("192.0.2.7"))
    assert await authenticate(product.db, signed.access_token) is None
    assert await outcomes(product.db) == ["success", "logout"]


async def test_a_password_changed_while_the_old_one_is_looked_at_lets_nobody_in(people: People) -> None:
    db = people.product.db
    await add_user(db, "vera", password=PASSWORD)
    client = await people.client(None)
    for _ in range(5):
        trying = asyncio.create_task(log_in(client))
        await asyncio.sleep(0.02)
        await change(db, "update users set password_hash = 'none'")
        answer = await trying
        if answer.status_code == 401:
            break
        await change(db, "update users set password_hash = :made", made=PasswordHasher().hash(PASSWORD))
    assert answer.status_code == 401


async def test_the_use_of_a_session_is_noted_once_a_minute(people: People) -> None:
    db = people.product.db
    vera = await people.viewer()
    [(before,)] = await rows(db, "select last_used_at from user_sessions")
    await vera.client.get(ME)
    assert await rows(db, "select last_used_at from user_sessions") == [(before,)]
    await change(db, "update user_sessions set last_used_at = now() - interval '2 minutes'")
    await vera.client.get(ME)
    [(after,)] = await rows(db, "select last_used_at from user_sessions")
    assert after >= before


async def test_while_the_database_is_away_a_token_is_neither_good_nor_bad(
    people: People, postgres: PostgresServer
) -> None:
    vera = await people.viewer()
    await asyncio.to_thread(postgres.stop)
    try:
        assert problem(await vera.client.get(ME)) == (503, "database_away")
        assert problem(await log_in(vera.client)) == (503, "database_away")
        # Garbage is told apart without it, and so is the service key.
        assert (await (await people.client("garbage")).get(ME)).status_code == 401
        assert (await people.product.client.get("/api/job-kinds")).status_code == 200
    finally:
        await asyncio.to_thread(postgres.start)
    assert (await vera.client.get(ME)).status_code == 200
