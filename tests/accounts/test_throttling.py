"""Guesses of passwords end soon: by name, by address, with and without Redis."""

import asyncio

import httpx
import pytest

from backend.config import load
from devstack.readiness import free_port
from tests.accounts.conftest import change, outcomes, problem, rows
from tests.fixtures.people import PASSWORD, People, add_user
from tests.fixtures.product import Start

LOGIN = "/api/auth/login"


async def log_in(
    client: httpx.AsyncClient, username: str = "vera", password: str = "wrong", **headers: str
) -> httpx.Response:
    return await client.post(LOGIN, json={"username": username, "password": password}, headers=headers)


async def test_the_tenth_wrong_password_locks_the_name_for_half_a_minute(people: People) -> None:
    db = people.product.db
    await add_user(db, "vera", password=PASSWORD)
    client = await people.client(None)
    assert {(await log_in(client, f"{'VeRa' if n % 2 else 'vera'} ")).status_code for n in range(10)} == {401}
    for password in ("wrong", PASSWORD):
        answer = await log_in(client, password=password)
        assert problem(answer) == (429, "locked")
        assert 25 <= int(answer.headers["Retry-After"]) <= 30
    assert await outcomes(db) == ["wrong_password"] * 10 + ["locked"] * 2
    # What was refused unseen makes nothing longer.
    assert await rows(db, "select attempts from login_throttles where bucket = 'account'") == [(10,)]
    # Others are let in, also from there.
    await add_user(db, "otto", password=PASSWORD)
    assert (await log_in(client, "otto", PASSWORD)).status_code == 200


async def test_a_name_that_nobody_has_is_locked_alike(people: People) -> None:
    await add_user(people.product.db, "vera", password=PASSWORD)
    client = await people.client(None)
    known = [await log_in(client) for _ in range(11)]
    unknown = [await log_in(client, "nobody") for _ in range(11)]
    assert [answer.status_code for answer in unknown] == [answer.status_code for answer in known]
    assert unknown[0].text == known[0].text
    assert unknown[-1].json()["code"] == known[-1].json()["code"] == "locked"


async def test_each_further_attempt_doubles_the_lock_up_to_a_quarter_of_an_hour(people: People) -> None:
    db = people.product.db
    await add_user(db, "vera", password=PASSWORD)
    client = await people.client(None)
    for _ in range(10):
        await log_in(client)
    waits = []
    for _ in range(8):
        waits.append(int((await log_in(client)).headers["Retry-After"]))
        await change(db, "update login_throttles set locked_until = now() where bucket = 'account'")
        assert (await log_in(client)).status_code == 401
    assert waits == pytest.approx([30, 60, 120, 240, 480, 900, 900, 900], abs=2)
    await change(db, "update login_throttles set locked_until = now() where bucket = 'account'")
    assert (await log_in(client, password=PASSWORD)).status_code == 200
    assert await rows(db, "select * from login_throttles where bucket = 'account'") == []


async def test_a_quiet_quarter_of_an_hour_forgets_the_attempts(people: People) -> None:
    db = people.product.db
    client = await people.client(None)
    for _ in range(9):
        await log_in(client)
    await change(db, "update login_throttles set last_attempt_at = now() - interval '16 minutes'")
    await log_in(client)
    assert await rows(db, "select attempts, locked_until from login_throttles where bucket = 'account'") == [(1, None)]


async def test_fifty_guesses_at_once_are_no_better_than_fifty_in_a_row(people: People) -> None:
    db = people.product.db
    await add_user(db, "vera", password=PASSWORD)
    client = await people.client(None)
    answers = await asyncio.gather(*(log_in(client) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [401] * 10 + [429] * 40


async def test_an_address_is_locked_whatever_names_it_tries(start: Start) -> None:
    product = await start(BEATLINE_LOGIN_ADDRESS_ATTEMPTS="15")
    await add_user(product.db, "vera", password=PASSWORD)
    async with httpx.AsyncClient(base_url=product.config.api_url, verify=False) as client:
        answers = [await log_in(client, f"name-{n}") for n in range(15)]
        assert {answer.status_code for answer in answers} == {401}
        assert problem(await log_in(client, "vera", PASSWORD)) == (429, "locked")
        await change(product.db, "update login_throttles set locked_until = now() where bucket = 'address'")
        # The right password of one account is no licence to guess another's.
        assert (await log_in(client, "vera", PASSWORD)).status_code == 200
        assert await rows(product.db, "select attempts from login_throttles where bucket = 'address'") == [(15,)]


async def test_forwarded_headers_name_no_address_unless_their_proxy_is_trusted(start: Start) -> None:
    product = await start()
    await add_user(product.db, "vera", password=PASSWORD)
    async with httpx.AsyncClient(base_url=product.config.api_url, verify=False) as client:
        await log_in(client, **{"X-Forwarded-For": "203.0.113.9"})
    assert await rows(product.db, "select key from login_throttles where bucket = 'address'") == [("127.0.0.1",)]


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        # What stands left of the last stranger may be anybody's invention.
        ("198.51.100.1, 203.0.113.9, 127.0.0.1", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("<script>", "unknown"),
    ],
)
async def test_a_trusted_proxy_says_where_a_request_comes_from(start: Start, forwarded: str, address: str) -> None:
    product = await start(BEATLINE_TRUSTED_PROXIES="127.0.0.0/8, 10.0.0.1")
    async with httpx.AsyncClient(base_url=product.config.api_url, verify=False) as client:
        assert (await log_in(client, **{"X-Forwarded-For": forwarded})).status_code == 401
    assert await rows(product.db, "select key from login_throttles where bucket = 'address'") == [(address,)]


async def test_while_redis_is_away_people_sign_in_and_guesses_are_counted(start: Start) -> None:
    product = await start(REDIS_PORT=str(free_port()))
    await add_user(product.db, "vera", password=PASSWORD)
    async with httpx.AsyncClient(base_url=product.config.api_url, verify=False) as client:
        assert (await log_in(client, password=PASSWORD)).status_code == 200
        assert [(await log_in(client)).status_code for _ in range(11)] == [401] * 10 + [429]


async def test_a_flood_from_one_address_is_turned_away_before_anything_is_looked_at(people: People) -> None:
    client = await people.client(None)
    answers = [await client.post(LOGIN, json={}) for _ in range(121)]
    assert {answer.status_code for answer in answers[:120]} == {422}
    assert problem(answers[120]) == (429, "rate_limited")
    assert int(answers[120].headers["Retry-After"]) >= 1
    assert await rows(people.product.db, "select * from login_throttles") == []


async def test_an_admin_who_sets_a_password_ends_the_lock(people: People) -> None:
    ada = await people.admin()
    user = await add_user(people.product.db, "vera", password=PASSWORD, email="vera@example.net")
    client = await people.client(None)
    for name in ("vera", "vera@example.net"):
        assert [(await log_in(client, name)).status_code for _ in range(11)][-1] == 429
    fresh = "another walrus eats it all"
    answer = await ada.client.post(f"/api/users/{user.id}/password", json={"new_password": fresh})
    assert answer.status_code == 200
    for name in ("vera", "vera@example.net"):
        assert (await log_in(client, name, fresh)).status_code == 200


def test_proxies_are_addresses_and_networks() -> None:
    assert load({"BEATLINE_TRUSTED_PROXIES": "10.0.0.0/8, ::1"}).accounts.trusted_proxies == ("10.0.0.0/8", "::1")
