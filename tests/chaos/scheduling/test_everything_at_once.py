"""Many schedules of all policies, three Beats, two workers, and a random one of the five killed each second."""

import random
import time

import pytest

from tests.chaos.scheduling.conftest import Begin
from tests.chaos.scheduling.ledger import Ledger
from tests.chaos.scheduling.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

_OVERLAPS = ("queue_all", "allow", "skip", "cancel_previous", "queue_one")
_MISFIRES = ("run_all", "coalesce", "skip")
_FIVE = ("beat", "beat", "beat", "worker", "worker")
_SCHEDULES = 500
_LONGEST = 60


def _plan(scene: Scene) -> None:
    """Intervals from one second to a minute, every policy at several of them, and a cron for each minute."""
    for every in range(1, _LONGEST + 1):
        numbers = range(every, _SCHEDULES, _LONGEST)
        scene.schedules(
            [f"every {every} s, {number}" for number in numbers],
            every=float(every),
            overlap_policy=_OVERLAPS[every % len(_OVERLAPS)],
            misfire_policy=_MISFIRES[every % len(_MISFIRES)],
            arguments=f'{{"seconds": {every % 4 / 10}}}',
            max_attempts=30,
        )
    scene.schedule("each minute", every=None, max_attempts=30)
    scene.rows(
        "update job_schedules set is_active = true, max_attempts = 30, next_run = date_trunc('minute', now()) + interval '1 min'"
        " where task = 'check_job_schedules'"
    )


def _kill_one_each_second(scene: Scene, seconds: int) -> None:
    """And start another of its kind at once; three Beats and two workers in each five seconds, in any order."""
    dice = random.Random(20_261_121)
    tick = time.monotonic()
    for second in range(seconds):
        if second % len(_FIVE) == 0:
            kinds = dice.sample(_FIVE, len(_FIVE))
        tick += 1
        time.sleep(max(0.0, tick - time.monotonic()))
        kind = kinds.pop()
        scene.kill(dice.choice(scene.alive(kind)))
        scene.start(kind)


@pytest.mark.parametrize(("broker", "seconds"), [("redis", 60), ("rabbitmq", 10)])
def test_nothing_is_lost_or_doubled_while_a_process_is_killed_each_second(
    begin: Begin, broker: str, seconds: int
) -> None:
    scene = begin(broker)
    scene.beats(3)
    scene.workers(2, "--concurrency=3")
    _plan(scene)
    _kill_one_each_second(scene, seconds)
    ledger = scene.settle_and_check(within=90, disturbed=True, ended={"succeeded", "cancelled"})
    # The kills have hit runs in the middle.
    assert any(row["attempt"] > 1 for row in ledger.runs)
    _check_cancelled(ledger)


def _check_cancelled(ledger: Ledger) -> None:
    replacing = {one.id for one in ledger.planned if one.every and _OVERLAPS[int(one.every) % 5] == "cancel_previous"}
    assert {row["schedule_id"] for row in ledger.runs if row["state"] == "cancelled"} <= replacing
