import json
import re
import signal
import time
from pathlib import Path

import pytest
from jiwer import wer

from devstack.environment import ROOT
from devstack.sample import PEOPLE, PHONES, TALKS, do_not_call_phones, due, phone_of
from tests.acceptance.conftest import Down, Interruption, Run, left_running, started_demo

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]


def talkers() -> set[str]:
    """The numbers of those who answer and talk, and may be called."""
    return {
        phone_of(person)
        for person in due()
        if not person.do_not_call and (person.suffix == TALKS or person.suffix not in PHONES)
    }


def test_every_planned_call_is_final_and_the_demo_says_so(first: Run) -> None:
    assert first.code == 0, first.stderr
    counts = first.result["counts"]
    assert sum(counts.values()) == len(due())
    assert counts["completed"] == len(talkers()) + 1
    assert counts["skipped"] == len(do_not_call_phones())
    promised = [row for row in first.result["calls"] if row["status"] not in {"completed", "exhausted", "skipped"}]
    assert promised == []


def test_those_who_are_due_are_planned_and_nobody_else(first: Run) -> None:
    planned = {row["phone"] for row in first.result["calls"]}
    assert planned == {phone_of(person) for person in due()}


def test_nobody_on_the_do_not_call_list_is_dialed_and_the_table_says_why(first: Run, dials_after_first: str) -> None:
    forbidden = do_not_call_phones()
    assert not any(phone in dials_after_first for phone in forbidden)
    listed = [row for row in first.result["calls"] if row["phone"] in forbidden]
    assert len(listed) == 4
    assert {(row["status"], row["reason"], row["attempts"]) for row in listed} == {("skipped", "do_not_call", 0)}
    assert first.result["do_not_call_dialed"] == []


def test_no_attempt_is_dialed_twice(first: Run, dials_after_first: str) -> None:
    rooms = [json.loads(line)["room"] for line in dials_after_first.splitlines()]
    assert len(rooms) == len(set(rooms)) == first.result["dialed"]
    assert first.result["dialed"] == sum(row["attempts"] for row in first.result["calls"])


def test_whoever_answers_is_reached_at_the_first_attempt_recorded_and_transcribed(first: Run) -> None:
    reached = [row for row in first.result["calls"] if row["phone"] in talkers()]
    assert len(reached) == 13
    for row in reached:
        assert (row["status"], row["attempts"], row["transcript_state"]) == ("completed", 1, "ready"), row
        assert row["first_line"], row
        assert {said["speaker"] for said in row["transcript"]} == {"agent", "customer"}, row


def test_transcripts_have_the_words_that_were_spoken(first: Run, dials_after_first: str) -> None:
    clips = {clip["id"]: clip for clip in json.loads((ROOT / "backend/simulator/clips/clips.json").read_text())}
    spoken = {dial["number"]: dial["clip"] for dial in map(json.loads, dials_after_first.splitlines())}
    rates = {}
    for row in first.result["calls"]:
        if row["phone"] in talkers():
            reference = words(clips[spoken[row["phone"]]]["text"])
            rates[row["customer_name"]] = wer(reference, words(" ".join(said["text"] for said in row["transcript"])))
    assert len(rates) == 13
    assert max(rates.values()) <= 0.35, rates


def words(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


@pytest.mark.parametrize(
    ("suffix", "status", "call_status"),
    [
        ("486", "exhausted", "busy"),
        ("603", "exhausted", "busy"),
        ("404", "exhausted", "failed"),
        ("480", "exhausted", "no_answer"),
        ("503", "exhausted", "failed"),
        ("000", "exhausted", "no_answer"),
        ("777", "exhausted", "voicemail"),
        ("111", "exhausted", "completed"),
        ("666", "completed", "completed"),
    ],
)
def test_every_behaviour_of_a_phone_ends_as_it_should(first: Run, suffix: str, status: str, call_status: str) -> None:
    phones = {phone_of(person) for person in PEOPLE if person.suffix == suffix}
    ended = [(row["status"], row["call_status"]) for row in first.result["calls"] if row["phone"] in phones]
    assert ended
    assert set(ended) == {(status, call_status)}


def test_progress_goes_to_stderr_and_names_the_pages_and_the_logs(first: Run) -> None:
    assert len(first.stdout.splitlines()) == 1
    for expected in (first.result["docs"], first.result["pages"], first.result["logs"], "no attempt twice"):
        assert expected in first.stderr.replace("\n", ""), expected


def test_a_second_run_takes_seconds_and_dials_nobody(second: Run, state: Path, dials_after_first: str) -> None:
    assert second.code == 0, second.stderr
    assert (state / "simulator" / "dials.jsonl").read_text() == dials_after_first
    assert second.seconds < 60
    assert "make down" in second.stderr


def test_a_demo_finds_what_was_left_running_and_leaves_it_running(attached: Run, second: Run) -> None:
    assert attached.code == 0, attached.stderr
    assert "Already running" in attached.stderr
    assert attached.result["docs"] == second.result["docs"]
    assert attached.result["counts"] == second.result["counts"]


def test_down_stops_everything_that_was_left_running(stopped: Down) -> None:
    assert stopped.before.code == 0
    assert "postgres" in stopped.before.stdout
    assert stopped.down.code == 0, stopped.down.stderr
    assert "Nothing is running" in stopped.after.stdout
    assert stopped.left == []


def test_a_signal_ends_the_demo_and_every_process_with_it(interrupted: Interruption) -> None:
    assert interrupted.left == []
    if interrupted.code == -signal.SIGKILL:
        return
    assert interrupted.code in {128 + signal.SIGINT, 128 + signal.SIGTERM}
    assert "Interrupted" in interrupted.output


def test_a_lost_simulator_is_named_with_its_log_and_everything_else_is_stopped(state: Path, stopped: Down) -> None:
    assert stopped.down.code == 0
    with started_demo(state) as started:
        pid = started.wait_for("simulator")
        time.sleep(1)
        family = started.family()
        next(member for member in family if member.pid == pid).kill()
        output, _ = started.process.communicate(timeout=60)
    assert started.process.returncode == 1
    assert "LiveKit (the simulator) is unreachable" in output
    assert "simulator.log" in output.replace("\n", "")
    assert left_running(family) == []
