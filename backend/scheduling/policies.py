"""What becomes of a schedule's due occurrences: run, wait, or a row that says why not. Pure: no clock, no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from backend.scheduling.occurrences import NewRun, run_id
from backend.scheduling.recurrence import Due, Recurrence, due, next_after

# Occurrences of a backlog that get a row each; what is older shares one row that counts them.
_LISTED = 100


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run of the schedule that has not ended."""

    id: UUID
    state: str


@dataclass(slots=True)
class Decision:
    """The rows to insert for one schedule, the runs to cancel for them, and the schedule's next state."""

    schedule_id: int
    next_run: datetime | None = None
    last_run: datetime | None = None
    runs: list[NewRun] = field(default_factory=list)
    started: int = 0
    cancel: list[UUID] = field(default_factory=list)
    missed_at: datetime | None = None
    error: str | None = None


def jitter(run: UUID, seconds: int) -> timedelta:
    """From 0 to `seconds`, the same for the same occurrence on every machine, so that a restart rolls no new dice."""
    return timedelta(milliseconds=run.int % (seconds * 1000 + 1))


def decide(
    row: Mapping[str, Any],
    recurrence: Recurrence,
    now: datetime,
    active: Sequence[ActiveRun],
    *,
    tolerance: float = 0.0,
) -> Decision:
    """Account for every occurrence of a schedule from its `next_run` to `now`.

    1. Older than the misfire grace: missed. 2. The rest by the misfire policy: `coalesce` runs the newest, `run_all` the newest
    `max_catchup`, `skip` the newest alone. 3. What runs, by the overlap policy and the schedule's active runs.
    """
    decision = Decision(row["id"])
    last = now if row["end_at"] is None else min(now, row["end_at"])
    limit = max(_LISTED, row["max_catchup"]) if row["misfire_policy"] == "run_all" else _LISTED
    second = next_after(recurrence, row["next_run"])
    if row["next_run"] > last:
        # An end that was moved back.
        found = Due((), None, None, 0)
    elif second is None or second > last:
        # Nearly always: one occurrence is due, and what follows it is known by now.
        found = Due((row["next_run"],), None, None, 0)
    else:
        found = due(recurrence, row["next_run"], last, limit)
    to_run = _misfires(decision, row, found, now - timedelta(seconds=row["misfire_grace_seconds"] + tolerance))
    if row["overlap_policy"] == "cancel_previous":
        newest = to_run[-1:]
        decision.runs += [_merged(row, at, newest[0]) for at in to_run[:-1]]
        to_run = newest
    _overlaps(decision, row, to_run, now, list(active))
    decision.next_run = _next(row, recurrence, now, decision.started)
    return decision


def _misfires(decision: Decision, row: Mapping[str, Any], found: Due, oldest: datetime) -> list[datetime]:
    """The instants that are to run; rows for the others."""
    policy = row["misfire_policy"]
    late = [at for at in found.instants if at < oldest]
    in_time = [at for at in found.instants if at >= oldest]
    keep = row["max_catchup"] if policy == "run_all" else 1
    to_run, left = in_time[-keep:], in_time[:-keep]
    for at in late:
        _miss(decision, row, at, "too_late")
    for at in left:
        if policy == "coalesce":
            decision.runs.append(_merged(row, at, to_run[-1]))
        else:
            _miss(decision, row, at, "catch_up_limit" if policy == "run_all" else "misfire_skip")
    if found.older_first is not None and found.older_last is not None:
        _older(decision, row, found, merged_into=to_run[-1] if policy == "coalesce" and to_run else None, oldest=oldest)
    return to_run


def _older(
    decision: Decision, row: Mapping[str, Any], found: Due, *, merged_into: datetime | None, oldest: datetime
) -> None:
    """One row for all that is older than what gets a row each."""
    first, last = found.older_first, found.older_last
    if first is None or last is None:
        return
    if merged_into is not None and last >= oldest:
        decision.runs.append(_merged(row, last, merged_into, covers_from=first, occurrences=found.older_count))
        return
    reason = "too_late" if last < oldest else "catch_up_limit"
    _miss(decision, row, last, reason, covers_from=first, occurrences=found.older_count)


def _miss(
    decision: Decision,
    row: Mapping[str, Any],
    at: datetime,
    reason: str,
    *,
    covers_from: datetime | None = None,
    occurrences: int | None = 1,
) -> None:
    run = NewRun(
        run_id(row["id"], at), row["id"], at, "missed", reason, covers_from=covers_from, occurrences=occurrences
    )
    decision.runs.append(run)
    decision.missed_at = at if decision.missed_at is None else max(at, decision.missed_at)


def _merged(
    row: Mapping[str, Any],
    at: datetime,
    into: datetime,
    *,
    covers_from: datetime | None = None,
    occurrences: int | None = 1,
) -> NewRun:
    return NewRun(
        run_id(row["id"], at),
        row["id"],
        at,
        "coalesced",
        "merged",
        blocked_by=run_id(row["id"], into),
        covers_from=covers_from,
        occurrences=occurrences,
    )


def _overlaps(
    decision: Decision, row: Mapping[str, Any], to_run: Sequence[datetime], now: datetime, active: list[ActiveRun]
) -> None:
    left = None if row["max_runs"] is None else row["max_runs"] - row["run_count"]
    for at in to_run:
        if left is not None and decision.started >= left:
            # The schedule is over: what follows is not expected.
            return
        run = run_id(row["id"], at)
        publish_after = at + jitter(run, row["jitter_seconds"]) if row["jitter_seconds"] else None
        state, reason, blocker = admit(row["overlap_policy"], active, keyed=row["concurrency_key"] is not None)
        if row["overlap_policy"] == "cancel_previous":
            decision.cancel += [one.id for one in active]
        if state != "skipped":
            active.append(ActiveRun(run, state))
            decision.started += 1
            decision.last_run = at
        decision.runs.append(
            NewRun(
                run,
                row["id"],
                at,
                state,
                reason,
                blocked_by=blocker,
                publish_after=publish_after if publish_after is not None and publish_after > now else None,
            )
        )


def admit(policy: str, active: Sequence[ActiveRun], *, keyed: bool) -> tuple[str, str | None, UUID | None]:
    """The state of a new run next to the `active` ones of its schedule, the reason and the run it is about.

    A run with a concurrency key waits until the engine lets it in, since other schedules share the key.
    """
    if not active or policy == "allow":
        return ("waiting", "concurrency_key", None) if keyed else ("pending", None, None)
    if policy == "skip":
        return "skipped", "overlap", active[0].id
    waiting = [run for run in active if run.state == "waiting"]
    if policy == "queue_one" and waiting:
        return "skipped", "overlap_queue_full", waiting[0].id
    return "waiting", "overlap", active[-1].id


def _next(row: Mapping[str, Any], recurrence: Recurrence, now: datetime, started: int) -> datetime | None:
    if row["max_runs"] is not None and row["run_count"] + started >= row["max_runs"]:
        return None
    following = next_after(recurrence, now)
    if following is None or (row["end_at"] is not None and following > row["end_at"]):
        return None
    return following
