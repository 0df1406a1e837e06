"""What Prometheus reads."""

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from backend.celery_app import QUEUE_LIMITS, app
from backend.core.clock import utc_now
from backend.core.dead_letters import Kind, letter, store
from devstack.servers import ValkeyServer
from tests.factories.jobs import add_alert, add_run, add_schedule
from tests.fixtures.product import Product

ROOT = Path(__file__).parents[2]
PAGE, RULES = "docs/operations/monitoring.md", "deploy/prometheus/beatline-alerts.yml"


def samples(answer: httpx.Response) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """By name and labels; the text must be what Prometheus's own parser reads."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain")
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(answer.text)
        for one in family.samples
    }


def key(name: str, labels: Mapping[str, str] | None = None) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"beatline_{name}", frozenset((labels or {}).items())


async def test_an_empty_product_has_every_queue_and_state_at_zero(product: Product, valkey: ValkeyServer) -> None:
    app.control.purge()
    found = samples(await product.client.get("/metrics"))
    assert found[key("broker_up")] == 1
    for name in QUEUE_LIMITS:
        assert found[key("queue_messages", {"queue": name, "state": "ready"})] == 0
        assert found[key("queue_runs_waiting", {"queue": name})] == 0
    assert found[key("dead_letters", {"state": "open"})] == 0
    assert found[key("runs", {"state": "running"})] == 0
    assert found[key("schedules_overdue_seconds")] == 0
    assert key("dispatch_lag_seconds", {"quantile": "0.5"}) not in found


async def test_runs_lags_alerts_letters_and_overdue_schedules_are_counted(product: Product) -> None:
    now = utc_now()
    schedule = await add_schedule(product.db, next_run=now - timedelta(seconds=40))
    await add_schedule(product.db, is_active=False, next_run=None)
    for second in range(3):
        await add_run(
            product.db,
            schedule,
            scheduled_for=now - timedelta(seconds=60 + second),
            published_at=now - timedelta(seconds=58),
            started_at=now - timedelta(seconds=57),
            finished_at=now - timedelta(seconds=5),
        )
    await add_run(product.db, schedule, scheduled_for=now - timedelta(days=1), finished_at=now - timedelta(hours=1))
    await add_run(product.db, schedule, "running", scheduled_for=now)
    await add_alert(product.db, schedule)
    async with product.db.transaction() as session:
        await store(session, letter("noop", "one", "default", kind=Kind.ERROR, args=[], kwargs={}, error="broken"))
    found = samples(await product.client.get("/metrics"))
    # The run of an hour ago is none of the last five minutes'.
    assert found[key("runs", {"state": "succeeded"})] == 3
    assert found[key("runs", {"state": "running"})] == 1
    assert found[key("dispatch_lag_seconds", {"quantile": "0.5"})] == 3
    assert found[key("claim_lag_seconds", {"quantile": "0.5"})] == 4
    assert found[key("dead_letters", {"state": "open"})] == 1
    assert found[key("schedules", {"active": "true"})] == 1
    assert found[key("schedules", {"active": "false"})] == 1
    assert 40 <= found[key("schedules_overdue_seconds")] < 60
    assert sum(value for (name, _), value in found.items() if name == "beatline_alerts_open") == 1


async def test_who_shows_no_token_reads_no_metrics(product: Product) -> None:
    async with httpx.AsyncClient(base_url=product.config.api_url) as stranger:
        assert (await stranger.get("/metrics")).status_code == 401
        wrong = await stranger.get("/metrics", headers={"Authorization": "Bearer " + "x" * 64})
        assert wrong.status_code == 401


async def test_metrics_name_no_schedule_and_no_person(product: Product) -> None:
    await add_schedule(product.db, name="Router of Mrs Iyer")
    assert "Iyer" not in (await product.client.get("/metrics")).text


async def test_the_page_and_the_rules_name_the_metrics_there_are(product: Product, valkey: ValkeyServer) -> None:
    answer = await product.client.get("/metrics")
    given = {family.name for family in text_string_to_metric_families(answer.text)}
    named = {file: set(re.findall(r"beatline_[a-z_]*[a-z]", (ROOT / file).read_text())) for file in (PAGE, RULES)}
    assert named[PAGE] == given
    assert named[RULES] <= given


def test_the_rules_are_groups_of_alerts_with_a_summary() -> None:
    rules = yaml.safe_load((ROOT / RULES).read_text())["groups"][0]["rules"]
    assert all(
        {"alert", "expr", "for", "annotations"} == set(rule) and rule["annotations"]["summary"] for rule in rules
    )
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert scrape["rule_files"] == [Path(RULES).name]
