"""The form that makes a schedule."""

from typing import Any

import httpx
import pytest

from tests.factories.jobs import add_schedule, add_template, schedule_row
from tests.fixtures.product import Product

FORM = {
    "work": "kind:noop",
    "name": "Nightly",
    "parameters": '{"note": "hello"}',
    "when": "cron",
    "cron_expression": "30 2 * * *",
    "interval_seconds": "",
    "unit": "60",
    "run_at": "",
    "timezone": "Europe/Berlin",
    "misfire_policy": "coalesce",
    "overlap_policy": "queue_one",
    "alert_grace_seconds": "600",
}


async def press(browser: httpx.AsyncClient, do: str, **changes: str) -> httpx.Response:
    return await browser.post("/ops/schedules/new", data={**FORM, "do": do, **changes})


async def counts(product: Product) -> tuple[int, int]:
    """Schedules and templates that are stored."""
    found = [(await product.client.get(f"/api/job-{what}")).json()["items"] for what in ("schedules", "templates")]
    return len(found[0]), len(found[1])


async def saved(product: Product, answer: httpx.Response) -> Any:
    assert answer.status_code == 303, answer.text
    return await schedule_row(product.db, int(answer.headers["location"].rpartition("/")[2]))


async def test_the_empty_form_offers_kinds_and_templates(product: Product, browser: httpx.AsyncClient) -> None:
    template = await add_template(product.db, "sleep", name="A nap")
    page = (await browser.get(f"/ops/schedules/new?template_id={template}")).text
    assert f'<option value="template:{template}" selected>A nap (Sleep)</option>' in page
    assert '<option value="kind:http_request">HTTP request</option>' in page
    assert 'role="alert"' not in page


async def test_a_preview_shows_the_next_ten_runs_and_saves_nothing(
    product: Product, browser: httpx.AsyncClient
) -> None:
    page = await press(browser, "preview")
    assert page.status_code == 200
    assert "At 02:30 every day. (Europe/Berlin)" in page.text
    assert page.text.count(" 02:30:00 +0") == 10
    assert 'value="30 2 * * *"' in page.text
    assert await counts(product) == (0, 0)


async def test_a_preview_names_changes_of_the_clock(browser: httpx.AsyncClient) -> None:
    page = (await press(browser, "preview", cron_expression="30 2 * 3 0")).text
    assert "02:30 does not exist on" in page


async def test_a_preview_needs_nothing_but_a_time(browser: httpx.AsyncClient) -> None:
    page = await press(browser, "preview", work="", name="")
    assert page.status_code == 200
    assert "At 02:30 every day." in page.text
    assert 'role="alert"' not in page.text


async def test_the_first_field_at_fault_has_the_focus(browser: httpx.AsyncClient) -> None:
    page = (await press(browser, "save", parameters="{", timezone="Mars/Base")).text
    assert page.count(" autofocus") == 1
    assert 'aria-describedby="parameters-fault" autofocus' in page
    assert "2 fields need another look" in page


async def test_saving_for_a_kind_makes_a_template_of_the_same_name(
    product: Product, browser: httpx.AsyncClient
) -> None:
    schedule = await saved(product, await press(browser, "save"))
    assert (schedule.name, schedule.cron_expression, schedule.timezone) == ("Nightly", "30 2 * * *", "Europe/Berlin")
    assert (schedule.overlap_policy, schedule.alert_grace_seconds, schedule.created_by) == ("queue_one", 600, "service")
    assert schedule.arguments == {"note": "hello"}
    template = (await product.client.get(f"/api/job-templates/{schedule.job_template_id}")).json()
    assert (template["name"], template["kind"], template["created_by"]) == ("Nightly", "noop", "service")


async def test_saving_for_a_template_needs_no_name(product: Product, browser: httpx.AsyncClient) -> None:
    template = await add_template(product.db, "sleep", name="A nap", parameters={"seconds": 3})
    answer = await press(
        browser,
        "save",
        work=f"template:{template}",
        name="",
        parameters="",
        when="interval",
        interval_seconds="1.5",
        unit="3600",
        alert_grace_seconds="",
        paused="yes",
    )
    schedule = await saved(product, answer)
    assert (schedule.interval_seconds, schedule.cron_expression) == (5400, None)
    assert schedule.name.startswith("A nap: every 5400 s")
    assert (schedule.is_active, schedule.alert_grace_seconds) == (False, None)


async def test_a_single_run_is_at_a_local_time_of_the_zone(product: Product, browser: httpx.AsyncClient) -> None:
    schedule = await saved(product, await press(browser, "save", when="once", run_at="2099-07-01T09:00"))
    assert schedule.run_at.isoformat() == "2099-07-01T07:00:00+00:00"


@pytest.mark.parametrize(
    ("field", "changes", "problem"),
    [
        ("work", {"work": ""}, "choose what is to be done"),
        ("work", {"work": "template:999999"}, "does not exist"),
        ("work", {"work": "kind:rm"}, "rm"),
        ("work", {"work": "template:x"}, "choose what is to be done"),
        ("name", {"name": ""}, "a new template is made under this name"),
        ("name", {"name": "taken"}, "there is a template"),
        ("parameters", {"parameters": "{"}, "must be JSON"),
        ("parameters", {"parameters": '{"nope": 1}'}, "nope"),
        ("parameters", {"parameters": "[]"}, "valid dictionary"),
        ("cron_expression", {"cron_expression": ""}, "must not be empty"),
        ("cron_expression", {"cron_expression": "61 * * * *"}, "61"),
        ("interval_seconds", {"when": "interval", "interval_seconds": "soon"}, "number"),
        ("interval_seconds", {"when": "interval", "interval_seconds": "0.001"}, "out of range"),
        ("run_at", {"when": "once", "run_at": "2001-01-01T00:00"}, "in the past"),
        ("run_at", {"when": "once", "run_at": "noon"}, "must be an instant"),
        ("timezone", {"timezone": "Mars/Base"}, "Mars/Base"),
        ("when", {"when": ""}, "choose one"),
        ("max_runs", {"max_runs": "0"}, "greater than or equal to 1"),
        ("end_at", {"end_at": "2001-01-01T00:00"}, "would never run"),
        ("concurrency_limit", {"concurrency_limit": "2"}, "needs a concurrency_key"),
        ("timeout_seconds", {"timeout_seconds": "86000"}, "the most for this kind"),
    ],
)
async def test_what_is_wrong_stands_beside_its_field_and_what_was_typed_is_kept(
    product: Product, browser: httpx.AsyncClient, field: str, changes: dict[str, str], problem: str
) -> None:
    await add_schedule(product.db, await add_template(product.db, name="taken"))
    before = await counts(product)
    page = await press(browser, "save", **changes)
    assert page.status_code == 422
    assert f'id="{field}-fault">' in page.text
    assert problem in page.text.split(f'id="{field}-fault">')[1].split("</span>")[0]
    if "name" not in changes:
        assert 'value="Nightly"' in page.text
    assert await counts(product) == before


async def test_a_name_that_a_schedule_has_leaves_no_template_behind(
    product: Product, browser: httpx.AsyncClient
) -> None:
    await add_schedule(product.db, await add_template(product.db), name="Nightly")
    before = await counts(product)
    page = await press(browser, "save")
    assert page.status_code == 422
    assert "there is a schedule" in page.text
    assert await counts(product) == before
