"""The pages of people: what admins do about accounts."""

import asyncio
import re
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from sqlmodel import col, update

from backend.accounts import service as accounts
from backend.accounts.models import User
from backend.accounts.schemas import ApiKeyCreate, UserDetail, UserRead
from backend.core.clock import utc_now
from backend.core.principal import Principal, Role
from tests.fixtures.pages import fields, told
from tests.fixtures.product import Product
from tests.ops.conftest import PASSWORD, SignIn, add_user

PEOPLE = "/ops/people"
NEW = f"{PEOPLE}/new"


@pytest.fixture
async def admin(product: Product, sign_in: SignIn) -> httpx.AsyncClient:
    return await sign_in((await add_user(product, "admin", "ada")).username)


async def user_of(product: Product, user_id: UUID) -> UserDetail:
    async with product.db.transaction() as session:
        return await accounts.read_user(session, user_id)


async def people(product: Product) -> list[UserRead]:
    async with product.db.transaction() as session:
        return (await accounts.list_users(session)).items


async def test_the_list_shows_everybody_and_is_narrowed_down(product: Product, admin: httpx.AsyncClient) -> None:
    await add_user(product, "viewer", "vic")
    names = r'href="/ops/people/[0-9a-f-]{36}">(\w+)<'
    for query, shown in (("", ["vic", "ada"]), ("?role=viewer&state=", ["vic"]), ("?state=inactive", [])):
        page = await admin.get(PEOPLE + query)
        assert re.findall(names, page.text) == shown
    assert "Nobody is like that" in page.text


async def test_quotas_belong_to_people_in_the_navigation(admin: httpx.AsyncClient) -> None:
    assert '<a href="/ops/people" aria-current="true">People' in (await admin.get("/ops/quotas")).text
    assert '<a href="/ops/people" aria-current="page">People' in (await admin.get(PEOPLE)).text


async def test_an_account_is_made_with_the_suggested_password(product: Product, admin: httpx.AsyncClient) -> None:
    form = fields((await admin.get(NEW)).text)
    assert re.fullmatch(r"(\w{4}-){3}\w{4}", str(form["password"]))
    wish = form | {"username": "olga", "display_name": "Olga <b>", "role": "operator", "email": ""}
    answers = await asyncio.gather(*(admin.post(NEW, data=wish) for _ in range(2)))
    assert {answer.status_code for answer in answers} == {303}
    assert len({answer.headers["Location"] for answer in answers}) == 1
    assert "olga has an account" in await told(admin)
    page = (await admin.get(answers[0].headers["Location"])).text
    assert "Olga &lt;b&gt;" in page
    made = await people(product)
    assert [(user.username, user.role, user.created_by) for user in made] == [
        ("olga", "operator", "ada"),
        ("ada", "admin", "tests"),
    ]
    async with httpx.AsyncClient(base_url=product.config.api_url, headers=dict(admin.headers)) as other:
        signed = await other.post("/ops/sign-in", data={"username": "olga", "password": form["password"]})
    assert signed.status_code == 303


async def test_a_name_that_was_given_a_while_ago_is_taken(product: Product, admin: httpx.AsyncClient) -> None:
    wish = {"username": "olga", "role": "viewer", "password": PASSWORD}
    assert (await admin.post(NEW, data=wish)).status_code == 303
    async with product.db.transaction() as session:
        earlier = utc_now() - timedelta(minutes=1)
        await session.exec(update(User).where(col(User.username) == "olga").values(created_at=earlier))
    page = await admin.post(NEW, data=wish)
    assert page.status_code == 422
    assert "somebody has the user name olga" in page.text


@pytest.mark.parametrize(
    ("wish", "field", "said"),
    [
        ({"username": "x y"}, "username", "use 2 to 64 letters"),
        ({"username": "service"}, "username", "is reserved"),
        ({"username": ""}, "username", "Field required"),
        ({"username": "ada"}, "username", "somebody has the user name ada"),
        ({"email": "nowhere"}, "email", "must be an address such as"),
        ({"role": "king"}, "role", "Input should be"),
        ({"password": "short"}, "password", "must have 12 to 256 characters"),
        ({"password": "password1234"}, "password", "first that anybody would try"),
    ],
)
async def test_what_is_wrong_stands_beside_its_field_and_the_rest_is_kept(
    product: Product, admin: httpx.AsyncClient, wish: dict[str, str], field: str, said: str
) -> None:
    form = {"username": "vic", "email": "vic@example.org", "role": "viewer", "password": PASSWORD} | wish
    page = await admin.post(NEW, data=form)
    assert page.status_code == 422
    found = re.search(rf'<span class="fault" id="{field}-fault">([^<]+)', page.text)
    assert found
    assert said in found[1]
    assert f'aria-describedby="{field}-fault" autofocus' in page.text
    kept = fields(page.text)
    assert {name: kept[name] for name in ("username", "email")} == {name: form[name] for name in ("username", "email")}
    assert len(await people(product)) == 1


