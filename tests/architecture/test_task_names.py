"""String names hold together: what is sent, routed and scheduled is registered, and the other way round."""

import ast
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backend import tasks
from backend.celery_app import QUEUE_LIMITS, TASK_ROUTES, VISIBILITY_TIMEOUT, ZonedCrontab, app, create_app
from backend.config import load

ROOT = Path(__file__).parents[2]
OURS = {name for name in app.tasks if not name.startswith("celery.")}


def _sent_names() -> set[str]:
    """Every literal task name that the product sends, or stores to be sent."""
    names = set()
    for path in (ROOT / "backend").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            literals = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if called in {"enqueue", "runtime.send"} or called.endswith("send_task"):
                names.update(literals)
            names.update(
                k.value.value
                for k in node.keywords
                if k.arg == "then_task" and isinstance(k.value, ast.Constant) and isinstance(k.value.value, str)
            )
            if called == "asyncio.to_thread" and node.args and ast.unparse(node.args[0]) == "runtime.send":
                names.update(literals)
    return names


def test_every_name_that_is_sent_is_a_registered_task() -> None:
    assert tasks.calls is not None
    assert _sent_names() >= {"call_customer", "extract_call_outcome"}
    assert _sent_names() <= OURS


def test_every_registered_task_has_a_queue_of_its_own_choice() -> None:
    assert set(TASK_ROUTES) == OURS
    assert {route["queue"] for route in TASK_ROUTES.values()} <= set(QUEUE_LIMITS)


def test_every_scheduled_entry_names_a_registered_task_by_string() -> None:
    for entry in app.conf.beat_schedule.values():
        assert isinstance(entry["task"], str)
        assert entry["task"] in OURS


def test_a_task_is_named_as_its_function() -> None:
    assert {name for name in OURS if not name.isidentifier()} == {"backend.tasks.reset_daily_quotas_task"}


def test_the_one_task_with_a_second_name_is_found_at_that_path() -> None:
    second = app.tasks["backend.tasks.reset_daily_quotas_task"]
    assert tasks.reset_daily_quotas_task is second
    assert vars(type(second))["run"] is vars(type(app.tasks["reset_daily_quotas"]))["run"]


def test_no_task_may_run_longer_than_its_queue_says_or_than_redis_waits() -> None:
    for name in OURS:
        limit = app.tasks[name].time_limit
        assert limit is not None
        assert limit <= QUEUE_LIMITS[TASK_ROUTES[name]["queue"]] < VISIBILITY_TIMEOUT


def test_neither_include_nor_imports_nor_discovery_stand_in_the_application() -> None:
    assert not app.conf.include
    assert not app.conf.imports
    tree = ast.parse((ROOT / "backend" / "celery_app.py").read_text())
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not {name for name in called if "autodiscover" in name}


@pytest.mark.parametrize(
    ("now", "due"),
    [("2026-11-21T04:29:59", False), ("2026-11-21T04:30:00", True), ("2026-11-21T10:00:00", True)],
)
def test_the_outreach_is_due_at_ten_in_kolkata(now: str, due: bool) -> None:
    entry = app.conf.beat_schedule["call-expiring-policies-daily"]["schedule"]
    schedule = ZonedCrontab(entry.tz.key, hour=10, minute=0)
    schedule.app = app
    instant = datetime.fromisoformat(now).replace(tzinfo=UTC)
    schedule.nowfun = lambda: instant  # type: ignore[attr-defined]
    assert schedule.is_due(datetime(2026, 11, 20, 4, 30, 1, tzinfo=UTC)).is_due is due


def test_on_rabbitmq_every_queue_is_a_quorum_queue_with_a_dead_letter_exchange() -> None:
    rabbit = create_app(load({"CELERY_BROKER": "rabbitmq"}))
    for queue in rabbit.conf.task_queues:
        assert queue.queue_arguments["x-queue-type"] == "quorum"
        assert queue.queue_arguments["x-dead-letter-exchange"] == "beatline.dlx"
        assert queue.durable
    assert rabbit.conf.broker_transport_options["confirm_publish"]
