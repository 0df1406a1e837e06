"""The accounts' own tasks, and what a second delivery of them does."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from backend.accounts import service as accounts
from backend.accounts.tasks import cleanup_expired_sessions, sync_user_stats
from backend.celery_app import app, beat_schedule
from backend.config import load
from backend.core.clock import utc_now
from backend.core.principal import Role, Scope
from tests.accounts.conftest import change, rows
from tests.fixtures.people import People, add_api_key, add_session, add_user


def ago(days: float) -> dict[str, Any]:
    return {"expires_at": utc_now() - timedelta(days=days)}


async def test_what_has_been_over_for_a_month_is_deleted_and_nothing_else(people: People) -> None:
    product = people.product
    db, config = product.db, product.config
    vera = await people.viewer()
    kept = [
        vera.session,
        (await add_session(db, config, vera.user, **ago(29)))[0],
        (await add_session(db, config, vera.user, revoked_at=utc_now() - timedelta(days=29), **ago(-1)))[0],
    ]
    await add_session(db, config, vera.user, **ago(31))
    await add_session(db, config, vera.user, revoked_at=utc_now() - timedelta(days=31), **ago(-1))
    keys = [
        (await add_api_key(db, vera.user, Scope.READ, name="for ever"))[0],
        (await add_api_key(db, vera.user, Scope.READ, name="just over", **ago(1)))[0],
    ]
    await add_api_key(db, vera.user, Scope.READ, name="long over", **ago(31))
    await add_api_key(db, vera.user, Scope.READ, name="revoked", revoked_at=utc_now() - timedelta(days=31))
    await change(
        db,
        "insert into login_throttles (bucket, key, attempts, last_attempt_at)"
        " values ('account', 'old', 10, now() - interval '2 days'), ('account', 'new', 10, now())",
    )
    assert await cleanup_expired_sessions(product.runtime) == {"sessions": 2, "api_keys": 2, "login_throttles": 1}
    assert await cleanup_expired_sessions(product.runtime) == {"sessions": 0, "api_keys": 0, "login_throttles": 0}
    assert {row[0] for row in await rows(db, "select id from user_sessions")} == {row.id for row in kept}
    assert {row[0] for row in await rows(db, "select id from api_keys")} == {row.id for row in keys}
    assert await rows(db, "select key from login_throttles") == [("new",)]


async def test_a_heap_is_deleted_in_batches(people: People) -> None:
    product = people.product
    vera = await people.viewer()
    for _ in range(7):
        await add_session(product.db, product.config, vera.user, **ago(31))
    deleted = await accounts.clean(product.db, product.config, batch=3)
    assert deleted["sessions"] == 7


async def test_with_no_retention_what_is_over_goes_at_once(people: People) -> None:
    product = people.product
    vera = await people.viewer()
    await add_session(product.db, product.config, vera.user, **ago(0.001))
    none = replace(product.config, accounts=replace(product.config.accounts, retention_days=0))
    assert (await accounts.clean(product.db, none))["sessions"] == 1
    assert (await vera.client.get("/api/auth/me")).status_code == 200


async def test_each_user_gets_the_figures_of_what_they_have_done(people: People) -> None:
    product = people.product
    db = product.db
    otto, ada = await people.operator(), await people.admin()
    await add_user(db, "idle", Role.VIEWER)
    for number in (1, 2):
        body = {"name": f"template {number}", "kind": "noop", "parameters": {}}
        template = (await otto.client.post("/api/job-templates", json=body)).json()
        timed = {"template_id": template["id"], "cron_expression": "0 2 * * *", "overlap_policy": "allow"}
        schedule = (await otto.client.post("/api/job-schedules", json=timed)).json()
    for _ in range(3):
        assert (await ada.client.post(f"/api/job-schedules/{schedule['id']}/run-now")).status_code == 202
    await change(
        db,
        "insert into sent_tasks (id, name, queue, fingerprint, sent_by, expires_at)"
        " select gen_random_uuid(), 'noop', 'default', '', 'otto', now() from generate_series(1, 4)",
    )
    await change(db, "update users set login_count = 5 where username = 'ada'")
    assert await sync_user_stats(product.runtime) == {"users": 3}
    figures = (
        "select username, schedules_created, runs_started, tasks_sent, logins"
        " from user_stats join users on users.id = user_id order by username"
    )
    expected = [("ada", 0, 3, 0, 5), ("idle", 0, 0, 0, 0), ("otto", 2, 0, 4, 0)]
    assert await rows(db, figures) == expected
    assert await sync_user_stats(product.runtime) == {"users": 3}
    assert await rows(db, figures) == expected
    stats = (await ada.client.get(f"/api/users/{otto.id}")).json()["stats"]
    assert (stats["schedules_created"], stats["tasks_sent"], stats["synced_at"] is not None) == (2, 4, True)


@pytest.mark.parametrize(
    ("entry", "task", "hours"),
    [
        ("cleanup-expired-sessions", "cleanup_expired_sessions", {0}),
        ("sync-user-stats", "sync_user_stats", set(range(24))),
    ],
)
def test_beat_starts_them_by_name_on_the_scheduled_queue(entry: str, task: str, hours: set[int]) -> None:
    found = beat_schedule(load({}))[entry]
    assert found["task"] == task
    assert (found["schedule"].hour, found["schedule"].minute, str(found["schedule"].tz)) == (hours, {0}, "UTC")
    assert app.conf.task_routes[task] == {"queue": "scheduled"}
