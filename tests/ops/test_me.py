"""The page of one's own account."""

import re
from uuid import uuid4

import httpx
import pytest

from backend.accounts import service as accounts
from backend.accounts.schemas import ApiKeyCreate, UserRead
from backend.core.principal import Principal, Role
from tests.fixtures.pages import told
from tests.fixtures.product import Product, Start
from tests.ops.conftest import PASSWORD, SignIn, add_user, own_pages

ME = "/ops/me"
BETTER = "another-lamp-77"


def change(current: str = PASSWORD, new: str = BETTER, again: str = BETTER) -> dict[str, str]:
    return {"current_password": current, "new_password": new, "repeated_password": again}


@pytest.fixture
async def user(product: Product) -> UserRead:
    return await add_user(product, "operator")


async def test_a_new_password_ends_the_other_sessions_and_not_this_one(sign_in: SignIn, user: UserRead) -> None:
    here, there = await sign_in(user.username), await sign_in(user.username)
    answer = await here.post(f"{ME}/password", data=change())
    assert (answer.status_code, answer.headers["Location"]) == (303, ME)
    assert "Your password is changed. Your 1 other session has ended." in await told(here)
    assert (await here.get(ME)).status_code == 200
    assert (await there.get(ME)).status_code == 303
    second = await here.post(f"{ME}/password", data=change())
    assert 'id="current_password-fault">is wrong' in second.text


@pytest.mark.parametrize(
    ("wish", "field", "said"),
    [
        (change(current="not-mine-at-all"), "current_password", "is wrong"),
        (change(current=""), "current_password", "must not be empty"),
        (change(again="something-else-5"), "repeated_password", "is not what stands above"),
        (change(new="short", again="short"), "new_password", "must have 12 to 256 characters"),
    ],
)
async def test_what_is_wrong_with_a_password_stands_beside_its_field(
    sign_in: SignIn, user: UserRead, wish: dict[str, str], field: str, said: str
) -> None:
    here = await sign_in(user.username)
    page = await here.post(f"{ME}/password", data=wish)
    assert page.status_code == 422
    assert f'id="{field}-fault">{said}' in page.text
    assert not any(secret in page.text for secret in wish.values() if secret and secret != "short")
    again = await sign_in(user.username)
    assert (await again.get(ME)).status_code == 200


async def test_guessing_the_password_here_is_locked_out_as_well(start: Start) -> None:
    product = await start(BEATLINE_LOGIN_ATTEMPTS="3")
    user = await add_user(product)
    async with httpx.AsyncClient(base_url=product.config.api_url, headers=own_pages(product)) as client:
        await client.post("/ops/sign-in", data={"username": user.username, "password": PASSWORD})
        for _ in range(3):
            await client.post(f"{ME}/password", data=change(current="guess"))
        page = await client.post(f"{ME}/password", data=change())
    assert page.status_code == 429
    assert "Too many attempts" in page.text


async def test_sessions_are_listed_and_ended(sign_in: SignIn, user: UserRead) -> None:
    here, there, yonder = [await sign_in(user.username) for _ in range(3)]
    page = (await here.get(ME)).text
    assert page.count("this one") == 1
    one, _ = re.findall(rf'action="({ME}/sessions/[0-9a-f-]{{36}}/end)"', page)
    for said in ("The session has ended.", "That session had ended already."):
        await here.post(one)
        assert said in await told(here)
    assert sorted([(await client.get(ME)).status_code for client in (there, yonder)]) == [200, 303]
    for said in ("1 other session has ended.", "No other sessions have ended."):
        await here.post(f"{ME}/sessions/end-others")
        assert said in await told(here)
    assert {(await client.get(ME)).status_code for client in (there, yonder)} == {303}
    assert (await here.get(ME)).status_code == 200


async def test_another_persons_sessions_and_keys_are_not_theirs_to_end(
    product: Product, sign_in: SignIn, user: UserRead
) -> None:
    theirs, stranger = await sign_in(user.username), await sign_in("operator")
    owner = Principal("user", user.username, Role.OPERATOR, user_id=user.id)
    async with product.db.transaction() as session:
        key = await accounts.create_api_key(session, owner, ApiKeyCreate(name="export"))
        (session_of_user,) = await accounts.list_sessions(session, user.id)
    await stranger.post(f"{ME}/sessions/{session_of_user.id}/end")
    await stranger.post(f"{ME}/api-keys/{key.id}/revoke")
    await stranger.post(f"{ME}/sessions/{uuid4()}/end")
    assert (await theirs.get(ME)).text.count("export") >= 1
    async with httpx.AsyncClient(base_url=product.config.api_url) as program:
        assert (await program.get("/api/auth/me", headers={"Authorization": f"Bearer {key.key}"})).status_code == 200


async def test_an_api_key_is_shown_once_and_works_until_it_is_revoked(
    product: Product, sign_in: SignIn, user: UserRead
) -> None:
    here = await sign_in(user.username)
    answer = await here.post(f"{ME}/api-keys", data={"name": "nightly export", "scope": "read", "days": "30"})
    assert answer.status_code == 200
    (key,) = re.findall(r'value="(bl_\w+)"', answer.text)
    assert answer.headers["Cache-Control"] == "no-store"
    assert key not in (await here.get(ME)).text
    async with httpx.AsyncClient(
        base_url=product.config.api_url, headers={"Authorization": f"Bearer {key}"}
    ) as program:
        assert (await program.get("/api/queues")).status_code == 200
        assert (await program.post("/api/tasks/noop")).status_code == 403
        again = await here.post(f"{ME}/api-keys", data={"name": "nightly export", "scope": "read", "days": ""})
        assert again.status_code == 422
        assert "If you have just made it and have not seen it, revoke it" in again.text
        (revoke,) = re.findall(rf'action="({ME}/api-keys/[0-9a-f-]{{36}}/revoke)"', again.text)
        for said in ("The API key is revoked.", "That API key was revoked already."):
            await here.post(revoke)
            assert said in await told(here)
        assert (await program.get("/api/queues")).status_code == 401


@pytest.mark.parametrize(
    ("wish", "field", "said"),
    [
        ({"name": ""}, "name", "use 1 to 64 letters"),
        ({"name": "<b>"}, "name", "use 1 to 64 letters"),
        ({"scope": "admin"}, "scope", "is more than the role operator may do"),
        ({"scope": "all"}, "scope", "Input should be"),
        ({"days": "10000"}, "days", "choose one of them"),
    ],
)
async def test_what_is_wrong_with_a_key_stands_beside_its_field(
    sign_in: SignIn, user: UserRead, wish: dict[str, str], field: str, said: str
) -> None:
    here = await sign_in(user.username)
    page = await here.post(f"{ME}/api-keys", data={"name": "export", "scope": "read", "days": "30"} | wish)
    assert page.status_code == 422
    found = re.search(rf'id="{field}-fault">([^<]+)', page.text)
    assert found
    assert said in found[1]
    assert "<details open>" in page.text
    assert 'class="secret"' not in page.text


async def test_a_viewers_key_is_offered_no_more_than_a_viewer_may(sign_in: SignIn) -> None:
    page = (await (await sign_in("viewer")).get(ME)).text
    assert "read: see what a viewer sees" in page
    assert "write: do what" not in page
