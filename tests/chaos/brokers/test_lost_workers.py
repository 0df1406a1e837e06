"""Ten workers are killed one after another, and a message kills whoever takes it."""

import time

import pytest

from tests.chaos.brokers.conftest import Begin

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

KILLED = 10
# x-delivery-limit in celery_app.py: so often again after the first time.
DELIVERIES = 11


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_what_ten_killed_workers_held_takes_effect_once(begin: Begin, broker: str) -> None:
    scene = begin(broker)
    scene.workers(3)
    # Long enough that each of the killed dies with something in its hands.
    producers = scene.produce("take_effect_slowly", range(KILLED * 100))
    for _ in range(KILLED):
        scene.start_worker()
        time.sleep(1.5)
        scene.kill(scene.alive()[0])
    producers.join(60)
    scene.wait_for_effects(KILLED * 100, within=60)
    ledger = scene.check()
    assert len(ledger.sent) == len(ledger.booked) == KILLED * 100
    assert ledger.letters == set()
    assert ledger.repeated >= KILLED // 2


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_message_that_kills_whoever_takes_it_ends_as_a_dead_letter_beside_the_others(
    begin: Begin, broker: str
) -> None:
    scene = begin(broker)
    scene.workers(2)
    poison = scene.produce("kill_the_process", [-1])
    good = scene.produce("take_effect", range(300))
    good.join(30)
    poison.join(30)
    scene.wait_for_effects(300, within=60)
    scene.wait_for_letter(-1, within=60)
    ledger = scene.check()
    assert ledger.letters == {-1}
    assert ledger.executions[-1] == DELIVERIES
    assert set(ledger.booked) == set(range(300))
