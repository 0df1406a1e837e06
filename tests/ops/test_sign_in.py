"""Signing in and out of the pages."""

import re
import time

import httpx
import pytest

from backend.accounts import service as accounts
from backend.audit.schemas import LoginFilter, OperationFilter
from backend.audit.service import list_logins, list_operations, sweep
from backend.ops.access import COOKIE, service_session
from tests.fixtures.pages import fields, told
from tests.fixtures.product import Product, Start, eventually
from tests.ops.conftest import PASSWORD, SignIn, add_user, own_pages

FORM = "/ops/sign-in"


async def outcomes(product: Product) -> list[tuple[str, str]]:
    """Of the login log, oldest first."""
    await sweep(product.db)
    async with product.db.transaction() as session:
        page = await list_logins(session, LoginFilter())
    return [(entry.username, entry.outcome) for entry in reversed(page.items)]


async def test_the_sign_in_leads_to_the_page_that_was_asked_for(product: Product, nobody: httpx.AsyncClient) -> None:
    user = await add_user(product)
    asked = await nobody.get("/ops/runs?state=failed")
    page = await nobody.get(asked.headers["Location"])
    assert page.status_code == 200
    assert "session has ended" not in page.text
    form = fields(page.text)
    answer = await nobody.post(FORM, data=form | {"username": user.username, "password": PASSWORD})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/ops/runs?state=failed")
    cookie = answer.headers["Set-Cookie"]
    for part in (f"{COOKIE}=", "HttpOnly", "Max-Age=43200", "Path=/ops", "SameSite=lax"):
        assert part in cookie
    assert "Secure" not in cookie
    home = await nobody.get("/ops/runs")
    assert home.status_code == 200
    assert f'<a href="/ops/me">{user.username}</a><small>viewer</small>' in home.text
    assert await outcomes(product) == [(user.username, "success")]


async def test_on_https_the_cookie_goes_over_https_alone(start: Start) -> None:
    product = await start(BEATLINE_TRUSTED_PROXIES="127.0.0.1")
    user = await add_user(product)
    async with httpx.AsyncClient(base_url=product.config.api_url, headers=own_pages(product)) as client:
        wish = {"username": user.username, "password": PASSWORD}
        answer = await client.post(FORM, data=wish, headers={"X-Forwarded-Proto": "https"})
    assert answer.status_code == 303
    assert "; Secure" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize("page", ["https://evil.example", "//evil.example", "/elsewhere", "/ops/\r\nX: y"])
async def test_the_sign_in_leads_to_no_other_site(product: Product, nobody: httpx.AsyncClient, page: str) -> None:
    assert 'name="next" value="/ops"' in (await nobody.get(FORM, params={"next": page})).text
    user = await add_user(product)
    answer = await nobody.post(FORM, data={"username": user.username, "password": PASSWORD, "next": page})
    assert answer.headers["Location"] == "/ops"


async def test_what_is_wrong_is_said_without_telling_who_has_an_account(
    product: Product, nobody: httpx.AsyncClient
) -> None:
    user = await add_user(product)
    pages = [
        await nobody.post(FORM, data={"username": name, "password": "not-her-password"})
        for name in (user.username, "who-is-this")
    ]
    for page in pages:
        assert page.status_code == 422
        assert "Set-Cookie" not in page.headers
        assert "not-her-password" not in page.text
    first, second = (re.sub(r'value="[^"]*"', "", page.text) for page in pages)
    assert "The user name or the password is wrong" in first
    assert first == second
    empty = await nobody.post(FORM, data={"username": " ", "password": ""})
    assert "Type your user name and your password." in empty.text
    assert await outcomes(product) == [(user.username, "wrong_password"), ("who-is-this", "unknown_user")]


async def test_hostile_names_stay_text(nobody: httpx.AsyncClient) -> None:
    page = await nobody.post(FORM, data={"username": '"><script>alert(1)</script>\x00', "password": "x"})
    assert page.status_code == 422
    assert "is wrong" in page.text
    assert "<script>" not in page.text


