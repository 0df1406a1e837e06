"""The tasks of jobs, called as the worker calls them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from backend.core.errors import PermanentError, TransientError
from backend.jobs import tasks
from tests.factories.jobs import add_alert, add_schedule, add_template
from tests.fixtures.product import Product
from tests.jobs.web import Site, running_site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running_site() as running:
        yield running


async def test_noop_returns_its_note(product: Product) -> None:
    assert await tasks.noop(product.runtime) == {}
    assert await tasks.noop(product.runtime, note="x") == {"note": "x"}


async def test_arguments_that_fit_no_more_are_a_lasting_failure(product: Product) -> None:
    for work in (tasks.noop, tasks.sleep, tasks.http_request):
        with pytest.raises(PermanentError, match="odd: Extra inputs"):
            await work(product.runtime, odd=1)


async def test_sleep_ends_as_told(product: Product) -> None:
    assert await tasks.sleep(product.runtime, seconds=0) == {"slept_seconds": 0.0}
    with pytest.raises(TransientError):
        await tasks.sleep(product.runtime, seconds=0, fail="transient")
    with pytest.raises(PermanentError):
        await tasks.sleep(product.runtime, seconds=0, fail="permanent")


async def test_sleep_stops_when_it_is_cancelled(product: Product) -> None:
    work = asyncio.create_task(tasks.sleep(product.runtime, seconds=100))
    await asyncio.sleep(0.05)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_an_http_request_obeys_the_configuration(product: Product, site: Site) -> None:
    with pytest.raises(PermanentError, match="loopback"):
        await tasks.http_request(product.runtime, url=f"{site.url}/")
    allowed = replace(product.runtime, config=replace(product.config, jobs_http_allow_private=True))
    assert (await tasks.http_request(allowed, url=f"{site.url}/"))["status"] == 200
    assert len(site.seen) == 1


async def incident(product: Product) -> int:
    template_id = await add_template(product.db)
    return await add_alert(
        product.db, await add_schedule(product.db, template_id, name="Nightly", timezone="Asia/Kolkata")
    )


async def test_an_incident_is_a_line_in_the_log(product: Product, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "backend.jobs.tasks")
    alert_id = await incident(product)
    for event in ("opened", "resolved"):
        told = await tasks.send_job_alert(product.runtime, alert_id=alert_id, event=event)
        assert (told["told"], told["channels"]) == (True, [])
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    where = "schedule 1 (Nightly), expected at 2026-11-22T02:00:00+05:30 Asia/Kolkata"
    assert lines[0] == ("WARNING", f"ALERT late: {where}: no run has started yet")
    assert lines[1][0] == "INFO"
    assert lines[1][1].startswith("ALERT resolved: schedule 1 (Nightly) has succeeded again")


async def test_an_incident_is_noted_for_the_webhook_once(product: Product) -> None:
    config = replace(product.config, alert_webhook_url="http://127.0.0.1:9/hook")
    runtime = replace(product.runtime, config=config)
    alert_id = await incident(product)
    for _ in range(2):
        told = await tasks.send_job_alert(runtime, alert_id=alert_id, event="opened")
        assert told["channels"] == ["webhook"]
    assert len(product.sent.named("deliver_notification")) == 1


async def test_an_incident_that_is_gone_is_not_told(product: Product) -> None:
    assert await tasks.send_job_alert(product.runtime, alert_id=4711, event="opened") == {"told": False}
