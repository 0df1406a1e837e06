"""The pages of dead letters: what they show, and what their buttons do."""

import asyncio
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from sqlmodel import col, select

from backend.celery_app import app
from backend.core.clock import utc_now
from backend.core.db import Database
from backend.core.dead_letters import Kind
from backend.queues.models import DeadLetter
from devstack.servers import ValkeyServer
from tests.fixtures.pages import fields, told
from tests.fixtures.product import Product
from tests.queues.test_dead_letters import add

LETTERS = "/ops/dead-letters"
HOSTILE = "<script>alert(1)</script>"


async def states(db: Database) -> list[str]:
    async with db.transaction() as session:
        return list((await session.exec(select(DeadLetter.state).order_by(col(DeadLetter.first_seen)))).all())


async def row(db: Database, letter_id: UUID) -> DeadLetter:
    async with db.transaction() as session:
        found = await session.get(DeadLetter, letter_id)
    assert found is not None
    return found


def waiting(queue: str) -> int:
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        return int(channel.client.llen(queue))


@pytest.fixture
def broker(valkey: ValkeyServer) -> None:
    app.control.purge()


async def test_without_dead_letters_the_page_says_what_would_stand_there(browser: httpx.AsyncClient) -> None:
    page = await browser.get(LETTERS)
    assert page.status_code == 200
    assert "No task waits for a decision" in page.text
    assert 'class="badge"' not in page.text


async def test_the_list_shows_open_letters_and_the_navigation_counts_them(
    product: Product, browser: httpx.AsyncClient
) -> None:
    found = await add(product.db, error="PermanentError: no such customer")
    await add(product.db, kwargs={"token": "abcdefgh"})
    page = (await browser.get(LETTERS)).text
    for fact in (f'href="{LETTERS}/{found.id}"', "PermanentError: no such customer", "no retry can help"):
        assert fact in page
    assert page.count("cannot be sent again") == 1
    assert '<b class="badge">2<span class="hidden"> open</span></b>' in (await browser.get("/ops/calls")).text


async def test_hostile_text_stays_text_on_every_page_of_a_letter(product: Product, browser: httpx.AsyncClient) -> None:
    found = await add(
        product.db, task=HOSTILE, queue=HOSTILE, error=HOSTILE, trace=HOSTILE, kwargs={HOSTILE: f'">{HOSTILE}'}
    )
    paths = [f"{LETTERS}?task={HOSTILE}&queue={HOSTILE}", f"{LETTERS}/{found.id}"]
    paths += [f"{LETTERS}/confirm?do={act}&id={found.id}" for act in ("requeue", "discard")]
    for path in paths:
        page = await browser.get(path)
        assert page.status_code == 200
        assert "<script>" not in page.text
        assert "&lt;script&gt;" in page.text
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", {"noop", "sleep"}),
        ("?task=noop", {"noop"}),
        ("?queue=low_priority", {"sleep"}),
        ("?kind=error", {"noop"}),
        ("?since=2099-01-01T00:00", set()),
        ("?since=2000-01-01T00:00&queue=&kind=", {"noop", "sleep"}),
        ("?state=discarded", set()),
        ("?state=all&task=+noop+", {"noop"}),
    ],
)
async def test_the_list_is_narrowed_down(
    product: Product, browser: httpx.AsyncClient, query: str, shown: set[str]
) -> None:
    await add(product.db)
    await add(product.db, task="noop", queue="default", kind=Kind.ERROR)
    page = (await browser.get(LETTERS + query)).text
    assert set(re.findall(rf'href="{LETTERS}/[0-9a-f-]{{36}}">(\w+)<', page)) == shown
    if not shown:
        assert 'class="empty"' in page


async def test_a_filter_that_makes_no_sense_is_named(browser: httpx.AsyncClient) -> None:
    for query, said in (("since=tomorrow", "since: must be a day and time such as"), ("kind=odd", "kind: ")):
        page = await browser.get(f"{LETTERS}?{query}")
        assert page.status_code == 422
        assert said in page.text


async def test_the_list_pages_and_keeps_its_filters(product: Product, browser: httpx.AsyncClient) -> None:
    for _ in range(51):
        await add(product.db)
    page = (await browser.get(f"{LETTERS}?queue=low_priority")).text
    (older,) = re.findall(r'href="(\?queue=low_priority&amp;cursor=[^"]+)"', page)
    rest = (await browser.get(LETTERS + older.replace("&amp;", "&"))).text
    assert (page.count('name="id"'), rest.count('name="id"')) == (50, 1)


