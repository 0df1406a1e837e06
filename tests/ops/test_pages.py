"""The operators' pages: who may look, and one visible fact each."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
import pytest
from sqlmodel import update

from backend.calls.models import Call, Customer
from backend.core.clock import utc_now
from backend.core.durations import span
from backend.ops.context import local, number_of, seconds, utc, wall, words
from tests.calls.test_webhooks import accepted
from tests.factories.people import add_customer
from tests.fixtures.product import Product


async def look(product: Product, path: str, password: str | None = None) -> httpx.Response:
    auth = ("operator", password or product.config.service_key)
    async with httpx.AsyncClient(base_url=product.config.api_url, auth=auth, follow_redirects=True) as browser:
        return await browser.get(path)


@pytest.mark.parametrize("path", ["/ops", "/ops/calls", f"/ops/calls/{UUID(int=1)}"])
async def test_a_script_with_a_wrong_password_is_told_so(product: Product, path: str) -> None:
    answer = await look(product, path, "guess")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


async def test_an_empty_outreach_says_how_to_start_one(product: Product) -> None:
    page = await look(product, "/ops")
    assert page.status_code == 200
    assert "call_expiring_policies" in page.text


async def test_the_outreach_shows_every_planned_call_and_its_reason(product: Product) -> None:
    await add_customer(product.db, do_not_call=True)
    await product.client.post("/api/scheduler/plan")
    page = await look(product, "/ops/calls?status=skipped")
    assert "do not call" in page.text
    assert "Nothing here yet" in (await look(product, "/ops/calls?status=completed")).text
    assert 'http-equiv="refresh"' not in page.text


async def test_a_name_cannot_bring_a_script_into_the_page(product: Product) -> None:
    call = await accepted(product)
    async with product.db.transaction() as session:
        await session.exec(update(Customer).values(full_name="<script>alert(1)</script>"))
    for path in ("/ops/calls", f"/ops/calls/{call.id}"):
        page = await look(product, path)
        assert page.status_code == 200
        assert "<script>" not in page.text
        assert "&lt;script&gt;" in page.text


async def test_a_call_shows_its_timeline_and_its_outcome(product: Product) -> None:
    call = await accepted(product)
    outcome = {"intent": "renew_interested", "source": "transcript", "evidence": "Yes, please."}
    async with product.db.transaction() as session:
        await session.exec(update(Call).values(outcome=outcome, sip_code=486, sip_text="Busy Here"))
    page = await look(product, f"/ops/calls/{call.id}")
    for fact in ("renew interested", "Yes, please.", "SIP 486 Busy Here", "dialing"):
        assert fact in page.text


async def test_an_unknown_call_is_not_found(product: Product) -> None:
    assert (await look(product, f"/ops/calls/{uuid4()}")).status_code == 404


async def test_the_style_sheet_is_served(product: Product) -> None:
    assert (await look(product, "/ops/static/style.css")).headers["content-type"].startswith("text/css")


def test_instants_durations_and_states_are_written_for_people() -> None:
    this_year = utc_now().year
    assert local(datetime(this_year, 11, 21, 4, 30, tzinfo=UTC), "Asia/Kolkata") == "21 Nov 10:00:00"
    assert local(None, "UTC") == ""
    assert local(datetime(this_year, 11, 21, 4, 30, tzinfo=UTC), "Mars/Base") == "21 Nov 04:30:00 UTC"
    assert wall("2026-03-29T03:00:00.250000+02:00") == "Sun 29 Mar 2026 03:00:00 +02:00"
    assert (wall(None), utc(None), span(None)) == ("", "", "")
    assert [span(value) for value in (0.0212, 2, 59.5, 60, 3661, 90_000)] == [
        "21 ms",
        "2 s",
        "59.5 s",
        "1 min",
        "1 h 1 min",
        "1 d 1 h",
    ]
    assert (seconds(75.4), seconds(None)) == ("1:15", "")
    assert (words("no_answer"), words(None)) == ("no answer", "")
    assert [number_of(count, "file") for count in (0, 1, 2.5, 1_234_567)] == [
        "0 files",
        "1 file",
        "2.5 files",
        "1234567 files",
    ]


def test_an_instant_of_another_year_says_which() -> None:
    now = utc_now()
    same, later = (now.replace(year=year, month=3, day=29, hour=1, minute=0, second=5) for year in (now.year, 2099))
    assert utc(same) == f"{same:%a} 29 Mar 01:00:05"
    assert utc(later) == "Sun 29 Mar 2099 01:00:05"
    assert local(later, "Asia/Kolkata") == "29 Mar 2099 06:30:05"
    assert local(later, "Mars/Base") == "29 Mar 2099 01:00:05 UTC"
    # By the clock of the zone, it is the next year already.
    assert local(datetime(2098, 12, 31, 20, 0, tzinfo=UTC), "Asia/Kolkata") == "01 Jan 2099 01:30:00"
