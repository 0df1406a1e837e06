"""Rows that cannot be computed, and schedules that nobody serves."""

import time
from datetime import timedelta

import pytest

from tests.chaos.scheduling.conftest import Begin
from tests.chaos.scheduling.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

_BAD = """
insert into job_schedules (name, task, queue, schedule_type, cron_expression, timezone, interval_seconds, anchor, next_run)
values ('garbage', 'leave_a_mark', 'default', 'cron', 'at noon', 'UTC', null, null, now()),
       ('nowhere', 'leave_a_mark', 'default', 'cron', '* * * * *', 'Nowhere/Atlantis', null, null, now()),
       ('endless', 'leave_a_mark', 'default', 'interval', null, 'UTC', 'infinity', now(), now())
"""


def test_a_schedule_that_cannot_be_computed_is_put_off_alone(begin: Begin) -> None:
    scene = begin()
    scene.rows(_BAD)
    scene.beats(2)
    scene.workers(1)
    since = scene.now()
    seconds = scene.schedules([f"each second {n}" for n in range(3)], after=0)
    time.sleep(4)
    bad = scene.rows(
        "select name, last_error, deferred_until - now() as pause from job_schedules where name = any($1::text[])",
        ["garbage", "nowhere", "endless"],
    )
    assert all(row["last_error"] and row["pause"] > timedelta(seconds=30) for row in bad), bad
    assert len(bad) == 3
    errors = {row["name"]: row["last_error"] for row in bad}
    assert "Nowhere/Atlantis" in errors["nowhere"]
    for planned in seconds:
        assert scene.worst_delay(planned, since) < 2
    scene.rows("update job_schedules set is_active = false where last_error is not null")
    ledger = scene.settle_and_check()
    assert {row["schedule_id"] for row in ledger.runs} == {planned.id for planned in seconds}


def test_a_schedule_without_a_worker_is_one_incident_told_once_and_resolved_once(begin: Begin) -> None:
    scene = begin()
    scene.beats(2)
    watched = scene.schedule("watched", every=2.0, overlap_policy="queue_one", alert_grace_seconds=2)
    scene.rows("update job_schedules set alert_after = next_run + interval '2 s' where id = $1", watched.id)
    scene.wait_for("the incident", lambda: scene.rows("select 1 from job_alerts"), within=10)
    # Several more sweeps of both Beats.
    time.sleep(3)
    (alert,) = scene.rows("select * from job_alerts")
    assert (alert["schedule_id"], alert["kind"], alert["resolved_at"]) == (watched.id, "late", None)
    assert _told(scene) == ["opened"]
    scene.workers(1)
    scene.wait_for("the incident's end", lambda: scene.rows("select 1 from job_alerts where resolved_at is not null"))
    time.sleep(2)
    assert len(scene.rows("select * from job_alerts")) == 1
    assert _told(scene) == ["opened", "resolved"]
    ledger = scene.settle_and_check()
    alerts = [row["id"] for row in ledger.runs if row["trigger"] == "alert"]
    assert [len(ledger.executions(run)) for run in alerts] == [1, 1]


def _told(scene: Scene) -> list[str]:
    """The events that were to be told of, as runs of `send_job_alert`, oldest first."""
    statement = "select arguments->>'event' as event from job_runs where task = 'send_job_alert' order by created_at"
    return [row["event"] for row in scene.rows(statement)]
