"""What becomes of a backlog, policy by policy; no clock and no database."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from backend.scheduling.occurrences import NewRun, run_id
from backend.scheduling.policies import ActiveRun, Decision, admit, decide, jitter
from backend.scheduling.recurrence import Cron, Interval, Once, Recurrence

NOW = datetime(2026, 3, 2, 12, 0, 0, tzinfo=UTC)
EVERY_MINUTE = Interval(60, datetime(2026, 1, 1, tzinfo=UTC))
NEXT = NOW + timedelta(minutes=1)


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def row(**columns: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "next_run": NOW,
        "end_at": None,
        "max_runs": None,
        "run_count": 0,
        "jitter_seconds": 0,
        "misfire_policy": "coalesce",
        "misfire_grace_seconds": 3600,
        "max_catchup": 100,
        "overlap_policy": "allow",
        "concurrency_key": None,
    } | columns


def decided(active: Sequence[ActiveRun] = (), recurrence: Recurrence = EVERY_MINUTE, **columns: Any) -> Decision:
    return decide(row(**columns), recurrence, NOW, active)


def told(decision: Decision) -> list[tuple[datetime, str, str | None]]:
    """(instant, state, reason) of every row, by instant."""
    return sorted((run.scheduled_for, run.state, run.reason) for run in decision.runs)


def only(decision: Decision, state: str) -> NewRun:
    (run,) = [run for run in decision.runs if run.state == state]
    return run


POLICIES = ("skip", "coalesce", "run_all")


@pytest.mark.parametrize("misfire", POLICIES)
def test_an_occurrence_on_time_runs_under_every_misfire_policy(misfire: str) -> None:
    decision = decided(misfire_policy=misfire)
    assert told(decision) == [(NOW, "pending", None)]
    assert (decision.started, decision.last_run, decision.next_run) == (1, NOW, NEXT)
    assert decision.missed_at is None
    assert decision.runs[0].id == run_id(7, NOW)


def test_a_backlog_within_the_grace_is_run_once_and_the_older_ones_are_merged_into_it() -> None:
    decision = decided(next_run=ago(2))
    assert told(decision) == [
        (ago(2), "coalesced", "merged"),
        (ago(1), "coalesced", "merged"),
        (NOW, "pending", None),
    ]
    merged = [run.blocked_by for run in decision.runs if run.state == "coalesced"]
    assert merged == [run_id(7, NOW)] * 2
    assert (decision.started, decision.missed_at, decision.next_run) == (1, None, NEXT)


def test_a_backlog_within_the_grace_is_run_whole_when_all_are_to_run() -> None:
    decision = decided(next_run=ago(2), misfire_policy="run_all")
    assert told(decision) == [(ago(2), "pending", None), (ago(1), "pending", None), (NOW, "pending", None)]
    assert (decision.started, decision.missed_at) == (3, None)


def test_a_backlog_within_the_grace_is_missed_but_for_the_newest_when_misfires_are_skipped() -> None:
    decision = decided(next_run=ago(2), misfire_policy="skip")
    assert told(decision) == [
        (ago(2), "missed", "misfire_skip"),
        (ago(1), "missed", "misfire_skip"),
        (NOW, "pending", None),
    ]
    assert (decision.started, decision.missed_at) == (1, ago(1))


@pytest.mark.parametrize("misfire", POLICIES)
def test_what_is_older_than_the_grace_is_missed_under_every_misfire_policy(misfire: str) -> None:
    decision = decided(
        next_run=ago(2.5), recurrence=Interval(60, ago(2.5)), misfire_grace_seconds=10, misfire_policy=misfire
    )
    assert told(decision) == [(ago(minutes), "missed", "too_late") for minutes in (2.5, 1.5, 0.5)]
    assert (decision.started, decision.last_run, decision.missed_at) == (0, None, ago(0.5))
    assert decision.next_run == NOW + timedelta(seconds=30)


@pytest.mark.parametrize("misfire", POLICIES)
def test_an_occurrence_exactly_as_old_as_the_grace_still_runs(misfire: str) -> None:
    decision = decided(next_run=ago(1), misfire_grace_seconds=60, recurrence=Once(ago(1)), misfire_policy=misfire)
    assert told(decision) == [(ago(1), "pending", None)]
    assert told(
        decided(next_run=ago(1), misfire_grace_seconds=59, recurrence=Once(ago(1)), misfire_policy=misfire)
    ) == [(ago(1), "missed", "too_late")]


def test_the_grace_divides_a_backlog_into_missed_and_merged() -> None:
    decision = decided(next_run=ago(4), misfire_grace_seconds=150)
    assert [state for _, state, _ in told(decision)] == ["missed", "missed", "coalesced", "coalesced", "pending"]
    assert decision.missed_at == ago(3)


def test_run_all_keeps_the_newest_up_to_the_catch_up_limit() -> None:
    decision = decided(next_run=ago(4), misfire_policy="run_all", max_catchup=2)
    assert told(decision) == [
        (ago(4), "missed", "catch_up_limit"),
        (ago(3), "missed", "catch_up_limit"),
        (ago(2), "missed", "catch_up_limit"),
        (ago(1), "pending", None),
        (NOW, "pending", None),
    ]
    assert (decision.started, decision.missed_at) == (2, ago(2))


def test_a_long_backlog_is_a_row_for_each_of_the_newest_hundred_and_one_that_counts_the_rest() -> None:
    decision = decided(next_run=ago(59 * 60), misfire_grace_seconds=60)
    assert len(decision.runs) == 101
    (range_row,) = [run for run in decision.runs if run.covers_from is not None]
    assert (range_row.state, range_row.reason) == ("missed", "too_late")
    assert (range_row.covers_from, range_row.scheduled_for) == (ago(59 * 60), ago(100))
    assert range_row.occurrences == 59 * 60 - 100 + 1
    assert sum(run.occurrences or 0 for run in decision.runs) == 59 * 60 + 1
    assert decision.started == 1


def test_a_long_backlog_within_the_grace_is_merged_as_a_range() -> None:
    decision = decided(next_run=ago(150), misfire_grace_seconds=86_400)
    (range_row,) = [run for run in decision.runs if run.covers_from is not None]
    assert (range_row.state, range_row.reason, range_row.occurrences) == ("coalesced", "merged", 51)
    assert range_row.blocked_by == only(decision, "pending").id
    assert decision.missed_at is None


def test_run_all_beyond_its_limit_counts_the_rest_as_missed_in_one_row() -> None:
    decision = decided(next_run=ago(300), misfire_policy="run_all", max_catchup=150, misfire_grace_seconds=86_400)
    assert decision.started == 150
    (range_row,) = [run for run in decision.runs if run.state == "missed"]
    assert (range_row.reason, range_row.occurrences, range_row.scheduled_for) == ("catch_up_limit", 151, ago(150))


def test_a_backlog_of_cron_is_walked_in_its_own_zone() -> None:
    decision = decided(
        next_run=datetime(2026, 2, 27, 4, 30, tzinfo=UTC),
        recurrence=Cron("0 10 * * *", "Asia/Kolkata"),
        misfire_grace_seconds=86_400,
    )
    assert [at.day for at, state, _ in told(decision) if state == "missed"] == [27, 28, 1]
    assert only(decision, "pending").scheduled_for == datetime(2026, 3, 2, 4, 30, tzinfo=UTC)
    assert decision.next_run == datetime(2026, 3, 3, 4, 30, tzinfo=UTC)


def test_nothing_after_the_end_runs_and_the_end_itself_does() -> None:
    decision = decided(next_run=ago(3), end_at=ago(1), misfire_policy="run_all")
    assert [at for at, _, _ in told(decision)] == [ago(3), ago(2), ago(1)]
    assert decision.next_run is None


def test_an_end_that_was_moved_before_the_next_occurrence_runs_nothing() -> None:
    decision = decided(next_run=ago(1), end_at=ago(2))
    assert (decision.runs, decision.started, decision.next_run) == ([], 0, None)


def test_a_schedule_whose_end_comes_before_the_following_occurrence_is_over() -> None:
    assert decided(end_at=NOW + timedelta(seconds=59)).next_run is None
    assert decided(end_at=NEXT).next_run == NEXT


def test_a_single_run_has_no_next() -> None:
    decision = decided(next_run=ago(1), recurrence=Once(ago(1)))
    assert (told(decision), decision.next_run) == ([(ago(1), "pending", None)], None)


def test_a_limited_number_of_runs_ends_the_schedule() -> None:
    decision = decided(max_runs=3, run_count=2)
    assert (decision.started, decision.next_run) == (1, None)
    assert decided(max_runs=3, run_count=1).next_run == NEXT


def test_a_backlog_stops_at_the_limited_number_of_runs() -> None:
    decision = decided(next_run=ago(4), misfire_policy="run_all", max_runs=5, run_count=3)
    assert [at for at, state, _ in told(decision) if state == "pending"] == [ago(4), ago(3)]
    assert (decision.started, decision.next_run) == (2, None)


def test_occurrences_that_were_skipped_do_not_use_up_the_number_of_runs_and_all_have_a_row() -> None:
    busy = [ActiveRun(uuid4(), "running")]
    decision = decided(busy, next_run=ago(4), misfire_policy="run_all", max_runs=5, run_count=3, overlap_policy="skip")
    assert [run.state for run in decision.runs] == ["skipped"] * 5
    assert decision.started == 0
    assert decision.last_run is None
    assert decision.next_run == NEXT


def test_an_occurrence_skipped_for_overlap_does_not_count_as_one_of_the_limited_runs() -> None:
    decision = decided([ActiveRun(uuid4(), "running")], max_runs=1, overlap_policy="skip")
    assert (decision.started, decision.next_run) == (0, NEXT)


ACTIVE = ("waiting", "pending", "queued", "running")


@pytest.mark.parametrize("overlap", ["allow", "skip", "queue_one", "queue_all", "cancel_previous"])
def test_a_run_without_another_under_way_starts_under_every_overlap_policy(overlap: str) -> None:
    decision = decided(overlap_policy=overlap)
    assert told(decision) == [(NOW, "pending", None)]
    assert not decision.cancel


@pytest.mark.parametrize("state", ACTIVE)
@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("allow", ("pending", None)),
        ("skip", ("skipped", "overlap")),
        ("queue_all", ("waiting", "overlap")),
        ("cancel_previous", ("waiting", "overlap")),
    ],
)
def test_a_run_meets_one_that_is_under_way(overlap: str, expected: tuple[str, str | None], state: str) -> None:
    other = ActiveRun(uuid4(), state)
    decision = decided([other], overlap_policy=overlap)
    (run,) = decision.runs
    assert (run.state, run.reason) == expected
    assert run.blocked_by == (None if overlap == "allow" else other.id)
    assert decision.started == (0 if overlap == "skip" else 1)
    assert decision.cancel == ([other.id] if overlap == "cancel_previous" else [])


@pytest.mark.parametrize("state", ["pending", "queued", "running"])
def test_one_run_waits_when_one_may(state: str) -> None:
    other = ActiveRun(uuid4(), state)
    (run,) = decided([other], overlap_policy="queue_one").runs
    assert (run.state, run.reason, run.blocked_by) == ("waiting", "overlap", other.id)


def test_a_second_run_does_not_wait_when_one_may() -> None:
    running, waiting = ActiveRun(uuid4(), "running"), ActiveRun(uuid4(), "waiting")
    decision = decided([running, waiting], overlap_policy="queue_one")
    (run,) = decision.runs
    assert (run.state, run.reason, run.blocked_by) == ("skipped", "overlap_queue_full", waiting.id)
    assert decision.started == 0


def test_a_backlog_that_is_run_whole_obeys_the_overlap_policy_among_its_own() -> None:
    states = {
        overlap: [
            state for _, state, _ in told(decided(next_run=ago(3), misfire_policy="run_all", overlap_policy=overlap))
        ]
        for overlap in ("allow", "skip", "queue_one", "queue_all")
    }
    assert states == {
        "allow": ["pending"] * 4,
        "skip": ["pending", "skipped", "skipped", "skipped"],
        "queue_one": ["pending", "waiting", "skipped", "skipped"],
        "queue_all": ["pending", "waiting", "waiting", "waiting"],
    }


def test_cancelling_the_previous_run_starts_the_newest_of_a_backlog_alone() -> None:
    running, waiting = ActiveRun(uuid4(), "running"), ActiveRun(uuid4(), "waiting")
    decision = decided([running, waiting], next_run=ago(2), misfire_policy="run_all", overlap_policy="cancel_previous")
    assert [state for _, state, _ in told(decision)] == ["coalesced", "coalesced", "waiting"]
    assert decision.cancel == [running.id, waiting.id]
    assert decision.started == 1


@pytest.mark.parametrize(
    ("policy", "active", "expected"),
    [
        ("allow", [], ("waiting", "concurrency_key")),
        ("skip", [], ("waiting", "concurrency_key")),
        ("allow", ["running"], ("waiting", "concurrency_key")),
        ("skip", ["running"], ("skipped", "overlap")),
        ("queue_all", ["running"], ("waiting", "overlap")),
    ],
)
def test_a_run_that_shares_a_key_waits_to_be_let_in(
    policy: str, active: list[str], expected: tuple[str, str | None]
) -> None:
    assert admit(policy, [ActiveRun(uuid4(), state) for state in active], keyed=True)[:2] == expected


def test_jitter_delays_the_sending_alone_and_is_the_same_each_time() -> None:
    first, again = (decided(jitter_seconds=300).runs[0] for _ in range(2))
    assert first == again
    assert first.scheduled_for == NOW
    assert first.id == run_id(7, NOW)
    assert first.publish_after == NOW + jitter(run_id(7, NOW), 300)
    assert NOW < first.publish_after <= NOW + timedelta(seconds=300)
    assert decided(jitter_seconds=0).runs[0].publish_after is None


def test_jitter_spreads_over_the_whole_span_and_never_beyond() -> None:
    delays = [jitter(run_id(schedule, NOW), 10).total_seconds() for schedule in range(2000)]
    assert 0 <= min(delays) < 0.1
    assert 9.9 < max(delays) <= 10
    assert 4.5 < sum(delays) / len(delays) < 5.5


def test_jitter_that_has_passed_by_now_delays_nothing() -> None:
    decision = decided(next_run=ago(30), recurrence=Once(ago(30)), jitter_seconds=60)
    assert decision.runs[0].publish_after is None


def test_the_id_of_an_occurrence_is_that_of_its_schedule_and_instant_in_any_zone() -> None:
    assert run_id(7, NOW) == run_id(7, NOW.astimezone(ZoneInfo("Asia/Kolkata")))
    assert len({run_id(7, NOW), run_id(8, NOW), run_id(7, NEXT), run_id(7, NOW, "backfill")}) == 4
