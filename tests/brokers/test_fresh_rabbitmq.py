"""A RabbitMQ in which nothing was ever declared; its user, password and virtual host need encoding."""

from typing import Any

from tests.brokers.site import Site, wait_for


def test_a_worker_of_one_queue_makes_delays_work_for_all(fresh_rabbitmq: Site) -> None:
    worker = fresh_rabbitmq.start("scheduled")
    worker.ready()
    fresh_rabbitmq.send("leave_a_mark", "here", queue="scheduled", countdown=1)
    fresh_rabbitmq.send("leave_a_mark", "elsewhere", queue="audio", countdown=1)
    fresh_rabbitmq.marked("here")
    wait_for(lambda: fresh_rabbitmq.waiting("audio") == 1)
    assert not worker.said("Failed to bind queue")
    assert not worker.said("CRITICAL")


def test_a_producer_may_delay_messages_before_any_worker_came_and_after_the_broker_was_replaced(
    fresh_rabbitmq: Site,
) -> None:
    fresh_rabbitmq.send("leave_a_mark", "first", queue="audio", countdown=1)
    wait_for(lambda: fresh_rabbitmq.waiting("audio") == 1)
    with fresh_rabbitmq.app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.exchange_delete("celery_delayed_27")
        channel.queue_delete("audio")
    fresh_rabbitmq.send("leave_a_mark", "second", queue="audio", countdown=1)
    wait_for(lambda: fresh_rabbitmq.waiting("audio") == 1)
