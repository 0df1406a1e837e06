"""The product's own processes die, or there are too many of them."""

import time

import pytest

from devstack.sample import TALKS, due
from devstack.stack import CELERY
from tests.chaos.conftest import Begin

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]


def test_a_killed_api_leaves_no_call_open_and_dials_nobody_twice(begin: Begin) -> None:
    chaos = begin()
    chaos.call_everybody()
    chaos.wait_for_dials(8)
    chaos.kill("api")
    chaos.start("api")
    chaos.check_when_settled()


@pytest.mark.parametrize("name", ["worker", "worker-scheduled"])
def test_what_a_killed_worker_had_in_hand_is_done_after_all(begin: Begin, name: str) -> None:
    chaos = begin()
    chaos.call_everybody()
    chaos.wait_for_dials(5)
    chaos.kill(name)
    time.sleep(3)
    chaos.start(name)
    chaos.check_when_settled()


def test_two_beats_and_five_daily_jobs_at_once_call_nobody_twice(begin: Begin) -> None:
    chaos = begin()
    chaos.start("beat", as_name="beat-2")
    chaos.call_everybody_at_once(5)
    ledger = chaos.check_when_settled()
    assert ledger.reached() > 0


def test_a_transcript_arrives_though_its_worker_was_killed(begin: Begin) -> None:
    people = [person for person in due() if person.suffix == TALKS and not person.do_not_call][:2]
    chaos = begin(people, CALLS_RECORDING="on")
    chaos.call_everybody()
    busy = "select id from recordings where state = 'transcribing'"
    chaos.wait_for("a transcription under way", lambda: chaos.rows(busy))
    chaos.kill("worker-audio")
    cut = chaos.rows(busy)
    assert len(cut) == 1
    chaos.start("worker-audio")
    # Beat's own sweep may come first.
    free = (
        f"select id from recordings where id = '{cut[0]['id']}'"
        " and (claimed_until < now() and next_attempt_at < now() or state = 'ready')"
    )
    chaos.wait_for("the end of the lost worker's lease", lambda: chaos.rows(free), within=120)
    chaos.stack.command("sweep", *CELERY, "call", "sweep_recordings")
    heard = "select t.text from transcripts t join recordings r on r.id = t.recording_id where r.state = 'ready'"
    chaos.wait_for("both transcripts", lambda: len(chaos.rows(heard)) == len(people))
    assert all(row["text"] for row in chaos.rows(heard))
    chaos.check_when_settled()
