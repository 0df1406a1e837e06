"""What benchmarks/dispatch.py and the programs of its peers agree on: the entries, the queue, the variables.

Imported on both sides, by the benchmark and in the peers' environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from celery import Celery

QUEUE = TASK = "bench"
# Every entry runs once a day: a fixed interval, which costs the peers no cron arithmetic.
PERIOD = timedelta(days=1)
# Entries at rest are due hours from now, a second apart.
REST_SECONDS = 6 * 3600
REST_SPREAD = 6 * 3600


def entry_name(index: int) -> str:
    return f"entry-{index}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Which entries to write: all of `stored` when `fresh`, else the first `count` over those that are there.

    Entry i is due at `instants[i]`, epoch seconds; those past the end are at rest.
    """

    stored: int
    count: int
    fresh: bool
    instants: list[float] = field(default_factory=list)

    def entries(self, count: int | None = None) -> Iterator[tuple[int, datetime]]:
        """Each entry with the instant at which it is due next."""
        rest = time.time() + REST_SECONDS
        for index in range(self.count if count is None else count):
            armed = index < len(self.instants)
            due = self.instants[index] if armed else rest + index % REST_SPREAD
            yield index, datetime.fromtimestamp(due, UTC)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Plan:
        return cls(**json.loads(path.read_text()))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer's program finds its servers; `loop_seconds` is the longest pause of a beat that looks for changes."""

    broker: str
    store: str
    database: str
    state: str
    stored: int
    loop_seconds: float

    def variables(self) -> dict[str, str]:
        return {f"BENCH_{name.upper()}": str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_environment(cls) -> Place:
        texts = {name: os.environ[f"BENCH_{name.upper()}"] for name in ("broker", "store", "database", "state")}
        return cls(
            **texts, stored=int(os.environ["BENCH_STORED"]), loop_seconds=float(os.environ["BENCH_LOOP_SECONDS"])
        )


def create_app(place: Place) -> Celery:
    """The application of a peer: nothing but the broker and its queue."""
    app = Celery("bench", broker=place.broker)
    app.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,
        # Without results to clean up there is no entry but ours.
        result_expires=None,
        enable_utc=True,
        timezone="UTC",
        broker_connection_retry_on_startup=True,
    )
    return app


def write_entries(write: Callable[[Plan], None]) -> None:
    """The program of a peer that writes its entries: its argument is the file of the plan."""
    write(Plan.read(Path(sys.argv[1])))
