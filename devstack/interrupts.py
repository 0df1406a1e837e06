"""Ctrl-C and SIGTERM: the first unwinds the program, though never between a process's start and its entry in the books.

A second one makes the stop quick.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody asked the program to stop, by this signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@dataclass(slots=True)
class Interrupts:
    """The signals of this process; without `install` they keep what they do by default."""

    hurry: bool = False
    _first: int | None = None
    _raised: bool = False
    _holds: int = 0

    def install(self) -> None:
        for signum in SIGNALS:
            signal.signal(signum, self._take)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """What runs inside is not torn apart: a signal waits until the end."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        self._raise_first()

    def _take(self, signum: int, _frame: FrameType | None) -> None:
        if self._first is not None:
            self.hurry = True
            return
        self._first = signum
        self._raise_first()

    def _raise_first(self) -> None:
        if self._first is not None and not self._raised and self._holds == 0:
            self._raised = True
            raise Interrupted(self._first)


interrupts = Interrupts()
