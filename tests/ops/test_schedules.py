"""The pages of schedules and their buttons."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest

from backend.core.clock import utc_now
from tests.factories.jobs import add_alert, add_run, add_schedule, add_template, run_row, schedule_row
from tests.fixtures.product import Product

FAR = datetime(2099, 3, 7, 21, 30, tzinfo=UTC)


async def test_without_schedules_the_page_says_how_to_make_one(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/ops/schedules")
    assert page.status_code == 200
    assert "There are no schedules yet" in page.text
    assert 'href="/ops/schedules/new"' in page.text


async def test_a_schedule_is_shown_with_its_time_in_words_and_its_next_run_in_both_zones(
    product: Product, browser: httpx.AsyncClient
) -> None:
    template = await add_template(product.db, "http_request")
    await add_schedule(
        product.db, template, name="Nightly", cron_expression="0 3 * * *", timezone="Asia/Kolkata", next_run=FAR
    )
    page = (await browser.get("/ops/schedules")).text
    for fact in ("Nightly", "HTTP request", "At 03:00 every day<small>Asia/Kolkata</small>"):
        assert fact in page
    assert "Sun 08 Mar 2099 03:00:00 +05:30" in page
    assert "Sat 07 Mar 2099 21:30:00 UTC" in page
    assert "no run yet" in page


async def test_intervals_single_runs_and_what_is_over_are_told_in_words(
    product: Product, browser: httpx.AsyncClient
) -> None:
    template, timed = await add_template(product.db), {"cron_expression": None}
    interval = {"schedule_type": "interval", "interval_seconds": 5400, "anchor": FAR}
    once = {"schedule_type": "once", "run_at": FAR, "next_run": None}
    await add_schedule(product.db, template, **(timed | interval))
    await add_schedule(product.db, template, **(timed | once))
    page = (await browser.get("/ops/schedules")).text
    for fact in (
        "Every 1 h 30 min<",
        "Once, at 07 Mar 2099 21:30:00<",
        "none left",
        '<span class="state is-over">over</span>',
    ):
        assert fact in page


async def test_the_last_results_are_told_in_words_oldest_first(product: Product, browser: httpx.AsyncClient) -> None:
    schedule = await add_schedule(product.db, await add_template(product.db))
    now = utc_now()
    for age, state in enumerate(["failed", "succeeded", "missed"]):
        await add_run(product.db, schedule, state, created_at=now - timedelta(minutes=age))
    page = (await browser.get("/ops/schedules")).text
    assert "Last results, newest last: missed, succeeded, failed" in page


async def test_a_deferred_schedule_says_why_and_an_open_alert_stands_beside_its_schedule(
    product: Product, browser: httpx.AsyncClient
) -> None:
    template = await add_template(product.db)
    await add_schedule(product.db, template, last_error="zone Mars/Base is unknown", deferred_until=FAR)
    await add_alert(product.db, await add_schedule(product.db, template, name="Overdue"))
    page = (await browser.get("/ops/schedules")).text
    assert '<span class="state is-deferred">deferred</span>' in page
    assert "zone Mars/Base is unknown" in page
    assert "late: no run has started yet" in page


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", {"Alpha", "Beta", "Gamma", "Delta"}),
        ("q=alph", {"Alpha"}),
        ("state=paused", {"Beta"}),
        ("state=active&owner=user", {"Alpha", "Delta"}),
        ("owner=system", {"Gamma"}),
        ("state=alert", {"Delta"}),
        ("q=&state=&owner=", {"Alpha", "Beta", "Gamma", "Delta"}),
        ("q=nothing", set()),
    ],
)
async def test_schedules_are_found_by_name_state_and_owner(
    product: Product, browser: httpx.AsyncClient, query: str, shown: set[str]
) -> None:
    template = await add_template(product.db)
    await add_schedule(product.db, template, name="Alpha")
    await add_schedule(product.db, template, name="Beta", is_active=False)
    await add_schedule(product.db, None, name="Gamma")
    await add_alert(product.db, await add_schedule(product.db, template, name="Delta"))
    page = await browser.get(f"/ops/schedules?{query}")
    assert page.status_code == 200
    assert {name for name in ("Alpha", "Beta", "Gamma", "Delta") if f">{name}</a>" in page.text} == shown
    assert ("No schedule is like that" in page.text) == (not shown)


async def test_a_long_list_goes_on_with_the_same_filter(product: Product, browser: httpx.AsyncClient) -> None:
    template = await add_template(product.db)
    for number in range(27):
        await add_schedule(product.db, template, name=f"Every hour & more {number}")
    first = await browser.get("/ops/schedules", params={"q": "hour &"})
    assert first.text.count('<th scope="row"') == 25
    link = first.text.split('<p><a href="?')[1].split('"')[0].replace("&amp;", "&")
    second = await browser.get(f"/ops/schedules?{link}")
    assert second.text.count('<th scope="row"') == 2


@pytest.mark.parametrize("path", ["/ops/schedules?q=%00", "/ops/schedules?state=odd", "/ops/schedules/0"])
async def test_a_query_that_cannot_be_understood_is_refused_on_a_page(browser: httpx.AsyncClient, path: str) -> None:
    page = await browser.get(path)
    assert page.status_code == 422
    assert page.headers["content-type"].startswith("text/html")
    assert 'role="alert"' in page.text


async def test_a_schedule_shows_its_settings_next_runs_occurrences_and_alerts(
    product: Product, browser: httpx.AsyncClient
) -> None:
    template = await add_template(product.db, "sleep", name="A nap")
    schedule = await add_schedule(
        product.db, template, name="Nap", arguments={"seconds": 7}, overlap_policy="queue_one"
    )
    ran = await add_run(product.db, schedule)
    await add_run(product.db, schedule, "skipped", reason="overlap", blocked_by=ran)
    await add_alert(product.db, schedule, resolved_at=utc_now())
    page = (await browser.get(f"/ops/schedules/{schedule}")).text
    for fact in ("A nap", "<code>0 * * * *</code>", "queue one", "&#34;seconds&#34;: 7", "no run has started yet"):
        assert fact in page
    assert page.count(":00:00 +00:00") == 10
    assert f'href="/ops/runs/{ran}">succeeded</a>' in page
    assert f'skipped: the run before it had not ended <a href="/ops/runs/{ran}">that run</a>' in page


async def test_a_change_of_the_clock_is_named_beside_the_run_that_it_moves(
    product: Product, browser: httpx.AsyncClient
) -> None:
    schedule = await add_schedule(
        product.db,
        await add_template(product.db),
        cron_expression="30 2 * * 0",
        timezone="Europe/Berlin",
        next_run=datetime(2027, 3, 28, 1, 0, tzinfo=UTC),
    )
    page = (await browser.get(f"/ops/schedules/{schedule}")).text
    assert "02:30 does not exist on 2027-03-28 in Europe/Berlin; runs at 03:00" in page


async def test_a_time_that_cannot_be_understood_does_not_break_the_pages(
    product: Product, browser: httpx.AsyncClient
) -> None:
    schedule = await add_schedule(
        product.db, await add_template(product.db), timezone="Mars/Base", last_error="no such zone"
    )
    assert "Mars/Base" in (await browser.get("/ops/schedules")).text
    page = await browser.get(f"/ops/schedules/{schedule}")
    assert page.status_code == 200
    assert "no such zone" in page.text


async def test_pausing_and_resuming_lead_back_to_the_page_they_were_pressed_on(
    product: Product, browser: httpx.AsyncClient
) -> None:
    schedule = await add_schedule(product.db, await add_template(product.db))
    back = "/ops/schedules?q=a*b+c%26d&state=active"
    answer = await browser.post(f"/ops/schedules/{schedule}/pause", data={"back": back})
    assert (answer.status_code, answer.headers["location"]) == (303, back)
    assert not (await schedule_row(product.db, schedule)).is_active
    page = (await browser.get(f"/ops/schedules/{schedule}")).text
    assert "None while it is paused" in page
    assert "Resume and catch up" in page
    answer = await browser.post(f"/ops/schedules/{schedule}/resume", data={"back": back})
    assert answer.status_code == 303
    assert (await schedule_row(product.db, schedule)).is_active


async def test_resuming_can_catch_up_or_go_on_from_now(product: Product, browser: httpx.AsyncClient) -> None:
    before = utc_now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
    template = await add_template(product.db)
    for catch_up, kept in ({"catch_up": "true"}, True), ({}, False):
        schedule = await add_schedule(product.db, template, is_active=False, next_run=before)
        form = {"back": "/ops/schedules", **catch_up}
        await browser.post(f"/ops/schedules/{schedule}/resume", data=form)
        assert ((await schedule_row(product.db, schedule)).next_run == before) is kept


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example", "/ops/\nx", "/other", ""])
async def test_a_button_leads_nowhere_but_to_our_pages(product: Product, browser: httpx.AsyncClient, back: str) -> None:
    schedule = await add_schedule(product.db, await add_template(product.db))
    answer = await browser.post(f"/ops/schedules/{schedule}/pause", data={"back": back})
    assert answer.status_code == 422
    assert (await schedule_row(product.db, schedule)).is_active


async def test_a_double_click_on_run_now_starts_one_run(product: Product, browser: httpx.AsyncClient) -> None:
    schedule = await add_schedule(product.db, await add_template(product.db))
    form = {"key": str(uuid4())}
    answers = [await browser.post(f"/ops/schedules/{schedule}/run-now", data=form) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {303}
    assert answers[0].headers["location"] == answers[1].headers["location"]
    run = await run_row(product.db, answers[0].headers["location"].rpartition("/")[2])
    assert (run.trigger, run.triggered_by, run.state) == ("manual", "service", "pending")


async def test_run_now_says_why_the_overlap_policy_refuses(product: Product, browser: httpx.AsyncClient) -> None:
    schedule = await add_schedule(product.db, await add_template(product.db))
    await add_run(product.db, schedule, "running")
    answer = await browser.post(f"/ops/schedules/{schedule}/run-now", data={"key": str(uuid4())})
    assert answer.status_code == 409
    assert answer.headers["content-type"].startswith("text/html")
    assert "is under way, and its overlap policy is skip" in answer.text


async def test_an_unknown_schedule_is_not_found(browser: httpx.AsyncClient) -> None:
    for answer in (
        await browser.get("/ops/schedules/12345"),
        await browser.post("/ops/schedules/12345/pause", data={"back": "/ops/schedules"}),
    ):
        assert answer.status_code == 404
        assert "Not found" in answer.text


async def test_a_name_cannot_bring_a_script_into_the_pages(product: Product, browser: httpx.AsyncClient) -> None:
    evil = "<script>alert(1)</script>\"'"
    template = await add_template(product.db, name=evil)
    schedule = await add_schedule(product.db, template, name=evil, last_error=evil)
    run = await add_run(product.db, schedule, "failed", name=evil, error=evil, result={"evil": evil})
    paths = (
        "schedules",
        f"schedules/{schedule}",
        "schedules/new",
        "runs",
        f"runs/{run}",
        f"runs?schedule_id={schedule}",
    )
    for path in paths:
        page = await browser.get(f"/ops/{path}")
        assert page.status_code == 200
        assert "<script>" not in page.text
        assert "&lt;script&gt;" in page.text


async def test_every_page_leads_to_the_others_and_is_kept_by_no_cache(browser: httpx.AsyncClient) -> None:
    for path in ("calls", "schedules", "runs", "schedules/new"):
        page = await browser.get(f"/ops/{path}")
        assert page.headers["cache-control"] == "no-store"
        for link in ("calls", "schedules", "runs"):
            assert f'href="/ops/{link}"' in page.text
        assert 'aria-current="' in page.text
