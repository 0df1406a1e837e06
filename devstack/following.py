"""Reading the plan over HTTP, as a page or a script of an operator would, until every call is final."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from devstack.readiness import port_answers
from devstack.stack import Stack

POLL_SECONDS = 0.5
OUTCOME_SECONDS = 10.0
FINAL = {"completed", "exhausted", "skipped"}
TRANSCRIBED = {"ready", "failed"}

Row = dict[str, Any]


class NotFinal(Exception):
    """The deadline has passed; `rows` are not final."""

    def __init__(self, rows: list[Row]) -> None:
        super().__init__(f"{len(rows)} calls are not final")
        self.rows = rows


class Plane:
    """The API, with the service key."""

    def __init__(self, url: str, key: str) -> None:
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=10.0, trust_env=False
        )

    def get(self, path: str, **query: str | int) -> Any:
        answer = self._client.get(path, params=query)
        answer.raise_for_status()
        return answer.json()

    def rows(self) -> list[Row]:
        """Every scheduled call with its latest attempt."""
        rows: list[Row] = []
        query: dict[str, str | int] = {"limit": 200}
        while True:
            page = self.get("/api/scheduler/scheduled-calls", **query)
            rows += page["items"]
            if page["next_cursor"] is None:
                return rows
            query["cursor"] = page["next_cursor"]

    def transcript(self, call_id: str) -> list[Row]:
        """Who said what in a call, in order; empty when it has no transcript."""
        found = self.get(f"/api/calls/{call_id}")["transcript"]
        return [{name: said[name] for name in ("speaker", "text")} for said in found["segments"]] if found else []

    def calls_by_status(self) -> dict[str, int]:
        counts: dict[str, int] = self.get("/api/scheduler/summary")["calls"]
        return counts

    def close(self) -> None:
        self._client.close()


def waits_for(row: Row, horizon: datetime) -> str | None:
    """What a row still waits for; None when it is final, or promised to a customer for after `horizon`."""
    if row["status"] not in FINAL:
        promised = row["reason"] == "callback" and datetime.fromisoformat(row["next_attempt_at"]) > horizon
        if row["status"] == "pending" and promised:
            return None
        return "another attempt" if row["attempts"] and row["status"] == "pending" else "the call"
    # A call that ended early may have a recording all the same; only a reached customer's is waited for.
    if row["status"] != "completed" or row["recording_state"] in {None, "none", "failed"}:
        return None
    return None if row["transcript_state"] in TRANSCRIBED else "the transcript"


def lacks_outcome(row: Row) -> bool:
    return row["transcript_state"] == "ready" and row["outcome"] is None


@dataclass(slots=True)
class Follower:
    """Shows a progress bar while the calls go on."""

    stack: Stack
    plane: Plane
    console: Console
    deadline_seconds: float

    def follow(self) -> list[Row]:
        """Wait until every call is final and transcribed; NotFinal at the deadline, ProcessError for a lost process."""
        deadline = time.monotonic() + self.deadline_seconds
        horizon = datetime.now(UTC) + timedelta(seconds=self.deadline_seconds)
        rows: list[Row] = []
        waiting: list[Row] = []
        with self._bar() as bar:
            task = bar.add_task("Calls", total=None)
            while time.monotonic() < deadline:
                self.stack.check()
                try:
                    rows = self.plane.rows()
                except httpx.HTTPError as fault:
                    bar.update(task, description=f"[red]The API does not answer: {fault}")
                else:
                    waiting = [row for row in rows if waits_for(row, horizon)]
                    done = len(rows) - len(waiting)
                    bar.update(task, total=len(rows) or None, completed=done, description=self._news(rows))
                    if rows and not waiting:
                        return self._with_outcomes(rows)
                time.sleep(POLL_SECONDS)
        raise NotFinal(waiting)

    def _with_outcomes(self, rows: list[Row]) -> list[Row]:
        """Outcomes are read from transcripts a moment after those are there; a transcript may also have none."""
        deadline = time.monotonic() + OUTCOME_SECONDS
        while any(lacks_outcome(row) for row in rows) and time.monotonic() < deadline:
            self.stack.check()
            time.sleep(POLL_SECONDS)
            rows = self.plane.rows()
        return rows

    def _news(self, rows: list[Row]) -> str:
        if not port_answers(self.stack.ports.simulator):
            return f"[red]LiveKit (the simulator) does not answer at {self.stack.ports.livekit_url}"
        calls = Counter(row["call_status"] for row in rows)
        live = calls["dialing"] + calls["queued"] + calls["ringing"]
        transcribing = sum(row["transcript_state"] in {"registered", "fetched", "transcribing"} for row in rows)
        return f"Calls: {live} dialing, {calls['answered']} talking, {transcribing} to transcribe"

    def _bar(self) -> Progress:
        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
        )
