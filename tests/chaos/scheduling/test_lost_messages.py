"""Between the row and the worker: a relay dies, the broker is away, a message is lost."""

import time
from datetime import timedelta

import pytest

from backend.scheduling.publisher import Message, Publisher
from backend.scheduling.relay import RELAY_SECONDS
from tests.chaos.scheduling.conftest import Begin
from tests.chaos.scheduling.ledger import Planned
from tests.chaos.scheduling.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

BROKERS = ("redis", "rabbitmq")
# A RabbitMQ takes four seconds more to come back.
AWAY_SECONDS = {"redis": 10, "rabbitmq": 6}
DRAINED_SECONDS = 5.0


def test_what_a_beat_had_inserted_and_not_published_when_it_died_is_relayed_by_another(begin: Begin) -> None:
    scene = begin()
    (beat,) = scene.beats(1)
    (worker,) = scene.workers(1)
    second = scene.schedule("each second")
    scene.wait_for_run(second, state="succeeded")
    scene.broker.pause()
    in_hand = "select count(*) from job_runs where state = 'pending' and relay_until > now()"
    scene.wait_for("runs in the Beat's hands", lambda: scene.value(in_hand) > 0)
    scene.kill(beat)
    left = scene.rows("select id from job_runs where state = 'pending' and relay_until > now()")
    scene.broker.resume()
    assert left
    scene.beats(1)
    done = "select count(*) from job_runs where id = any($1::uuid[]) and state = 'succeeded'"
    scene.wait_for(
        "the dead Beat's runs done",
        lambda: scene.value(done, [row["id"] for row in left]) == len(left),
        within=RELAY_SECONDS + 5,
    )
    assert scene.alive("worker") == [worker]
    scene.settle_and_check()


@pytest.mark.parametrize("broker", BROKERS)
def test_a_run_published_by_a_relay_that_died_before_it_could_say_so_is_executed_once(
    begin: Begin, broker: str
) -> None:
    scene = begin(broker)
    once = _due_once(scene, "published twice", count=20)
    scene.beats(1)
    scene.wait_for("the runs queued", lambda: _in_state(scene, "queued") == len(once))
    # As a relay that died: the message is there, the row is still pending and nobody holds it.
    scene.rows("update job_runs set state = 'pending', published_at = null, publish_count = 0, relay_until = null")
    scene.wait_for("the runs queued again", lambda: _in_state(scene, "queued") == len(once))
    publisher = Publisher(scene.app())
    publisher.publish([Message(row["id"], row["task"], row["queue"]) for row in scene.rows("select * from job_runs")])
    publisher.close()
    scene.workers(2)
    ledger = scene.settle_and_check()
    assert len(ledger.effects) == len(once)


def _due_once(scene: Scene, name: str, *, count: int, seconds: float = 0) -> list[Planned]:
    """Schedules with a single occurrence each before the test ends."""
    names = [f"{name} {number}" for number in range(count)]
    return scene.schedules(names, every=3600.0, after=0, arguments=f'{{"seconds": {seconds}}}')


def _in_state(scene: Scene, state: str) -> int:
    return int(scene.value("select count(*) from job_runs where state = $1", state))


def test_a_run_that_fails_before_its_relay_says_that_it_was_sent_is_tried_again_on_time(begin: Begin) -> None:
    scene = begin()
    scene.beats(2)
    scene.workers(1)
    _slow_relays_down(scene)
    failing = scene.schedules([f"failing {n}" for n in range(5)], every=3600.0, after=0, task="fail_at_first")
    done = "select count(*) from job_runs where state = 'succeeded'"
    scene.wait_for("the second attempts", lambda: scene.value(done) == len(failing), within=5)
    ledger = scene.settle_and_check(disturbed=True)
    scene.rows("drop trigger slow_relay on job_runs")
    assert [row["attempt"] for row in ledger.runs] == [2] * len(failing)
    # Nothing was taken for lost.
    assert {event["kind"] for event in ledger.events} == {"attempt_failed"}