async def test_a_letter_shows_its_story_without_secrets(product: Product, browser: httpx.AsyncClient) -> None:
    found = await add(product.db, trace="Traceback: here", kwargs={"seconds": 1, "password": "swordfish-4711"})
    page = (await browser.get(f"{LETTERS}/{found.id}")).text
    for fact in ("Traceback: here", "[redacted]", found.task_id, "ended once", "secrets were taken out"):
        assert fact in page
    assert "swordfish" not in page
    assert 'value="requeue"' not in page
    assert (await browser.get(f"{LETTERS}/{uuid4()}")).status_code == 404


async def test_nothing_is_done_before_it_was_confirmed(
    product: Product, browser: httpx.AsyncClient, broker: None
) -> None:
    found, secret = await add(product.db), await add(product.db, kwargs={"token": "abcdefgh"})
    page = (await browser.get(f"{LETTERS}/confirm?do=requeue&id={found.id}&id={secret.id}")).text
    assert "Requeue this task?" in page
    assert "its arguments are not whole" in page
    assert (await states(product.db), waiting("low_priority")) == (["open", "open"], 0)


async def test_nothing_selected_is_said(browser: httpx.AsyncClient) -> None:
    answer = await browser.get(f"{LETTERS}/confirm?do=requeue&back=/ops/dead-letters?queue=audio")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/ops/dead-letters?queue=audio")
    assert "No letter is selected" in await told(browser)


async def test_selected_letters_are_sent_again_and_a_second_click_sends_nothing(
    product: Product, browser: httpx.AsyncClient, broker: None
) -> None:
    one, two, left = [await add(product.db, queue="audio") for _ in range(3)]
    page = await browser.get(f"{LETTERS}/confirm?do=requeue&id={one.id}&id={two.id}&back=/ops/dead-letters")
    form = fields(page.text)
    answers = await asyncio.gather(*(browser.post(f"{LETTERS}/requeue", data=form) for _ in range(2)))
    assert {(answer.status_code, answer.headers["Location"]) for answer in answers} == {(303, LETTERS)}
    assert "2 tasks are sent again." in await told(browser)
    assert (await states(product.db), waiting("audio")) == (["requeued", "requeued", "open"], 2)
    assert (await row(product.db, one.id)).closed_by == "service"
    assert (await row(product.db, left.id)).closed_by == ""
    # One of them ends again: the old page's button is no decision about that.
    again = (await row(product.db, two.id)).requeued_task_id
    await add(product.db, task_id=again, queue="audio", again=str(two.id))
    assert (await row(product.db, two.id)).state == "open"
    await browser.post(f"{LETTERS}/requeue", data=form)
    assert "1 task is sent again. sleep has ended again meanwhile." in await told(browser)
    assert waiting("audio") == 2


async def test_what_cannot_be_sent_is_said_and_the_rest_is_sent(
    product: Product, browser: httpx.AsyncClient, broker: None
) -> None:
    good, secret = await add(product.db), await add(product.db, kwargs={"token": "abcdefgh"})
    wish = {"id": [str(secret.id), str(good.id), str(uuid4())], "before": utc_now().isoformat()}
    await browser.post(f"{LETTERS}/requeue", data=wish)
    text = await told(browser)
    for said in ("1 task is sent again.", "its arguments are redacted.", "no dead letter"):
        assert said in text
    assert await states(product.db) == ["requeued", "open"]


async def test_discarding_twice_is_once(product: Product, browser: httpx.AsyncClient) -> None:
    found = await add(product.db)
    page = await browser.get(f"{LETTERS}/confirm?do=discard&id={found.id}&back={LETTERS}/{found.id}")
    for _ in range(2):
        answer = await browser.post(f"{LETTERS}/discard", data=fields(page.text))
        assert answer.headers["Location"] == f"{LETTERS}/{found.id}"
        assert "1 task is discarded." in await told(browser)
    detail = (await browser.get(f"{LETTERS}/{found.id}")).text
    assert "by service" in detail
    assert 'value="requeue"' in detail
    assert 'value="discard"' not in detail


