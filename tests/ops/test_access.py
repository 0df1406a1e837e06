"""Who may see the pages and press their buttons."""

import re
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from backend.accounts import service as accounts
from backend.accounts.schemas import ApiKeyCreate, UserUpdate
from backend.core.principal import Principal, Role
from backend.ops.access import COOKIE, inside
from backend.ops.routes import router
from tests.factories.jobs import add_alert, add_run, add_schedule, add_template, run_row
from tests.fixtures.product import Product, Start
from tests.ops.conftest import SignIn, add_user
from tests.queues.test_dead_letters import add as add_letter

ROUTES = [(route.path or "", route.methods or set()) for route in iter_route_contexts(router.routes)]
OPEN = {"/ops/sign-in", "/ops/sign-out"}
_VALUES = {"path": "nowhere", "schedule_id": "1"}


def paths(method: str, *beginnings: str) -> list[str]:
    """Every guarded path of that method, its parts filled in; what a share link opens is not guarded."""
    found = [path for path, methods in ROUTES if method in methods and path not in OPEN and path.startswith("/ops")]
    filled = [re.sub(r"\{(\w+)(:path)?\}", lambda part: _VALUES.get(part[1], str(UUID(int=1))), path) for path in found]
    return [path for path in filled if not beginnings or path.startswith(beginnings)]


def led_to_sign_in(answer: httpx.Response) -> bool:
    return answer.status_code == 303 and answer.headers["Location"].startswith("/ops/sign-in?")


async def test_without_a_session_every_page_and_every_button_leads_to_the_sign_in(nobody: httpx.AsyncClient) -> None:
    assert len(paths("GET")) > 15
    assert len(paths("POST")) > 15
    for path in paths("GET"):
        answer = await nobody.get(path)
        assert led_to_sign_in(answer), path
        assert answer.headers["Location"] == str(httpx.URL("/ops/sign-in", params={"next": path}))
    for path in paths("POST"):
        assert led_to_sign_in(await nobody.post(path)), path


