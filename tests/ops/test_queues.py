"""The page of queues: depths, workers, health."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from backend.celery_app import app
from backend.core.clock import utc_now
from backend.core.db import Database
from backend.queues.models import HealthCheck, WorkerHeartbeat
from devstack.servers import ValkeyServer
from tests.factories.jobs import add_run
from tests.fixtures.pages import told
from tests.fixtures.product import Product

QUEUES = "/ops/queues"


@pytest.fixture(autouse=True)
def _broker(valkey: ValkeyServer) -> None:
    app.control.purge()


async def keep(db: Database, *rows: Any) -> None:
    async with db.transaction() as session:
        for row in rows:
            session.add(row)


async def test_without_workers_and_checks_the_page_says_what_to_do(browser: httpx.AsyncClient) -> None:
    page = await browser.get(QUEUES)
    assert page.status_code == 200
    for fact in ("No worker has answered yet", "Nothing was checked yet", "not checked yet", "high_priority"):
        assert fact in page.text


async def test_what_waits_is_counted_and_a_queue_that_nobody_reads_stands_out(
    product: Product, browser: httpx.AsyncClient
) -> None:
    for _ in range(3):
        app.send_task("noop", queue="low_priority", ignore_result=True)
    await add_run(product.db, None, "queued", queue="audio", publish_after=utc_now() - timedelta(minutes=9))
    await keep(product.db, WorkerHeartbeat(worker="one@host", queues=["low_priority"], concurrency=4, pid=17))
    page = (await browser.get(QUEUES)).text
    assert "<b>3</b> waiting" in page
    assert "<b>1</b> worker up" in page
    assert page.count("no worker reads this queue") == 1
    assert "-Q audio" in page
    assert "9 min" in page


async def test_workers_are_up_or_silent_and_health_is_told_by_part(
    product: Product, browser: httpx.AsyncClient
) -> None:
    gone = utc_now() - timedelta(hours=2)
    parts = {"broker": {"ok": False, "detail": "ConnectionError: <b>refused</b>", "seconds": None}}
    await keep(
        product.db,
        WorkerHeartbeat(worker="one@host", queues=["default"]),
        WorkerHeartbeat(worker="two@host", queues=["audio"], last_seen=gone),
        HealthCheck(healthy=False, parts=parts),
    )
    page = (await browser.get(QUEUES)).text
    assert page.count(">up</span>") == 1
    assert page.count(">silent</span>") == 1
    assert "2 h" in page
    assert "something is wrong" in page
    assert "ConnectionError: &lt;b&gt;refused" in page


async def test_an_old_check_says_that_nobody_checks(product: Product, browser: httpx.AsyncClient) -> None:
    await keep(product.db, HealthCheck(healthy=True, at=utc_now() - timedelta(hours=1), parts={}))
    assert "nobody checks" in (await browser.get(QUEUES)).text


async def test_the_page_follows_unless_it_was_told_to_stand_still(browser: httpx.AsyncClient) -> None:
    page = (await browser.get(QUEUES)).text
    assert 'hx-get="/ops/queues" hx-trigger="every 5s"' in page
    assert '<noscript><meta http-equiv="refresh" content="5">' in page
    still = (await browser.get(f"{QUEUES}?still=true")).text
    assert "hx-get" not in still
    assert "refresh" not in still.partition("</head>")[0]


async def test_a_live_part_that_has_come_to_its_end_stops_asking(browser: httpx.AsyncClient) -> None:
    live = {"HX-Request": "true"}
    assert (await browser.get(QUEUES, headers=live)).status_code == 200
    assert (await browser.get(f"{QUEUES}?still=true", headers=live)).status_code == 286


async def test_check_now_asks_once_however_often_it_is_pressed(browser: httpx.AsyncClient) -> None:
    key = str(uuid4())
    for _ in range(2):
        answer = await browser.post(f"{QUEUES}/check", data={"key": key})
        assert (answer.status_code, answer.headers["Location"]) == (303, QUEUES)
    assert "under way" in await told(browser)
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        assert channel.client.llen("scheduled") == 2


async def test_a_live_part_leaves_what_was_said_to_the_next_page(browser: httpx.AsyncClient) -> None:
    await browser.post(f"{QUEUES}/check", data={"key": str(uuid4())})
    assert "said-note" not in (await browser.get(QUEUES, headers={"HX-Request": "true"})).text
    assert "under way" in await told(browser)