def _slow_relays_down(scene: Scene) -> None:
    """Half a second passes between a message and its mark: workers are faster."""
    scene.rows("""
        create or replace function slow_relay() returns trigger language plpgsql as $$ begin
        if current_setting('application_name') = 'beatline-relay' then perform pg_sleep(0.5); end if; return null; end $$
    """)
    scene.rows("""
        create or replace trigger slow_relay before update on job_runs for each statement execute function slow_relay()
    """)


@pytest.mark.parametrize("broker", BROKERS)
def test_while_the_broker_is_away_occurrences_wait_in_the_database_and_are_sent_when_it_is_back(
    begin: Begin, broker: str
) -> None:
    scene = begin(broker)
    beats = scene.beats(2)
    workers = scene.workers(1)
    seconds = scene.schedules([f"each second {n}" for n in range(5)])
    scene.wait_for_run(seconds[0], state="succeeded")
    scene.at_rest()
    gone = scene.now()
    scene.broker.kill()
    time.sleep(AWAY_SECONDS[broker])
    # Claims go on: the outbox holds each occurrence.
    for planned in seconds:
        assert scene.worst_delay(planned, gone) < 2
    waiting = scene.value("select count(*) from job_runs where state = 'pending' and scheduled_for > $1", gone)
    assert waiting >= len(seconds) * (AWAY_SECONDS[broker] - 2)
    scene.broker.start()
    old = "select 1 from job_runs where state = 'pending' and publish_count = 0 and created_at < $1 limit 1"
    back = scene.now()
    drained = scene.wait_for("the outbox drained", lambda: not scene.rows(old, back))
    assert drained < DRAINED_SECONDS
    ledger = scene.settle_and_check(disturbed=True)
    assert scene.alive("beat") + scene.alive("worker") == beats + workers
    assert {row["attempt"] for row in ledger.runs if row["scheduled_for"] > gone + timedelta(seconds=1)} == {1}


@pytest.mark.parametrize("broker", BROKERS)
def test_messages_that_the_broker_loses_are_sent_again(begin: Begin, broker: str) -> None:
    scene = begin(broker)
    scene.beats(2)
    lost = _due_once(scene, "lost", count=10)
    scene.wait_for("the runs queued", lambda: _in_state(scene, "queued") == len(lost))
    assert scene.lose_messages() >= len(lost)
    scene.workers(1)
    # Later messages of the queue are taken: the earlier ones must have been lost.
    scene.schedule("each second", after=0)
    once = "select count(*) from job_runs where name like 'lost%' and state = 'succeeded'"
    scene.wait_for("the lost runs done", lambda: scene.value(once) == len(lost), within=15)
    ledger = scene.settle_and_check()
    assert [row["publish_count"] for row in ledger.runs if row["name"].startswith("lost")] == [2] * len(lost)
    assert sum(event["kind"] == "republished" for event in ledger.events) == len(lost)


def test_a_message_that_rabbitmq_gives_up_on_is_sent_again(begin: Begin) -> None:
    scene = begin("rabbitmq")
    scene.beats(1)
    dropped = _due_once(scene, "dropped", count=3)
    scene.wait_for("the runs queued", lambda: _in_state(scene, "queued") == len(dropped))
    app = scene.app()
    with app.connection_for_read() as connection:
        queue = app.amqp.queues["default"](connection.default_channel)
        for _ in dropped:
            message = queue.get()
            assert message is not None
            # To the dead-letter exchange, where the delivery limit sends it.
            message.reject()
        assert queue.get() is None
    scene.workers(1)
    # Later messages of the queue are taken: the earlier ones must have been lost.
    scene.schedule("each second", after=0)
    done = "select count(*) from job_runs where name like 'dropped%' and state = 'succeeded'"
    scene.wait_for("the dropped runs done", lambda: scene.value(done) == len(dropped), within=15)
    ledger = scene.settle_and_check()
    assert [row["publish_count"] for row in ledger.runs if row["name"].startswith("dropped")] == [2] * len(dropped)
