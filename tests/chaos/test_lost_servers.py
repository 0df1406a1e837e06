"""What the product depends on goes away: LiveKit, the database, the broker."""

from collections import Counter

import pytest

from devstack.sample import OPTS_OUT, TALKS, WRONG, due
from tests.chaos.conftest import Begin

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

AWAY_SECONDS = 10


def test_calls_wait_while_livekit_cannot_be_reached_and_are_made_once_it_can(begin: Begin) -> None:
    people = [person for person in due() if person.suffix in {TALKS, WRONG, OPTS_OUT}]
    # The first retry of a line that is out comes after six seconds.
    chaos = begin(people, CALLS_BACKOFF_SCALE="0.02", CALLS_PER_SECOND="20", CALLS_MAX_CONCURRENT="30")
    dialable = sum(not person.do_not_call for person in people)
    chaos.stop("simulator")
    chaos.call_everybody()
    ended = "select status, end_reason from calls where ended_at is not null and attempt_no = 1"
    chaos.wait_for("a first attempt for everybody", lambda: len(chaos.rows(ended)) == dialable)
    assert Counter((row["status"], row["end_reason"]) for row in chaos.rows(ended)) == {
        ("failed", "unavailable"): dialable
    }
    assert chaos.ledger().rooms == []
    waiting = "select id from scheduled_calls where status in ('pending', 'claimed', 'in_progress')"
    assert len(chaos.rows(waiting)) == dialable
    chaos.start("simulator")
    ledger = chaos.check_when_settled()
    assert len(set(ledger.numbers)) == dialable


def test_work_resumes_when_the_database_comes_back(begin: Begin) -> None:
    chaos = begin()
    chaos.call_everybody()
    chaos.wait_for_dials(8)
    chaos.take_away(chaos.postgres, AWAY_SECONDS)
    chaos.check_when_settled()


def test_work_resumes_when_the_broker_comes_back(begin: Begin) -> None:
    chaos = begin()
    chaos.call_everybody()
    chaos.wait_for_dials(8)
    chaos.take_away(chaos.valkey, AWAY_SECONDS)
    chaos.check_when_settled()
