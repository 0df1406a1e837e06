"""The broker is killed, and stopped, under the load of ten thousand tasks."""

import time
from collections.abc import Callable

import pytest

from tests.chaos.brokers.conftest import Begin
from tests.chaos.brokers.producing import Producers
from tests.chaos.brokers.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

TASKS = 10_000


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_broker_that_is_killed_and_one_that_is_restarted_lose_nothing_and_double_nothing(
    begin: Begin, broker: str
) -> None:
    scene = begin(broker)
    scene.workers(3)
    producers = scene.produce("take_effect", range(TASKS), threads=4)
    _take_away(scene, producers, after=3_000, how=scene.broker.kill)
    _take_away(scene, producers, after=6_000, how=scene.broker.stop)
    producers.join(60)
    scene.wait_for_effects(TASKS, within=90)
    ledger = scene.check()
    assert len(ledger.sent) == len(ledger.booked) == TASKS
    assert ledger.letters == set()


def _take_away(scene: Scene, producers: Producers, *, after: int, how: Callable[[], None]) -> None:
    """The broker goes when so much is sent, and comes back; sends failed meanwhile, and there was work to lose."""
    scene.wait_for(f"{after} sent", lambda: len(producers.sent) >= after, within=60)
    refused = producers.refused
    assert scene.booked() < after, "no load: everything sent was done"
    how()
    time.sleep(2)
    scene.broker.start()
    scene.wait_for("a send that failed", lambda: producers.refused > refused, within=10)
    assert producers.busy