async def test_name_address_and_role_are_changed(product: Product, admin: httpx.AsyncClient) -> None:
    user = await add_user(product)
    for _ in range(2):
        wish = {"display_name": " Vic ", "email": "vic@example.org", "role": "operator"}
        answer = await admin.post(f"{PEOPLE}/{user.id}", data=wish)
        assert answer.headers["Location"] == f"{PEOPLE}/{user.id}"
    changed = await user_of(product, user.id)
    assert (changed.display_name, changed.email, changed.role) == ("Vic", "vic@example.org", "operator")
    await admin.post(f"{PEOPLE}/{user.id}", data={"display_name": "", "email": "", "role": "operator"})
    changed = await user_of(product, user.id)
    assert (changed.display_name, changed.email) == ("", None)
    other = await add_user(product)
    await admin.post(f"{PEOPLE}/{user.id}", data={"email": "vic@example.org"})
    taken = await admin.post(f"{PEOPLE}/{other.id}", data={"email": "vic@example.org"})
    assert taken.status_code == 422
    assert "somebody has this e-mail address already" in taken.text
    wrong = await admin.post(f"{PEOPLE}/{other.id}", data={"role": "king"})
    assert wrong.status_code == 422
    assert 'id="role-fault"' in wrong.text


async def test_the_last_admin_stays_one(product: Product, admin: httpx.AsyncClient) -> None:
    (ada,) = await people(product)
    page = await admin.post(f"{PEOPLE}/{ada.id}", data={"role": "viewer"})
    assert page.status_code == 422
    assert "last active admin" in page.text
    page = await admin.post(f"{PEOPLE}/{ada.id}/active", data={"active": "false"})
    assert page.status_code == 409
    assert "last active admin" in page.text
    assert (await user_of(product, ada.id)).role == Role.ADMIN


async def test_who_is_deactivated_is_out_and_can_be_let_in_again(
    product: Product, admin: httpx.AsyncClient, sign_in: SignIn
) -> None:
    user = await add_user(product)
    theirs = await sign_in(user.username)
    for _ in range(2):
        await admin.post(f"{PEOPLE}/{user.id}/active", data={"active": "false"})
        assert "cannot sign in any more" in await told(admin)
    assert (await theirs.get("/ops/calls")).status_code == 303
    page = (await admin.get(f"{PEOPLE}/{user.id}")).text
    assert "deactivated" in page
    assert 'name="active" value="true"' in page
    await admin.post(f"{PEOPLE}/{user.id}/active", data={"active": "true"})
    assert (await user_of(product, user.id)).is_active


async def test_a_new_password_ends_the_old_sessions(
    product: Product, admin: httpx.AsyncClient, sign_in: SignIn
) -> None:
    user = await add_user(product)
    theirs = await sign_in(user.username)
    weak = await admin.post(f"{PEOPLE}/{user.id}/password", data={"new_password": "short"})
    assert weak.status_code == 422
    assert 'id="new_password-fault">must have 12 to 256 characters' in weak.text
    assert (await theirs.get("/ops/calls")).status_code == 200
    await admin.post(f"{PEOPLE}/{user.id}/password", data={"new_password": "another-lamp-77"})
    assert "one session has ended" in await told(admin)
    assert (await theirs.get("/ops/calls")).status_code == 303
    wish = {"username": user.username, "password": "another-lamp-77"}
    assert (await theirs.post("/ops/sign-in", data=wish)).status_code == 303


async def test_sessions_and_keys_of_others_are_seen_and_ended(
    product: Product, admin: httpx.AsyncClient, sign_in: SignIn
) -> None:
    user = await add_user(product)
    theirs = await sign_in(user.username)
    owner = Principal("user", user.username, Role.VIEWER, user_id=user.id)
    async with product.db.transaction() as session:
        key = await accounts.create_api_key(session, owner, ApiKeyCreate(name="export"))
    page = (await admin.get(f"{PEOPLE}/{user.id}")).text
    for fact in ("python-httpx", "export", f"bl_{key.prefix}_", "End all sessions"):
        assert fact in page
    assert key.key not in page
    for said in ("The API key is revoked.", "That API key was revoked already."):
        await admin.post(f"{PEOPLE}/{user.id}/api-keys/{key.id}/revoke")
        assert said in await told(admin)
    for said in ("One session has ended.", "No sessions have ended."):
        await admin.post(f"{PEOPLE}/{user.id}/sessions/end")
        assert said in await told(admin)
    assert (await theirs.get("/ops/calls")).status_code == 303


async def test_whoever_is_not_there_is_not_found(admin: httpx.AsyncClient) -> None:
    nobody = f"{PEOPLE}/{uuid4()}"
    assert (await admin.get(nobody)).status_code == 404
    for path, wish in (
        ("", {"role": "viewer"}),
        ("/active", {"active": "true"}),
        ("/password", {"new_password": PASSWORD}),
        ("/sessions/end", {}),
        (f"/api-keys/{uuid4()}/revoke", {}),
    ):
        assert (await admin.post(nobody + path, data=wish)).status_code == 404, path