async def test_too_many_attempts_are_locked_out_and_told_for_how_long(start: Start) -> None:
    product = await start(BEATLINE_LOGIN_ATTEMPTS="3")
    user = await add_user(product)
    async with httpx.AsyncClient(base_url=product.config.api_url, headers=own_pages(product)) as client:
        for _ in range(3):
            await client.post(FORM, data={"username": user.username, "password": "guess"})
        page = await client.post(FORM, data={"username": user.username, "password": PASSWORD})
    assert page.status_code == 429
    assert re.search(r"Too many attempts to sign in; try again in \d+ s\.", page.text)
    assert "Set-Cookie" not in page.headers


async def test_signing_out_ends_the_session_itself_and_once_more_changes_nothing(
    product: Product, sign_in: SignIn
) -> None:
    user = await add_user(product)
    client = await sign_in(user.username)
    token = client.cookies[COOKIE]
    for _ in range(2):
        answer = await client.post("/ops/sign-out")
        assert (answer.status_code, answer.headers["Location"]) == (303, FORM)
        assert "You are signed out." in await told(client, FORM)
    assert COOKIE not in client.cookies
    client.cookies.set(COOKIE, token, path="/ops")
    assert (await client.get("/ops/calls")).status_code == 303
    assert [outcome for _, outcome in await outcomes(product)] == ["success", "logout"]


async def test_a_session_that_has_ended_leads_to_the_sign_in_and_back(product: Product, sign_in: SignIn) -> None:
    user = await add_user(product, "operator")
    client = await sign_in(user.username)
    async with product.db.transaction() as session:
        await accounts.end_sessions(session, user.id)
    page = await client.get("/ops/queues?still=true")
    assert page.headers["Location"] == f"{FORM}?next=%2Fops%2Fqueues%3Fstill%3Dtrue&ended=true"
    assert "Your session has ended" in (await client.get(page.headers["Location"])).text
    referer = {"Referer": f"{product.config.api_url}/ops/schedules?state=active"}
    pressed = await client.post("/ops/schedules/1/pause", data={"back": "/ops/schedules"}, headers=referer)
    assert pressed.headers["Location"] == f"{FORM}?next=%2Fops%2Fschedules%3Fstate%3Dactive&ended=true"
    elsewhere = {"Referer": "https://evil.example//evil"}
    pressed = await client.post("/ops/schedules/1/pause", headers=elsewhere)
    assert pressed.headers["Location"] == f"{FORM}?next=%2Fops&ended=true"
    live = {"HX-Request": "true", "HX-Current-URL": f"{product.config.api_url}/ops/queues"}
    answer = await client.get("/ops/queues", headers=live)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (200, f"{FORM}?next=%2Fops%2Fqueues&ended=true")


async def test_the_service_key_signs_in_under_any_name_and_its_cookie_does_not_hold_it(
    product: Product, nobody: httpx.AsyncClient
) -> None:
    key = product.config.service_key
    answer = await nobody.post(FORM, data={"username": "whoever", "password": key, "next": "/ops/queues"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/ops/queues")
    assert key not in answer.headers["Set-Cookie"]
    assert "<span>service</span>" in (await nobody.get("/ops/calls")).text
    token = nobody.cookies[COOKIE]
    kind, ends, proof = token.split(".")
    over = service_session(product.config, int(time.time()) - 1)
    for forged in (f"{kind}.{int(ends) + 1}.{proof}", f"{kind}.{ends}.{proof[:-1]}", f"{kind}.{ends}", over):
        answer = await nobody.get("/ops/calls", headers={"Cookie": f"{COOKIE}={forged}"})
        assert answer.status_code == 303
    await nobody.post("/ops/sign-out")
    assert (await nobody.get("/ops/calls")).status_code == 303
    assert await outcomes(product) == [("service", "success")]


async def test_no_password_stands_in_the_log_of_what_was_done(product: Product, nobody: httpx.AsyncClient) -> None:
    user = await add_user(product)
    await nobody.post(FORM, data={"username": user.username, "password": PASSWORD})

    async def logged() -> str:
        await sweep(product.db)
        async with product.db.transaction() as session:
            page = await list_operations(session, OperationFilter())
        return "".join(entry.model_dump_json() for entry in page.items)

    found = str(await eventually(logged))
    assert '"path":"/ops/sign-in"' in found
    assert PASSWORD not in found
