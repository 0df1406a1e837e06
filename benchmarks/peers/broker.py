"""What a scheduler has published, seen at the broker; and what processes have used."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil
from redis import Redis

from devstack.processes import family

POLL_SECONDS = 0.005
BATCH = 1_000
_MIB = 1 << 20


@dataclass(slots=True)
class Reader:
    """Takes every message off one list and notes when it was there, to within `POLL_SECONDS`."""

    port: int
    queue: str
    messages: list[tuple[float, bytes]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_fault: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _read(self) -> None:
        with Redis(port=self.port) as broker:
            while not self._stop.is_set():
                found = broker.rpop(self.queue, BATCH)
                at = time.time()
                if isinstance(found, list):
                    self.messages.extend((at, message) for message in found)
                    if len(found) == BATCH:
                        continue
                time.sleep(POLL_SECONDS)

    def forget(self) -> None:
        self.messages.clear()

    def count(self) -> int:
        return len(self.messages)

    def wait(self, count: int, until: float, check_seconds: float = POLL_SECONDS) -> bool:
        """Whether `count` messages came before `until`, epoch seconds."""
        while len(self.messages) < count:
            if time.time() > until:
                return False
            time.sleep(check_seconds)
        return True


def cpu_seconds(pids: Iterable[int]) -> float:
    """Of these processes and their families; children that have ended are counted by their parent."""
    total = 0.0
    for pid in pids:
        for one in family(pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(one.cpu_times()[:4])
    return total


def memory_mib(pid: int) -> float:
    total = 0.0
    for one in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total / _MIB


def peak_memory_mib(pid: int) -> float:
    """The most that the process has held since its start; what it holds now where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    return memory_mib(pid)
