"""What the queues promise, on both brokers, with real workers."""

import os
import signal

from backend.celery_app import QUEUE_LIMITS, VISIBILITY_TIMEOUT
from backend.core.db import Database
from devstack.servers import PostgresServer
from tests.brokers.site import QUEUES, Site, wait_for


def test_the_visibility_timeout_exceeds_every_time_limit() -> None:
    assert max(QUEUE_LIMITS.values()) < VISIBILITY_TIMEOUT


def test_every_queue_has_a_routing_key_of_its_own_and_reaches_only_its_worker(site: Site) -> None:
    keys = {queue.name: queue.routing_key for queue in site.app.amqp.queues.values()}
    assert set(keys) == set(QUEUES)
    assert len(set(keys.values())) == len(keys)
    high, others = site.start("high_priority"), site.start("default,low_priority,scheduled,audio")
    for queue, key in keys.items():
        site.send("leave_a_mark", queue, queue=queue)
        # By exchange and key, as one would from outside.
        site.app.send_task("leave_a_mark", kwargs={"name": f"{queue}-key"}, exchange="beatline", routing_key=key)
    for queue in QUEUES:
        reader = high if queue == "high_priority" else others
        assert site.marked(queue) == site.marked(f"{queue}-key") == [str(reader.process.pid)]


def test_messages_wait_for_a_worker_and_an_idle_one_takes_the_next_while_another_is_busy(site: Site) -> None:
    for number in range(3):
        site.send("hold_until_released", f"held-{number}")
    first = site.start()
    site.marked("held-0")
    second = site.start()
    (taker,) = site.marked("held-1")
    assert taker == str(second.process.pid)
    assert site.marks("held-0") == [str(first.process.pid)]
    assert site.marks("held-2") == []
    (site.folder / "released").touch()
    site.marked("held-2")


def test_tasks_are_spread_over_the_workers_one_each(site: Site) -> None:
    workers = [site.start() for _ in range(3)]
    for worker in workers:
        worker.ready()
    for number in range(3):
        site.send("hold_until_released", f"shared-{number}")
    takers = [site.marked(f"shared-{number}") for number in range(3)]
    assert sorted(taker for (taker,) in takers) == sorted(str(worker.process.pid) for worker in workers)
    (site.folder / "released").touch()


def test_the_task_of_a_killed_worker_is_taken_over_by_another(site: Site) -> None:
    # Redis hands an unacknowledged message out again once the visibility timeout has passed: made short for the test.
    options = {"SHORT_VISIBILITY": "2"}
    site.send("hold_until_released", "orphan")
    lost = site.start("default", **options)
    assert site.marked("orphan") == [str(lost.process.pid)]
    os.killpg(lost.process.pid, signal.SIGKILL)
    lost.process.wait(10)
    heir = site.start("default", **options)
    wait_for(lambda: len(site.marks("orphan")) == 2, 30)
    assert site.marks("orphan")[1] == str(heir.process.pid)
    (site.folder / "released").touch()
    site.marked("orphan-done")


def test_a_task_that_fails_does_not_disturb_the_others(site: Site, db: Database, postgres: PostgresServer) -> None:
    worker = site.start("default", "-c", "2", DATABASE_URL=postgres.url)
    site.send("hold_until_released", "bystander")
    site.marked("bystander")
    for number in range(3):
        site.send("fail_for_good", f"failing-{number}")
        site.send("leave_a_mark", f"after-{number}")
    for number in range(3):
        site.marked(f"after-{number}")
        assert len(site.marks(f"failing-{number}")) == 1
    (site.folder / "released").touch()
    site.marked("bystander-done")
    assert worker.process.poll() is None


def test_a_failed_task_is_tried_again_after_a_growing_while(site: Site) -> None:
    site.start()
    site.send("fail_twice", "tries")
    wait_for(lambda: len(site.marks("tries")) == 3)
    times = [float(line.split()[1]) for line in (site.folder / "tries").read_text().splitlines()]
    assert times[1] - times[0] >= 0.9
    assert times[2] - times[1] >= 0.9


def test_messages_outlive_a_restart_of_the_broker(site: Site) -> None:
    for number in range(20):
        site.send("leave_a_mark", f"kept-{number}")
    # Not killed: RabbitMQ 3.10 loses a quorum queue that was made in the seconds before (its directory of them is written late).
    site.server.stop()
    site.server.start()
    site.start()
    for number in range(20):
        assert len(site.marked(f"kept-{number}")) == 1