async def test_a_button_pressed_from_another_site_is_refused_even_for_an_admin(sign_in: SignIn) -> None:
    admin = await sign_in("admin")
    for path in [*paths("POST"), *OPEN]:
        answer = await admin.post(path, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403, path
        assert "does not come from a page of this host" in answer.text
    assert (await admin.get("/ops/me")).status_code == 200


async def test_a_viewer_is_refused_every_button_but_their_own(sign_in: SignIn) -> None:
    viewer = await sign_in("viewer")
    for path in paths("POST"):
        # Whose a recording is decides there: tests/ops/recordings.
        if not path.startswith(("/ops/me", "/ops/recordings")):
            answer = await viewer.post(path)
            assert answer.status_code == 403, path
            assert "Not allowed" in answer.text
            assert "An admin can give you another role." in answer.text
    for path in (
        *paths("GET", "/ops/people", "/ops/quotas", "/ops/audit"),
        "/ops/schedules/new",
        "/ops/dead-letters/confirm?do=discard",
    ):
        assert (await viewer.get(path)).status_code == 403, path


async def test_an_operator_knows_nothing_of_people_and_logs(sign_in: SignIn) -> None:
    operator = await sign_in("operator")
    for path in paths("GET", "/ops/people", "/ops/quotas", "/ops/audit"):
        assert (await operator.get(path)).status_code == 403, path
    for path in paths("POST", "/ops/people", "/ops/quotas", "/ops/audit"):
        assert (await operator.post(path)).status_code == 403, path
    page = (await operator.get("/ops/queues?still=true")).text
    assert "/ops/people" not in page
    assert "/ops/audit" not in page


async def test_no_page_holds_a_script_or_a_style_of_its_own(product: Product, sign_in: SignIn) -> None:
    admin = await sign_in("admin")
    letter = await add_letter(product.db)
    await add_schedule(product.db, await add_template(product.db))
    for path in [
        *paths("GET"),
        f"/ops/dead-letters/{letter.id}",
        f"/ops/dead-letters/confirm?do=requeue&id={letter.id}",
    ]:
        page = await admin.get(path)
        assert not re.search(r"<script(?![^>]*\bsrc=\"/ops/static/)|<style|\sstyle=|\son\w+=|javascript:", page.text), (
            path
        )
        if "text/html" in page.headers.get("Content-Type", ""):
            policy = page.headers["Content-Security-Policy"]
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
            assert page.headers["Cache-Control"] == "no-store"


async def test_a_viewer_sees_what_an_operator_sees_without_its_buttons(product: Product, sign_in: SignIn) -> None:
    schedule = await add_schedule(product.db, await add_template(product.db))
    run, letter = await add_run(product.db, schedule, "failed"), await add_letter(product.db)
    viewer, operator = await sign_in("viewer"), await sign_in("operator")
    for path in (
        "/ops/schedules",
        f"/ops/schedules/{schedule}",
        f"/ops/runs/{run}",
        "/ops/dead-letters",
        f"/ops/dead-letters/{letter.id}",
        "/ops/queues?still=true",
    ):
        seen, acting = (await viewer.get(path)).text, (await operator.get(path)).text
        buttons = seen.partition("<main")[2].replace('<button class="plain">Filter</button>', "")
        assert "<button" not in buttons, path
        assert 'type="checkbox"' not in buttons
        assert acting.count("<button") > seen.count("<button"), path
    assert "/ops/schedules/new" not in (await viewer.get("/ops/schedules")).text


async def test_who_acted_is_written_down(product: Product, sign_in: SignIn) -> None:
    schedule = await add_schedule(product.db, await add_template(product.db))
    user = await add_user(product, "operator")
    operator = await sign_in(user.username)
    started = await operator.post(f"/ops/schedules/{schedule}/run-now", data={"key": str(uuid4())})
    run = await run_row(product.db, UUID(started.headers["Location"].rpartition("/")[2]))
    assert run.triggered_by == user.username
    letter = await add_letter(product.db)
    await operator.post("/ops/dead-letters/discard", data={"id": str(letter.id)})
    assert f"by {user.username}" in (await operator.get(f"/ops/dead-letters/{letter.id}")).text


async def test_a_role_that_changes_counts_at_once(product: Product, sign_in: SignIn) -> None:
    user = await add_user(product, "operator")
    operator = await sign_in(user.username)
    assert (await operator.get("/ops/schedules/new")).status_code == 200
    async with product.db.transaction() as session:
        await accounts.update_user(session, user.id, UserUpdate(role=Role.VIEWER))
    assert (await operator.get("/ops/schedules/new")).status_code == 403
    async with product.db.transaction() as session:
        await accounts.update_user(session, user.id, UserUpdate(is_active=False))
    assert led_to_sign_in(await operator.get("/ops/schedules"))


async def test_an_api_key_is_no_session_of_the_pages(product: Product, nobody: httpx.AsyncClient) -> None:
    user = await add_user(product)
    principal = Principal("user", user.username, Role.VIEWER, user_id=user.id)
    async with product.db.transaction() as session:
        key = await accounts.create_api_key(session, principal, ApiKeyCreate(name="x"))
    for token in (key.key, "x", "service.1.x", "service.99999999999.0", "service..", "service.²."):
        answer = await nobody.get("/ops/calls", headers={b"Cookie": f"{COOKIE}={token}".encode()})
        assert led_to_sign_in(answer), token


async def test_the_service_key_has_no_account_and_no_people(browser: httpx.AsyncClient) -> None:
    for path in ("/ops/people", "/ops/audit", "/ops/me"):
        assert (await browser.get(path)).status_code == 403
    assert "The service key has no account" in (await browser.get("/ops/me")).text
    assert (await browser.get("/ops/queues?still=true")).status_code == 200


async def test_what_is_no_page_is_not_found_on_a_page(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/ops/nowhere/<b>")
    assert answer.status_code == 404
    assert "Not found" in answer.text
    assert "<b>" not in answer.text.replace('<b class="badge">', "")
    assert (await browser.get("/ops/calls/")).headers["Location"] == "/ops/calls"
    assert (await browser.get("/ops/")).headers["Location"] == "/ops"
    assert (await browser.get("/ops")).headers["Location"] == "/ops/calls"


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("/ops", "/ops"),
        ("/ops/runs?state=failed&x=%2F", "/ops/runs?state=failed&x=%2F"),
        ("/opsy", "/ops"),
        ("//evil.example/ops", "/ops"),
        ("https://evil.example/ops/", "/ops"),
        ("/ops/\r\nSet-Cookie: a=b", "/ops"),
        ("/ops/ä", "/ops"),
        ("\\\\evil.example", "/ops"),
        ("", "/ops"),
        (None, "/ops"),
    ],
)
def test_nothing_leads_out_of_the_pages(path: str | None, leads: str) -> None:
    assert inside(path) == leads


async def test_while_the_database_is_away_a_page_says_so(start: Start) -> None:
    product = await start(DATABASE_URL="postgresql://nobody@127.0.0.1:9/none")
    auth = ("operator", product.config.service_key)
    async with httpx.AsyncClient(base_url=product.config.api_url, auth=auth) as client:
        page = await client.get("/ops/queues")
        await product.stop_api()
    assert page.status_code == 503
    assert "The database is away; try again shortly." in page.text


async def test_the_navigation_shows_where_one_is_and_what_waits(product: Product, sign_in: SignIn) -> None:
    viewer = await sign_in("viewer")
    page = (await viewer.get("/ops/queues?still=true")).text
    assert '<a href="/ops/queues" aria-current="page">Queues</a>' in page
    assert page.count('aria-current="page"') == 1
    assert 'class="badge"' not in page
    schedule = await add_schedule(product.db, await add_template(product.db))
    await add_alert(product.db, schedule)
    page = (await viewer.get(f"/ops/schedules/{schedule}")).text
    assert 'aria-current="true">Schedules<b class="badge">1<span class="hidden"> open alerts</span></b></a>' in page
    assert re.search(r'<a href="/ops/me">viewer\d+</a><small>viewer</small>', page)
