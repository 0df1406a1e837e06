"""A worker's hold on a recording: the lease, progress, checkpoints and the wish to cancel, all in one short look a second."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from backend.core.db import Database, is_outage
from backend.recordings.models import Recording, Stage
from backend.recordings.pipeline.pace import Pace
from backend.recordings.repository import CheckpointRepository, RecordingRepository
from backend.recordings.speech.base import Cancelled

log = logging.getLogger(__name__)

T = TypeVar("T")
# As backend.core.runtime.Runtime.progress.
Report = Callable[[int, int], Awaitable[None]]

_LOOK_SECONDS = 1.0


class LeaseLost(Exception):
    """Another worker has taken over, or the recording is gone; what was done here counts for nothing."""


class OutOfTime(Exception):
    """This attempt has had its time; what is done is kept."""


def _rounded(seconds: float) -> int:
    """No more exact than anybody can tell: each change is written."""
    step = 1 if seconds < 60 else 10 if seconds < 600 else 60
    return round(seconds / step) * step


@dataclass
class Hold:
    """One claimed recording. The pipeline's thread calls `observe`, `load` and `save`, which never wait for anything."""

    db: Database
    claimed: Recording
    lease: timedelta
    seconds: float
    report: Report | None = None
    progressed: bool = False
    _pace: Pace = field(default_factory=Pace)
    _stage: Stage = Stage.FETCH
    _fault: Exception | None = None
    _lost: bool = False
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _saved: dict[tuple[Stage, int], Any] = field(default_factory=dict)
    _unwritten: dict[tuple[Stage, int], Any] = field(default_factory=dict)
    _renewed: float = field(default_factory=time.monotonic)
    _told: dict[str, Any] = field(default_factory=dict)

    def observe(self, stage: Stage, share: float) -> None:
        """Raises what stops the work."""
        self._pace.seen(stage, share)
        self._stage = stage
        if self._fault is not None:
            raise self._fault

    def load(self, stage: Stage, part: int) -> Any | None:
        return self._saved.get((stage, part))

    def save(self, stage: Stage, part: int, value: Any) -> None:
        if self._saved.get((stage, part)) == value:
            # Decoded once more, for one: no progress, which would let a file kill workers for ever.
            return
        self._saved[stage, part] = self._unwritten[stage, part] = value

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep the lease for as long as the block runs; what is done is written at its end, however it ends."""
        async with self.db.transaction() as session:
            self._saved = await CheckpointRepository(session).all(self.claimed.id)
        began = time.monotonic()
        keeper = asyncio.create_task(self._keep(began + self.seconds))
        try:
            yield
        finally:
            # A thread that is left behind by a task that was cut off stops at its next step.
            self._stop(LeaseLost("the attempt has ended"))
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
            await self._written()

    async def until_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's answer; when the work is to stop, it is cancelled and the reason raised."""
        task, stopped = asyncio.ensure_future(work), asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and self._fault is not None:
                raise self._fault
            return await task
        finally:
            for each in (task, stopped):
                each.cancel()
                with suppress(asyncio.CancelledError):
                    await each

    def _stop(self, fault: Exception) -> None:
        if self._fault is None:
            self._fault = fault
            self._stopped.set()

    def settled(self) -> None:
        """The recording has its last state: there is nothing to write or to keep any more."""
        self._unwritten.clear()
        self._lost = True

    async def _keep(self, end: float) -> None:
        pause = min(_LOOK_SECONDS, self.lease.total_seconds() / 4)
        while self._fault is None:
            await asyncio.sleep(pause)
            if time.monotonic() > end:
                self._stop(OutOfTime(f"not done within {self.seconds:.0f} s"))
            await self._look_around()
            if self.report is not None:
                await self.report(self._percent, 100)

    async def _look_around(self) -> None:
        try:
            await self._look()
        except Exception as fault:
            if not is_outage(fault):
                self._stop(fault)
                raise
            # The work goes on: the database may be back before the lease ends.
            log.warning("recording %s: the database is away: %s", self.claimed.id, fault)

    async def _look(self) -> None:
        """Write what is new, and see whether the work is still wanted."""
        if self._lost:
            return
        unwritten, news = dict(self._unwritten), self._news()
        due = bool(unwritten) or time.monotonic() - self._renewed > self.lease.total_seconds() / 4
        values = news | ({"tries": 0} if unwritten else {})
        async with self.db.transaction() as session:
            seen = await RecordingRepository(session).look(self.claimed, self.lease if due else None, **values)
            if seen is not None and unwritten:
                await CheckpointRepository(session).write(self.claimed.id, unwritten)
        if seen is None:
            self._lose()
            return
        self._told |= news
        if due:
            self._renewed = time.monotonic()
        self._forget(unwritten)
        if seen.cancel_requested:
            self._stop(Cancelled("somebody asked for it"))

    def _lose(self) -> None:
        if not self._lost:
            log.warning("recording %s: the lease was lost; what is done here will not be recorded", self.claimed.id)
        self._lost = True
        self._stop(LeaseLost("somebody else has the recording, or it is gone"))

    @property
    def _percent(self) -> int:
        """Does not go back behind what a worker had done that was lost: most of it is there."""
        return max(self._pace.percent, self.claimed.percent or 0)

    def _news(self) -> dict[str, Any]:
        left = self._pace.seconds_left
        now = {
            "stage": self._stage.value,
            "percent": self._percent,
            "seconds_left": None if left is None else _rounded(left),
        }
        return {name: value for name, value in now.items() if self._told.get(name) != value}

    def _forget(self, written: dict[tuple[Stage, int], Any]) -> None:
        if written:
            self.progressed = True
        for key, value in written.items():
            if self._unwritten.get(key) is value:
                del self._unwritten[key]

    async def _written(self) -> None:
        if self._unwritten and not self._lost:
            await self._look_around()
