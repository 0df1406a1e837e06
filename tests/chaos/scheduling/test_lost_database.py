"""PostgreSQL dies, freezes, or is not there yet."""

import time
from datetime import datetime

import pytest

from tests.chaos.scheduling.conftest import Begin
from tests.chaos.scheduling.ledger import Ledger, Planned
from tests.chaos.scheduling.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

AWAY_SECONDS = 10
# A connection attempt that hangs is given up after five seconds, a statement after fifteen.
BACK_SECONDS = 12.0


def _busy(scene: Scene) -> list[Planned]:
    """Schedules of each policy, with runs that last longer than a part of the outage."""
    planned = [
        scene.schedule("all of them", misfire_policy="run_all"),
        scene.schedule("merged", misfire_policy="coalesce"),
        scene.schedule("skipped", misfire_policy="skip"),
        scene.schedule("one at a time", every=2.0, overlap_policy="skip", arguments='{"seconds": 1.5}'),
        scene.schedule("one after the other", every=2.0, overlap_policy="queue_all", arguments='{"seconds": 0.5}'),
        scene.schedule("a long job", every=3600.0, arguments='{"seconds": 5}'),
    ]
    scene.wait_for_run(planned[0], state="succeeded")
    scene.wait_for_run(planned[-1], state="running")
    return planned


def _back_to_work(scene: Scene, planned: Planned, since: datetime) -> None:
    due = "select count(*) from job_runs where schedule_id = $1 and scheduled_for > $2 and state = 'succeeded'"
    scene.wait_for("work after the outage", lambda: scene.value(due, planned.id, since), within=BACK_SECONDS)


def _check_policies(ledger: Ledger, planned: list[Planned]) -> None:
    all_of_them, merged, skipped = (ledger.count(one) for one in planned[:3])
    assert set(all_of_them) == {"succeeded"}
    assert set(merged) == {"succeeded", "coalesced"}
    assert set(skipped) == {"succeeded", "missed"}


def test_after_a_crash_of_postgresql_everything_that_was_due_is_accounted_for(begin: Begin) -> None:
    scene = begin()
    processes = scene.beats(2) + scene.workers(2)
    planned = _busy(scene)
    scene.postgres.kill()
    time.sleep(AWAY_SECONDS)
    scene.supervisor.check()
    scene.postgres.start()
    _back_to_work(scene, planned[0], scene.now())
    ledger = scene.settle_and_check(disturbed=True)
    _check_policies(ledger, planned)
    assert scene.alive("beat") + scene.alive("worker") == processes
    assert all(scene.said(beat, "database away, nothing is dispatched") for beat in scene.alive("beat"))
    assert all(scene.said(beat, "database back after") for beat in scene.alive("beat"))


def test_while_postgresql_is_frozen_nothing_is_lost_and_nobody_ends(begin: Begin) -> None:
    scene = begin()
    processes = scene.beats(2) + scene.workers(2)
    planned = _busy(scene)
    scene.postgres.pause()
    time.sleep(AWAY_SECONDS)
    scene.supervisor.check()
    scene.postgres.resume()
    _back_to_work(scene, planned[0], scene.now())
    ledger = scene.settle_and_check(disturbed=True)
    _check_policies(ledger, planned)
    assert scene.alive("beat") + scene.alive("worker") == processes


def test_a_beat_and_a_worker_that_start_without_postgresql_say_so_and_work_when_it_comes(begin: Begin) -> None:
    scene = begin()
    second = scene.schedule("each second")
    scene.postgres.stop()
    (beat,) = scene.beats(1)
    scene.workers(1)
    scene.wait_for("a word about the database", lambda: scene.said(beat, "database away, nothing is dispatched"))
    scene.postgres.start()
    scene.wait_for_run(second, state="succeeded", within=BACK_SECONDS)
    scene.settle_and_check()
