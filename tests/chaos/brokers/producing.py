"""Those who send, in threads of the test's process: each message until the broker has confirmed it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from celery import Celery
from kombu.exceptions import OperationalError

_PAUSE_SECONDS = 0.2


@dataclass(slots=True)
class Producers:
    """Send a task once per number; `refused` counts the tries that failed, which Celery's own policy had repeated before."""

    app: Celery
    task: str
    sent: set[int] = field(default_factory=set)
    attempted: set[int] = field(default_factory=set)
    refused: int = 0
    faults: list[BaseException] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self, numbers: Sequence[int], *, threads: int = 2) -> None:
        """Send these by so many threads."""
        for part in range(threads):
            one = threading.Thread(target=self._send_all, args=(numbers[part::threads],), name=f"producer-{part}")
            self._threads.append(one)
            one.start()

    def _send_all(self, numbers: Sequence[int]) -> None:
        try:
            for number in numbers:
                self._send(number)
        except BaseException as fault:  # noqa: BLE001 - told by `join`
            self.faults.append(fault)

    def _send(self, number: int) -> None:
        with self._lock:
            self.attempted.add(number)
        while not self._stopped.is_set():
            try:
                # The same id each time: a confirmation may have been lost, and not the message.
                self.app.send_task(
                    self.task,
                    kwargs={"number": number},
                    queue="default",
                    ignore_result=True,
                    task_id=f"effect-{number}",
                )
            except (OperationalError, OSError):
                with self._lock:
                    self.refused += 1
                time.sleep(_PAUSE_SECONDS)
            else:
                with self._lock:
                    self.sent.add(number)
                return

    @property
    def busy(self) -> bool:
        return any(one.is_alive() for one in self._threads)

    def join(self, seconds: float) -> None:
        """Until everything is sent; raise what a thread has died of."""
        deadline = time.monotonic() + seconds
        for one in self._threads:
            one.join(max(0.0, deadline - time.monotonic()))
        assert not self.busy, f"{len(self.attempted) - len(self.sent)} sends are not over after {seconds:g} s"
        if self.faults:
            raise self.faults[0]

    def stop(self) -> None:
        """Give up what is not sent."""
        self._stopped.set()
        for one in self._threads:
            one.join()
