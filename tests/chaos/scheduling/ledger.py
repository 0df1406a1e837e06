"""What must be true once everything is final: every expected occurrence is accounted for once, and was executed as its row says.

The expected instants are computed here, by other means than the engine's.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

Row = dict[str, Any]

# The environment variable that tells the effects where to write.
VARIABLE = "EFFECTS"

EXECUTED = {"succeeded", "failed", "dead", "cancelled"}
ACCOUNTED = {"skipped", "missed", "coalesced"}


@dataclass(frozen=True, slots=True)
class Planned:
    """A schedule of the test: `every` seconds from `first`, or at each full minute after `first`.

    `serial`: no two of its runs may be under way at once.
    """

    id: int
    name: str
    first: datetime
    every: float | None
    serial: bool

    def instants(self, until: datetime) -> list[datetime]:
        """The instants from `first` up to `until`, both included."""
        if self.every is None:
            minute = timedelta(minutes=1)
            start = self.first.replace(second=0, microsecond=0)
            start += minute * (start < self.first)
            return [start + n * minute for n in range(max(0, int((until - start) / minute) + 1)) if start <= until]
        count = int((until - self.first).total_seconds() / self.every) + 1 if until >= self.first else 0
        return [self.first + timedelta(seconds=n * self.every) for n in range(count)]


@dataclass(frozen=True, slots=True)
class Effect:
    """One execution of a run, as its handler saw it."""

    run: str
    attempt: int
    pid: int
    started: float
    ended: float | None
    how: str | None


@dataclass(slots=True)
class Ledger:
    """Rows of `job_runs` and executions; `until` is the last instant of every schedule."""

    planned: Sequence[Planned]
    until: datetime
    runs: list[Row]
    effects: list[Effect]
    events: list[Row] = field(default_factory=list)

    def of(self, planned: Planned) -> list[Row]:
        """Rows of a schedule's occurrences, oldest first."""
        return [row for row in self.runs if row["schedule_id"] == planned.id and row["trigger"] == "schedule"]

    def count(self, planned: Planned) -> Counter[str]:
        """Occurrences of a schedule by state."""
        counts: Counter[str] = Counter()
        for row in self.of(planned):
            counts[row["state"]] += row["occurrences"]
        return counts

    def executions(self, run: object) -> list[Effect]:
        return sorted((one for one in self.effects if one.run == str(run)), key=lambda one: one.started)

    def check(self, *, disturbed: bool = False, ended: set[str] | None = None, clocks_agree: bool = True) -> None:
        """Fail unless everything adds up.

        `disturbed`: workers were lost or fenced in the middle, so that a run may have begun as often as it was claimed.
        `ended`: how executed runs may have ended.
        """
        for planned in self.planned:
            self._check_occurrences(planned)
        self._check_states(ended or {"succeeded"})
        self._check_effects(disturbed=disturbed)
        for planned in self.planned:
            if planned.serial and clocks_agree:
                self._check_serial(planned)

    def _check_occurrences(self, planned: Planned) -> None:
        expected = planned.instants(self.until)
        told = Counter(instant for row in self.of(planned) for instant in _covered(row, expected))
        assert [at for at, times in told.items() if times > 1] == [], f"{planned.name}: accounted for twice"
        lost, invented = sorted(set(expected) - set(told)), sorted(set(told) - set(expected))
        assert (lost, invented) == ([], []), f"{planned.name}, until {self.until}: lost {lost}, invented {invented}"
        assert sum(self.count(planned).values()) == len(expected)

    def _check_states(self, ended: set[str]) -> None:
        odd = [row for row in self.runs if row["state"] not in ended | ACCOUNTED]
        assert odd == [], f"{len(odd)} runs ended otherwise, with these events: {self._events_of(odd)}"
        assert [_story(row) for row in self.runs if row["finished_at"] is None] == []
        assert [_story(row) for row in self.runs if row["lease_until"] is not None] == []
        assert [_story(row) for row in self.runs if row["state"] in ACCOUNTED and row["reason"] is None] == []

    def _events_of(self, rows: list[Row]) -> list[tuple[str, list[str]]]:
        return [
            (
                _story(row),
                [f"{event['at']:%M:%S.%f} {event['kind']}" for event in self.events if event["run_id"] == row["id"]],
            )
            for row in rows[:5]
        ]

    def _check_effects(self, *, disturbed: bool) -> None:
        by_run: dict[str, list[Effect]] = defaultdict(list)
        for effect in self.effects:
            by_run[effect.run].append(effect)
        known = {str(row["id"]) for row in self.runs}
        assert set(by_run) - known == set(), "executed without a row"
        for row in self.runs:
            if row["task"] == "check_job_schedules":
                continue
            made = by_run[str(row["id"])]
            attempts = [effect.attempt for effect in made]
            assert len(set(attempts)) == len(attempts), f"a claim was executed twice: {_story(row)}"
            assert max(attempts, default=0) <= row["attempt"] == row["epoch"], _story(row)
            if row["state"] == "succeeded":
                last = next((effect for effect in made if effect.attempt == row["attempt"]), None)
                assert last is not None, f"succeeded without an execution: {_story(row)}"
                assert last.how == "finished", f"recorded as done, was not: {_story(row)}"
                if not disturbed:
                    assert attempts == [1], f"executed {len(made)} times: {_story(row)}"
            elif row["state"] in ACCOUNTED:
                assert (made, row["attempt"]) == ([], 0), f"executed although {row['state']}: {_story(row)}"

    def _check_serial(self, planned: Planned) -> None:
        """Executions of one schedule that ended must not overlap."""
        ids = {str(row["id"]) for row in self.of(planned)}
        spans = sorted(
            (effect.started, effect.ended) for effect in self.effects if effect.run in ids and effect.ended is not None
        )
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert start >= end, f"{planned.name}: two at once"


def _covered(row: Row, expected: Sequence[datetime]) -> list[datetime]:
    if row["covers_from"] is None:
        assert row["occurrences"] == 1, _story(row)
        return [row["scheduled_for"]]
    covered = [at for at in expected if row["covers_from"] <= at <= row["scheduled_for"]]
    assert row["occurrences"] == len(covered), _story(row)
    return covered


def read_effects(path: Path) -> list[Effect]:
    """Executions from the lines that handlers wrote; one that never ended was killed, or is still going on."""
    started: dict[tuple[str, int], Effect] = {}
    told: list[Effect] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        entry = json.loads(line)
        key = entry["run"], entry["attempt"]
        if entry["what"] == "started":
            if key in started:
                told.append(started[key])
            started[key] = Effect(*key, entry["pid"], entry["at"], None, None)
        else:
            begun = started[key]
            started[key] = Effect(*key, begun.pid, begun.started, entry["at"], entry["what"])
    return [*told, *started.values()]


def _story(row: Row) -> str:
    told = ("name", "scheduled_for", "state", "reason", "attempt", "epoch", "publish_count", "lease_owner", "error")
    return ", ".join(f"{name} {row[name]}" for name in told)
