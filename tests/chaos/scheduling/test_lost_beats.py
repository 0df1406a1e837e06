"""Beats die, freeze, have the wrong time, or are not there at all."""

import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest

from tests.chaos.scheduling.conftest import Begin
from tests.chaos.scheduling.ledger import Planned, Row
from tests.chaos.scheduling.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

FAILOVER_SECONDS = 2.0
_FAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"


def test_when_a_beat_of_three_dies_the_next_occurrence_is_sent_within_two_seconds(begin: Begin) -> None:
    scene = begin()
    beats = scene.beats(3)
    scene.workers(1)
    second = scene.schedule("each second", after=0)
    scene.wait_for_run(second, state="succeeded")
    for name in beats[:2]:
        assert _failover(scene, name) < FAILOVER_SECONDS
    scene.settle_and_check()


def _failover(scene: Scene, name: str) -> float:
    """Seconds from the death of a Beat to the next occurrence sent."""
    died = scene.now()
    scene.kill(name)
    sent = (
        "select extract(epoch from min(published_at) - $1::timestamptz)::float8 from job_runs where scheduled_for > $1"
    )
    scene.wait_for("the next occurrence sent", lambda: scene.value(sent, died))
    return float(scene.value(sent, died))


def test_all_beats_die_and_what_was_due_meanwhile_is_accounted_for_by_each_policy(begin: Begin) -> None:
    scene = begin()
    beats = scene.beats(2)
    scene.workers(1)
    merged = scene.schedule("merged", misfire_policy="coalesce")
    all_of_them = scene.schedule("all of them", misfire_policy="run_all")
    newest_five = scene.schedule("the newest five", misfire_policy="run_all", max_catchup=5)
    skipped = scene.schedule("skipped", misfire_policy="skip")
    late = scene.schedule("too late", misfire_policy="coalesce", misfire_grace_seconds=4)
    scene.wait_for_run(all_of_them, state="succeeded")
    scene.at_rest()
    died = scene.now()
    scene.kill(*beats)
    time.sleep(7)
    assert scene.value("select count(*) from job_runs where scheduled_for > $1", died) == 0
    scene.beats(2)
    scene.wait_for("everything made up for", lambda: _backlog(scene, merged, died))
    scene.settle_and_check()
    backlogs = {one.name: _backlog(scene, one, died) for one in scene.planned}
    due = len(backlogs["all of them"])
    assert due >= 7
    assert Counter(row["state"] for row in backlogs["all of them"]) == {"succeeded": due}
    assert _ends(backlogs["merged"]) == [("coalesced", "merged")] * (due - 1) + [("succeeded", None)]
    assert _ends(backlogs["the newest five"]) == [("missed", "catch_up_limit")] * (due - 5) + [("succeeded", None)] * 5
    assert _ends(backlogs["skipped"]) == [("missed", "misfire_skip")] * (due - 1) + [("succeeded", None)]
    graced = _ends(backlogs["too late"])
    assert graced[0] == ("missed", "too_late")
    assert graced[-1] == ("succeeded", None)
    assert 3 <= sum(state != "missed" for state, _ in graced) <= 5
    into = {row["blocked_by"] for row in backlogs["merged"][:-1]}
    assert into == {backlogs["merged"][-1]["id"]}
    assert not _backlog(scene, late, scene.now())
    assert {one.name for one in (newest_five, skipped)} < backlogs.keys()


def _backlog(scene: Scene, planned: Planned, since: datetime) -> list[Row]:
    """The occurrences after `since` that were accounted for at once, oldest first."""
    rows = [row for row in scene.runs_of(planned) if row["scheduled_for"] > since]
    return [row for row in rows if row["created_at"] == rows[0]["created_at"]]


def _ends(rows: list[Row]) -> list[tuple[str, str | None]]:
    return [(row["state"], row["reason"]) for row in rows]


def test_a_frozen_beat_holds_nobody_up_and_doubles_nothing_when_it_goes_on(begin: Begin) -> None:
    scene = begin()
    frozen, _ = scene.beats(2)
    scene.workers(1)
    second = scene.schedule("each second")
    scene.wait_for_run(second, state="succeeded")
    scene.at_rest()
    since = scene.now()
    scene.freeze(frozen)
    time.sleep(5)
    assert scene.worst_delay(second, since) < FAILOVER_SECONDS
    assert scene.value("select count(*) from job_runs where scheduled_for > $1 and state = 'succeeded'", since) >= 3
    scene.thaw(frozen)
    time.sleep(1)
    scene.settle_and_check()
    assert scene.worst_delay(second, since) < FAILOVER_SECONDS


