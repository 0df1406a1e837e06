"""The demonstration: start everything, import forty customers, trigger the daily job as an operator does, watch."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console

from devstack.dials import read_dials
from devstack.following import Follower, NotFinal, Plane, Row, waits_for
from devstack.readiness import port_answers
from devstack.report import Promises, as_object, table
from devstack.sample import write_once
from devstack.stack import CELERY, Stack

JOB = "call_expiring_policies"
_TASK_ID = re.compile(r"^[0-9a-f]{8}-[0-9a-f-]{27}$", re.MULTILINE)


class JobFailed(Exception):
    """The daily job did not do its work; the message says what it said."""


@dataclass(slots=True)
class Demo:
    """`keep` leaves the stack running; `as_json` prints one JSON object as the last line of stdout."""

    stack: Stack
    console: Console
    keep: bool
    as_json: bool
    deadline_seconds: float
    timings: dict[str, float] = field(default_factory=dict)

    def run(self) -> int:
        """Exit code: 0 when every call is final and both promises were kept."""
        began = time.monotonic()
        with self._timed("start"):
            self.stack.start()
        plane = Plane(self.stack.ports.api_url, self.stack.environment["BEATLINE_SERVICE_KEY"])
        try:
            with self._timed("import"):
                self._import_sample()
            with self._timed("job"):
                self._trigger()
            with self._timed("calls"):
                rows, late = self._follow(plane)
            if self.as_json:
                for row in rows:
                    row["transcript"] = plane.transcript(row["call_id"]) if row["transcript_state"] == "ready" else []
        finally:
            plane.close()
        self.timings["total"] = time.monotonic() - began
        return self._report(rows, late)

    def _import_sample(self) -> None:
        sample = self.stack.state / "sample.csv"
        write_once(sample, datetime.now(UTC).date())
        self.stack.command("import", sys.executable, "-m", "backend.cli", "import-policies", str(sample))
        self.console.print(f"Imported {sample}", highlight=False)

    def _trigger(self) -> None:
        """Send the daily job by name, as an operator does, and wait for its result."""
        self.console.print(f"Sending the daily job: celery -A backend.celery_app call {JOB}", highlight=False)
        found = _TASK_ID.search(self.stack.command("trigger", *CELERY, "call", JOB))
        if found is None:
            raise JobFailed(f"`celery call {JOB}` gave no task id; see {self.stack.logs}/trigger.log")
        result = self.stack.command("result", *CELERY, "result", found.group()).strip()
        if "planned" not in result:
            raise JobFailed(f"{JOB}: {result}")
        self.console.print(f"  {result}", highlight=False)

    def _follow(self, plane: Plane) -> tuple[list[Row], list[Row]]:
        try:
            return Follower(self.stack, plane, self.console, self.deadline_seconds).follow(), []
        except NotFinal as late:
            return plane.rows(), late.rows

    def _report(self, rows: list[Row], late: list[Row]) -> int:
        promises = Promises.check(read_dials(self.stack.state / "simulator" / "dials.jsonl"), rows)
        self.console.print(table(rows, self.console.width))
        for row in late:
            self._say_late(row)
        if late and not port_answers(self.stack.ports.simulator):
            url = self.stack.ports.livekit_url
            self.console.print(f"LiveKit (the simulator) is unreachable at {url}", style="bold red", highlight=False)
        self.console.print(promises.line(), style="green" if promises.kept else "bold red", highlight=False)
        self._say_where()
        code = 0 if promises.kept and not late else 1
        if self.as_json:
            more = {"ok": code == 0, "not_final": [row["policy_number"] for row in late], **self._addresses()}
            print(json.dumps(as_object(rows, promises, self.timings, more)))
        return code

    def _say_late(self, row: Row) -> None:
        waits = waits_for(row, datetime.now(UTC)) or "nothing"
        self.console.print(
            f"Not final: {row['customer_name']}, {row['policy_number']}: {row['status']}, waits for {waits}",
            style="red",
        )

    def _say_where(self) -> None:
        for name, value in self._addresses().items():
            self.console.print(f"{name.replace('_', ' ').capitalize():<10} {value}", highlight=False)
        self.console.print(f"{'Took':<10} {self.timings['total']:.1f} s", highlight=False)

    def _addresses(self) -> dict[str, str]:
        url = self.stack.ports.api_url
        return {"docs": f"{url}/docs", "pages": f"{url}/ops", "logs": str(self.stack.logs)}

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.timings[name] = time.monotonic() - began
