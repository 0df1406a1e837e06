"""The pages of runs and their buttons."""

from datetime import timedelta
from uuid import uuid4

import httpx
import pytest

from backend.core.clock import utc_now
from tests.factories.jobs import add_event, add_run, add_schedule, add_template, run_row
from tests.fixtures.product import Product

REFRESH = 'http-equiv="refresh"'


async def test_without_runs_the_page_leads_to_the_schedules(browser: httpx.AsyncClient) -> None:
    page = (await browser.get("/ops/runs")).text
    assert "Nothing has run yet" in page
    assert REFRESH not in page


async def test_runs_are_found_by_state_and_schedule(product: Product, browser: httpx.AsyncClient) -> None:
    template = await add_template(product.db)
    one, other = await add_schedule(product.db, template), await add_schedule(product.db, template)
    runs = {
        "a": await add_run(product.db, one, "failed", error="it broke"),
        "b": await add_run(product.db, one),
        "c": await add_run(product.db, other, "failed"),
        "d": await add_run(product.db, None, "succeeded"),
    }
    for query, shown in (
        ("", "abcd"),
        ("state=failed", "ac"),
        (f"schedule_id={one}", "ab"),
        (f"schedule_id={other}&state=failed", "c"),
        ("state=dead", ""),
        ("state=", "abcd"),
    ):
        page = (await browser.get(f"/ops/runs?{query}")).text
        assert "".join(name for name, run in runs.items() if f'href="/ops/runs/{run}"' in page) == shown
    assert "it broke" in (await browser.get("/ops/runs")).text


async def test_what_people_schedule_can_be_seen_without_the_systems_own_runs(
    product: Product, browser: httpx.AsyncClient
) -> None:
    mine = await add_run(product.db, None, job_template_id=5)
    systems = await add_run(product.db, None)
    page = (await browser.get("/ops/runs?managed_by=user")).text
    assert str(mine) in page
    assert str(systems) not in page
    page = (await browser.get("/ops/runs?managed_by=system")).text
    assert str(systems) in page
    assert str(mine) not in page


async def test_the_list_goes_on_with_the_same_filter(product: Product, browser: httpx.AsyncClient) -> None:
    now = utc_now()
    for age in range(52):
        await add_run(product.db, None, "failed", created_at=now - timedelta(minutes=age))
    first = (await browser.get("/ops/runs?state=failed")).text
    assert first.count('<th scope="row"') == 50
    link = first.split('<p><a href="?')[1].split('"')[0].replace("&amp;", "&")
    second = (await browser.get(f"/ops/runs?{link}")).text
    assert second.count('<th scope="row"') == 2
    assert '?state=failed" aria-current="page"' in second


@pytest.mark.parametrize(("state", "refreshes"), [("running", True), ("waiting", True), ("succeeded", False)])
async def test_pages_refresh_themselves_while_a_run_is_under_way(
    product: Product, browser: httpx.AsyncClient, state: str, refreshes: bool
) -> None:
    run = await add_run(product.db, None, state)
    for path in ("/ops/runs", f"/ops/runs/{run}"):
        assert (REFRESH in (await browser.get(path)).text) is refreshes
    assert REFRESH not in (await browser.get(f"/ops/runs/{run}?still=true")).text


async def test_a_run_shows_its_story(product: Product, browser: httpx.AsyncClient) -> None:
    schedule = await add_schedule(product.db, await add_template(product.db))
    now = utc_now()
    run = await add_run(
        product.db,
        schedule,
        "failed",
        name="Nightly",
        attempt=2,
        max_attempts=3,
        started_at=now - timedelta(seconds=75),
        attempt_started_at=now - timedelta(seconds=5),
        finished_at=now,
        error="HTTP 500 from the far end",
        result={"status": 500},
        arguments={"url": "https://example.com/"},
    )
    await add_event(product.db, run, "attempt_failed", "timed out", attempt=1)
    await add_event(product.db, run, "log", "calling the far end", attempt=2, level="INFO")
    page = (await browser.get(f"/ops/runs/{run}")).text
    for fact in (
        "Nightly",
        "attempt 2 of 3",
        "took 1 min 15 s",
        "HTTP 500 from the far end",
        "&#34;status&#34;: 500",
        "https://example.com/",
        "attempt failed",
        "timed out",
        "calling the far end",
        f'href="/ops/schedules/{schedule}"',
    ):
        assert fact in page


async def test_a_run_can_be_cancelled_once(product: Product, browser: httpx.AsyncClient) -> None:
    run = await add_run(product.db, None, "queued")
    assert ">Cancel</button>" in (await browser.get(f"/ops/runs/{run}")).text
    answer = await browser.post(f"/ops/runs/{run}/cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/ops/runs/{run}")
    assert (await run_row(product.db, run)).state == "cancelled"
    page = (await browser.get(f"/ops/runs/{run}")).text
    assert ">Cancel</button>" not in page
    assert "by service" in page


async def test_a_run_under_way_is_stopping_until_its_worker_has_stopped(
    product: Product, browser: httpx.AsyncClient
) -> None:
    run = await add_run(product.db, None, "running")
    await browser.post(f"/ops/runs/{run}/cancel")
    page = (await browser.get(f"/ops/runs/{run}")).text
    assert ">stopping</span>" in page
    assert ">Cancel</button>" not in page
    assert "stopping" in (await browser.get("/ops/runs")).text


async def test_a_double_click_on_run_again_starts_one_run(product: Product, browser: httpx.AsyncClient) -> None:
    old = await add_run(product.db, None, "dead")
    assert ">Run again</button>" in (await browser.get(f"/ops/runs/{old}")).text
    form = {"key": str(uuid4())}
    places = {(await browser.post(f"/ops/runs/{old}/retry", data=form)).headers["location"] for _ in range(2)}
    assert len(places) == 1
    new = await run_row(product.db, places.pop().rpartition("/")[2])
    assert (new.replay_of, new.triggered_by) == (old, "service")


@pytest.mark.parametrize(("action", "state"), [("cancel", "succeeded"), ("retry", "running"), ("retry", "coalesced")])
async def test_what_cannot_be_done_to_a_run_is_refused_on_a_page(
    product: Product, browser: httpx.AsyncClient, action: str, state: str
) -> None:
    run = await add_run(product.db, None, state, blocked_by=uuid4() if state == "coalesced" else None)
    answer = await browser.post(f"/ops/runs/{run}/{action}", data={"key": str(uuid4())})
    assert answer.status_code == 409
    assert "That did not work" in answer.text
    assert (await run_row(product.db, run)).state == state


async def test_an_unknown_run_is_not_found(browser: httpx.AsyncClient) -> None:
    answer = await browser.get(f"/ops/runs/{uuid4()}")
    assert answer.status_code == 404
    assert "Not found" in answer.text