async def test_all_that_match_are_sent_by_one_task_however_often_the_button_is_pressed(
    product: Product, browser: httpx.AsyncClient, broker: None
) -> None:
    for queue in ("audio", "audio", "default"):
        await add(product.db, queue=queue)
    page = await browser.get(f"{LETTERS}/confirm-all?queue=audio")
    assert "Requeue 2 tasks?" in page.text
    form = fields(page.text) | {"per_second": "5"}
    action = re.findall(r'action="(/ops/dead-letters/requeue-all[^"]*)"', page.text)[0]
    answers = [await browser.post(action, data=form) for _ in range(2)]
    assert len({answer.headers["Location"] for answer in answers}) == 1
    assert waiting("low_priority") == 1
    progress = await browser.get(answers[0].headers["Location"])
    assert progress.status_code == 200
    assert "waits for a worker" in progress.text
    assert 'hx-trigger="every 5s"' in progress.text


@pytest.mark.parametrize(
    ("state", "kept", "said", "live"),
    [
        ("PROGRESS", {"done": 3, "total": 6}, "3 of 6", True),
        (
            "SUCCESS",
            {"requeued": 1, "refused": 2, "reasons": ["<b>why</b>"]},
            "1 task was sent again, 2 could not be.",
            False,
        ),
        ("FAILURE", RuntimeError("the broker is away"), "RuntimeError: the broker is away", False),
    ],
)
# Celery's Redis backend still says `setex`.
@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
async def test_how_far_a_requeue_is_is_shown_until_it_ends(
    product: Product, browser: httpx.AsyncClient, broker: None, state: str, kept: object, said: str, live: bool
) -> None:
    await add(product.db)
    form = fields((await browser.get(f"{LETTERS}/confirm-all")).text)
    page = (await browser.post(f"{LETTERS}/requeue-all", data=form)).headers["Location"]
    app.backend.store_result(page.rpartition("/")[2], kept, state)
    shown = (await browser.get(page)).text
    assert said in shown
    assert "<b>why" not in shown
    assert ("hx-get" in shown) == live


async def test_too_odd_a_pace_is_refused_beside_its_field(
    product: Product, browser: httpx.AsyncClient, broker: None
) -> None:
    await add(product.db)
    form = fields((await browser.get(f"{LETTERS}/confirm-all")).text)
    for pace in ("0.1", "nan", "fast", "1e9", " "):
        answer = await browser.post(f"{LETTERS}/requeue-all?queue=low_priority", data=form | {"per_second": pace})
        assert answer.status_code == 422
        assert 'id="per_second-fault">must be a number from 0.34 to 1000' in answer.text
        assert f'value="{pace}"' in answer.text
        assert 'action="/ops/dead-letters/requeue-all?queue=low_priority"' in answer.text
    assert waiting("low_priority") == 0


async def test_where_nothing_can_be_sent_all_of_it_is_no_choice(product: Product, browser: httpx.AsyncClient) -> None:
    await add(product.db, kwargs={"token": "abcdefgh"})
    assert "Requeue all" not in (await browser.get(LETTERS)).text
    answer = await browser.get(f"{LETTERS}/confirm-all")
    assert answer.status_code == 303
    assert "None of these letters can be sent again." in await told(browser)


async def test_a_button_leads_nowhere_else(product: Product, browser: httpx.AsyncClient) -> None:
    found = await add(product.db)
    for back in ("https://evil.example/", "//evil.example", "/ops/../x\r\nSet-Cookie: a=b", "/elsewhere"):
        answer = await browser.post(f"{LETTERS}/discard", data={"id": str(found.id), "back": back})
        assert answer.status_code == 422
        answer = await browser.get(f"{LETTERS}/confirm", params={"do": "discard", "id": str(found.id), "back": back})
        assert answer.status_code == 422
    assert await states(product.db) == ["open"]


async def test_what_a_button_said_is_shown_once(product: Product, browser: httpx.AsyncClient) -> None:
    found = await add(product.db)
    answer = await browser.post(f"{LETTERS}/discard", data={"id": str(found.id)})
    assert "httponly" in answer.headers["Set-Cookie"].lower()
    assert parse_qs(urlsplit(answer.headers["Location"]).query) == {}
    assert "1 task is discarded." in (await browser.get(LETTERS)).text
    assert "1 task is discarded." not in (await browser.get(LETTERS)).text


@pytest.mark.parametrize("cookie", ["x", "W10", "WyJhIiwgMV0", "WyJhIiwgdHJ1ZV0", "____", "W1tbW1tb"])
async def test_no_cookie_breaks_a_page(browser: httpx.AsyncClient, cookie: str) -> None:
    assert (await browser.get(LETTERS, headers={"Cookie": f"beatline_said={cookie}"})).status_code == 200
