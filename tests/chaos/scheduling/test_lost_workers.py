"""Workers die, freeze, or are told to stop, in the middle of a run."""

import os
import signal
import time

import psutil
import pytest

from tests.chaos.scheduling.conftest import Begin
from tests.chaos.scheduling.ledger import Effect, Planned, Row, read_effects
from tests.chaos.scheduling.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

# The lease of four seconds, the reaper's pass, its backoff and the relay.
RETRIED_SECONDS = 10.0
# Workers look each two seconds, or each quarter of a lease.
STOPPED_SECONDS = 4.0
PREFORK = ("--pool=prefork", "--concurrency=2")


def _due_once(scene: Scene, task: str, seconds: float) -> Planned:
    return scene.schedule("a long job", every=3600.0, after=0, task=task, arguments=f'{{"seconds": {seconds}}}')


def _under_way(scene: Scene) -> Effect:
    """The one execution that has begun."""
    scene.wait_for("a handler at work", lambda: read_effects(scene.effects))
    (effect,) = read_effects(scene.effects)
    return effect


def _retried(scene: Scene, planned: Planned) -> Row:
    row = scene.wait_for_run(planned, state="succeeded", within=RETRIED_SECONDS + 3)
    assert (row["attempt"], row["epoch"]) == (2, 2)
    return row


def test_a_run_whose_process_of_the_pool_is_killed_is_tried_again(begin: Begin) -> None:
    scene = begin()
    scene.beats(2)
    (worker,) = scene.workers(1, *PREFORK)
    job = _due_once(scene, "leave_a_mark", 2)
    effect = _under_way(scene)
    assert effect.pid in {child.pid for child in psutil.Process(scene.supervisor.running[worker].pid).children()}
    os.kill(effect.pid, signal.SIGKILL)
    _retried(scene, job)
    ledger = scene.settle_and_check(disturbed=True)
    assert [one.how for one in ledger.effects] == [None, "finished"]
    assert scene.alive("worker") == [worker]


def test_a_run_whose_worker_is_killed_is_done_by_another(begin: Begin) -> None:
    scene = begin()
    scene.beats(2)
    workers = scene.workers(2, *PREFORK)
    job = _due_once(scene, "leave_a_mark", 2)
    victim = scene.name_of(_under_way(scene).pid)
    scene.kill(victim)
    _retried(scene, job)
    ledger = scene.settle_and_check(disturbed=True)
    assert [one.how for one in ledger.effects] == [None, "finished"]
    assert [event["kind"] for event in ledger.events] == ["worker_lost"]
    assert [scene.name_of(ledger.effects[1].pid)] == [name for name in workers if name != victim]


def test_what_a_frozen_worker_finishes_after_its_lease_is_not_recorded(begin: Begin) -> None:
    scene = begin()
    scene.beats(2)
    scene.workers(2, *PREFORK)
    job = _due_once(scene, "block_the_process", 2)
    victim = scene.name_of(_under_way(scene).pid)
    scene.freeze(victim)
    recorded = _retried(scene, job)
    scene.thaw(victim)
    scene.wait_for("the thawed handler's end", lambda: all(one.ended for one in read_effects(scene.effects)))
    time.sleep(1)
    assert scene.runs_of(job) == [recorded]
    ledger = scene.settle_and_check(disturbed=True)
    first, second = ledger.effects
    assert (first.attempt, second.attempt, second.how) == (1, 2, "finished")
    assert f'"pid": {second.pid}' in recorded["result"]
    # It could not be stopped, and finds itself fenced.
    assert first.how == "finished"
    assert scene.said(victim, "nothing recorded")


def test_a_run_at_work_that_is_cancelled_stops_within_seconds(begin: Begin) -> None:
    scene = begin()
    scene.beats(1)
    scene.workers(1)
    job = _due_once(scene, "leave_a_mark", 60)
    run = scene.wait_for_run(job)
    _under_way(scene)
    scene.rows("update job_runs set cancel_requested_at = now() where id = $1", run["id"])
    took = scene.wait_for("the run cancelled", lambda: scene.runs_of(job)[0]["state"] == "cancelled")
    assert took < STOPPED_SECONDS
    ledger = scene.settle_and_check(ended={"cancelled"})
    assert [one.how for one in ledger.effects] == ["stopped"]


def test_a_cancelled_run_whose_worker_is_lost_is_not_tried_again(begin: Begin) -> None:
    scene = begin()
    scene.beats(1)
    workers = scene.workers(2)
    job = _due_once(scene, "leave_a_mark", 60)
    run = scene.wait_for_run(job)
    victim = scene.name_of(_under_way(scene).pid)
    scene.kill(victim)
    scene.rows("update job_runs set cancel_requested_at = now() where id = $1", run["id"])
    scene.wait_for_run(job, state="cancelled", within=RETRIED_SECONDS)
    ledger = scene.settle_and_check(ended={"cancelled"}, disturbed=True)
    assert len(ledger.effects) == 1
    assert victim in workers
