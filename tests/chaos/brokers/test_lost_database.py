"""PostgreSQL is killed, and restarted, under the load of tasks that are tried again."""

import pytest

from tests.chaos.brokers.conftest import Begin

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

TASKS = 1_500


def test_tasks_outlive_the_database_and_take_effect_once(begin: Begin) -> None:
    scene = begin("redis")
    scene.workers(2)
    producers = scene.produce("take_effect_once", range(TASKS))
    scene.wait_for_effects(TASKS // 5, within=60)
    for take_away in (scene.postgres.kill, scene.postgres.stop):
        take_away()
        # Some are begun meanwhile, and fail.
        scene.wait_for_log("Retry in", more=20)
        scene.postgres.start()
        scene.wait_for_effects(scene.booked() + TASKS // 5, within=60)
    producers.join(60)
    scene.wait_for_effects(TASKS, within=60)
    ledger = scene.check()
    assert len(ledger.sent) == len(ledger.booked) == TASKS
    assert ledger.letters == set()
    assert ledger.repeated > 0
