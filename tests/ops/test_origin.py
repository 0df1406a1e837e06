"""Which requests may change something."""

import httpx
import pytest

from tests.factories.jobs import add_schedule, add_template, schedule_row
from tests.fixtures.product import Product

PAUSE = {"back": "/ops/schedules"}


async def pause(product: Product, headers: dict[str, str], *, password: str | None = None) -> tuple[int, bool]:
    """The answer's status, and whether the schedule is still active."""
    schedule = await add_schedule(product.db, await add_template(product.db))
    auth = ("operator", password or product.config.service_key)
    async with httpx.AsyncClient(base_url=product.config.api_url, auth=auth, headers=headers) as client:
        answer = await client.post(f"/ops/schedules/{schedule}/pause", data=PAUSE)
    return answer.status_code, (await schedule_row(product.db, schedule)).is_active


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "https://evil.example", "Referer": "http://127.0.0.1/ops/schedules"},
    ],
)
async def test_a_button_that_another_site_presses_does_nothing(product: Product, headers: dict[str, str]) -> None:
    assert await pause(product, headers) == (403, True)


async def test_a_claim_of_our_own_origin_does_not_outweigh_a_cross_site_request(product: Product) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": product.config.api_url}
    assert await pause(product, headers) == (403, True)


async def test_our_own_pages_may_press_a_button(product: Product) -> None:
    assert await pause(product, {"Sec-Fetch-Site": "same-origin"}) == (303, False)


async def test_on_plain_http_the_origin_speaks_for_the_page(product: Product) -> None:
    assert await pause(product, {"Origin": product.config.api_url}) == (303, False)


async def test_our_own_page_without_the_password_may_not_either(product: Product) -> None:
    assert await pause(product, {"Sec-Fetch-Site": "same-origin"}, password="guess") == (401, True)


@pytest.mark.parametrize(
    "path",
    [
        "/ops/schedules/new",
        "/ops/schedules/1/pause",
        "/ops/schedules/1/resume",
        "/ops/schedules/1/run-now",
        "/ops/runs/00000000-0000-0000-0000-000000000001/cancel",
        "/ops/runs/00000000-0000-0000-0000-000000000001/retry",
    ],
)
async def test_every_button_asks_where_the_request_comes_from(browser: httpx.AsyncClient, path: str) -> None:
    answer = await browser.post(path, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert "Not allowed" in answer.text


async def test_reading_from_a_link_elsewhere_is_allowed(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/ops/schedules", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