def test_a_beat_that_freezes_with_claimed_rows_loses_them_to_the_others_in_seconds(begin: Begin) -> None:
    scene = begin()
    beats = scene.beats(2)
    scene.workers(1)
    other = scene.schedule("another")
    _sleep_in_claims_of(scene, "held")
    held = scene.schedule("held", anchor=(anchor := _half_past(scene)), next_run=anchor, after=0)
    holder = _claiming_process(scene, beats)
    since = scene.now()
    scene.freeze(holder)
    scene.rows("delete from slow_claims")
    assert not scene.runs_of(held)
    # The claim's own second, the five of idle_in_transaction_session_timeout, and the next pass.
    scene.wait_for("the held schedule's runs", lambda: scene.runs_of(held), within=9)
    assert scene.worst_delay(other, since) < FAILOVER_SECONDS
    scene.thaw(holder)
    time.sleep(1)
    scene.settle_and_check()
    scene.rows("drop trigger slow_claim on job_runs")


def _half_past(scene: Scene) -> datetime:
    """The middle of a coming second, when schedules that fire on the second are claimed already."""
    return scene.now().replace(microsecond=500_000) + timedelta(seconds=2)


def _sleep_in_claims_of(scene: Scene, name: str) -> None:
    """A claim of that schedule takes a second before it commits, for as long as `slow_claims` holds a row."""
    function = """
        create or replace function slow_claim() returns trigger language plpgsql as $$ begin
        if exists (select from slow_claims) then perform pg_sleep(1); end if; return new; end $$"""
    trigger = f"""
        create or replace trigger slow_claim before insert on job_runs for each row when (new.name = '{name}')
        execute function slow_claim()"""
    for statement in ("drop table if exists slow_claims", "create table slow_claims as select 1", function, trigger):
        scene.rows(statement)


def _claiming_process(scene: Scene, beats: list[str]) -> str:
    """The Beat whose connection sleeps in a claim now."""
    asleep = "select client_port from pg_stat_activity where wait_event = 'PgSleep'"
    scene.wait_for("a claim under way", lambda: scene.rows(asleep))
    port = scene.value(asleep)
    return next(
        name
        for name in beats
        if port in {one.laddr.port for one in psutil.Process(scene.supervisor.running[name].pid).net_connections()}
    )


def test_check_job_schedules_alone_is_enough(begin: Begin) -> None:
    scene = begin()
    scene.workers(1)
    second = scene.schedule("each second")
    app = scene.app()

    def check() -> None:
        app.send_task("check_job_schedules", queue="scheduled", ignore_result=True)
        time.sleep(1)

    for _ in range(5):
        check()
    assert scene.value("select count(*) from job_runs where schedule_id = $1 and state = 'succeeded'", second.id) >= 2
    scene.settle_and_check(meanwhile=check)


def test_wrong_clocks_of_beats_and_workers_change_nothing(begin: Begin) -> None:
    found = sorted(Path("/").glob(_FAKETIME[1:]))
    assert found, "a wrong clock needs libfaketime: apt-get install -y --no-install-recommends libfaketime"
    scene, library = begin(), str(found[0])

    def clock(offset: str) -> dict[str, str]:
        return {
            "LD_PRELOAD": library,
            "FAKETIME": offset,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # A remedy for old C libraries; with today's, every wait for Python's interpreter lock becomes a busy one.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    (ahead,) = scene.beats(1, **clock("+3600"))
    (behind,) = scene.beats(1, **clock("-3600"))
    scene.workers(1, **clock("+3600"))
    scene.workers(1, **clock("-3600"))
    scene.wait_for_passes(2)
    since = scene.now()
    second = scene.schedule("each second", after=0)
    scene.schedule("a job of two seconds", overlap_policy="skip", arguments='{"seconds": 2}')
    time.sleep(5)
    assert scene.worst_delay(second, since) < FAILOVER_SECONDS
    # Their marks tell the time of their own clocks: nothing to compare between the two workers.
    scene.settle().check(clocks_agree=False)
    assert scene.said(ahead, "clock is +3600.0 s off")
    assert scene.said(behind, "clock is -3600.0 s off")
