"""Local processes: start, wait until ready, stop in order. None outlives its supervisor, unless it was released."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from devstack import watcher
from devstack.interrupts import interrupts

POLL_SECONDS = 0.05
TAIL_LINES = 15
# How long children may outlive the leader that should have ended them.
ORPHAN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system's user that a process runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Service:
    """A process to run. `stage` orders the stop: the highest first, everything of one stage at once."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    ready: Callable[[Running], bool]
    cwd: Path = Path("/")
    stage: int = 0
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 8.0
    ready_seconds: float = 60.0
    account: Account | None = None


@dataclass(slots=True)
class Running:
    """A started process and where its output goes."""

    service: Service
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid


class ProcessError(Exception):
    """A process ended, or did not get ready in time: says which, its last log lines and where the log is."""

    def __init__(self, name: str, what: str, log: Path) -> None:
        super().__init__(f"{name} {what}")
        self.name = name
        self.log = log
        self.tail = last_lines(log)


def last_lines(log: Path, count: int = TAIL_LINES) -> list[str]:
    """The end of a log; empty when there is none."""
    if not log.exists():
        return []
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 64_000))
        return stream.read().decode(errors="replace").splitlines()[-count:]


def family(pid: int) -> list[psutil.Process]:
    """The process `pid`, its descendants, and whatever else runs in the session that it leads."""
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        leader = psutil.Process(pid)
        found = {member.pid: member for member in [leader, *leader.children(recursive=True)]}
    for other in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if other not in found and os.getsid(other) == pid:
                found[other] = psutil.Process(other)
    return list(found.values())


def lives(process: psutil.Process) -> bool:
    """Whether it still runs; an entry that only waits to be reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass(slots=True)
class _Ending:
    """One process on its way out."""

    pid: int
    members: list[psutil.Process]
    deadline: float

    @classmethod
    def begin(cls, pid: int, stop_signal: int, grace_seconds: float) -> _Ending:
        """Ask the leader alone: it has to end its own children in its own way."""
        members = family(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, stop_signal)
            for member in members:
                # A stopped process acts on nothing but SIGKILL and SIGCONT.
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.resume()
        return cls(pid, members, time.monotonic() + grace_seconds)

    def finish(self) -> None:
        """Wait for the leader until the deadline, a moment longer for its family, then kill all that is left."""
        self._wait([member for member in self.members if member.pid == self.pid], self.deadline)
        self._wait(self.members, time.monotonic() + ORPHAN_SECONDS)
        for member in [*self.members, *family(self.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        while any(lives(member) for member in self.members):
            time.sleep(POLL_SECONDS / 10)

    @staticmethod
    def _wait(awaited: list[psutil.Process], deadline: float) -> None:
        while any(lives(member) for member in awaited) and time.monotonic() < deadline and not interrupts.hurry:
            time.sleep(POLL_SECONDS)


@dataclass(slots=True)
class Supervisor:
    """Starts services, keeps their pid files in `run` and their output in `logs`, and stops them.

    A watcher process ends the services when the supervisor dies without stopping them.
    """

    logs: Path
    run: Path
    running: dict[str, Running] = field(default_factory=dict)
    _watcher: subprocess.Popen[str] | None = None
    _orders: IO[str] | None = None

    def start(self, service: Service) -> Running:
        """Start in a session of its own, so that a Ctrl-C at the terminal reaches the supervisor alone."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{service.name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with log.open("wb") as output, interrupts.hold():
            started = Running(service, _spawn(service, output), log)
            self._order(f"+ {started.pid} {int(service.stop_signal)}")
            self.running[service.name] = started
            self._record(started)
        return started

    def run_once(
        self, name: str, argv: Iterable[str], env: Mapping[str, str], *, cwd: Path, seconds: float = 120
    ) -> str:
        """Run a command to its end and return its output; raise ProcessError when it fails or takes too long."""
        started = self.start(Service(name, tuple(argv), env, lambda _running: True, cwd))
        try:
            code = started.popen.wait(seconds)
        except subprocess.TimeoutExpired as fault:
            raise ProcessError(name, f"did not end within {seconds:g} s", started.log) from fault
        finally:
            self.stop(name)
        if code != 0:
            raise ProcessError(name, f"failed ({ending(code)})", started.log)
        return started.log.read_text()

    def wait_ready(self, *names: str) -> None:
        """Wait until each of these is ready; raise ProcessError for one that ends or takes too long."""
        for name in names:
            awaited = self.running[name]
            deadline = time.monotonic() + awaited.service.ready_seconds
            while not awaited.service.ready(awaited):
                self.check()
                if time.monotonic() > deadline:
                    raise ProcessError(name, f"was not ready after {awaited.service.ready_seconds:g} s", awaited.log)
                time.sleep(POLL_SECONDS)
            self.check()

    def check(self) -> None:
        """Raise ProcessError for the first process that has ended by itself."""
        for name, started in self.running.items():
            code = started.popen.poll()
            if code is not None:
                raise ProcessError(name, f"ended by itself ({ending(code)})", started.log)

    def stop(self, *names: str) -> None:
        """Stop these, or everything: stage by stage, the highest first."""
        chosen = [self.running[name] for name in names or self.running if name in self.running]
        for stage in sorted({started.service.stage for started in chosen}, reverse=True):
            together = [started for started in chosen if started.service.stage == stage]
            endings = [
                _Ending.begin(started.pid, started.service.stop_signal, started.service.grace_seconds)
                for started in together
            ]
            for end in endings:
                end.finish()
            for started in together:
                self._forget(started)

    def close(self) -> None:
        """Stop everything, the watcher last."""
        with interrupts.hold():
            self.stop()
            if self._watcher is not None:
                self._watcher.communicate()

    def release(self) -> None:
        """Leave everything running; `stop_recorded` ends it later."""
        if self._watcher is not None:
            self._watcher.communicate("release\n")
        self.running.clear()
        self._watcher = self._orders = None

    def _forget(self, started: Running) -> None:
        started.popen.wait()
        self._order(f"- {started.pid}")
        (self.run / f"{started.service.name}.pid").unlink(missing_ok=True)
        del self.running[started.service.name]

    def _order(self, line: str) -> None:
        if self._orders is None:
            self._watcher = subprocess.Popen(
                [sys.executable, "-I", "-S", watcher.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
                cwd="/",
            )
            self._orders = self._watcher.stdin
        if self._orders is not None:
            self._orders.write(f"{line}\n")
            self._orders.flush()

    def _record(self, started: Running) -> None:
        service = started.service
        with contextlib.suppress(psutil.NoSuchProcess):
            record = {
                "pid": started.pid,
                "created": psutil.Process(started.pid).create_time(),
                "stage": service.stage,
                "signal": int(service.stop_signal),
                "grace": service.grace_seconds,
                "log": str(started.log),
            }
            path = self.run / f"{service.name}.pid"
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(record))
            partial.replace(path)


def _spawn(service: Service, output: IO[bytes]) -> subprocess.Popen[bytes]:
    account = service.account
    return subprocess.Popen(
        service.argv,
        env=dict(service.env),
        cwd=service.cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def ending(code: int) -> str:
    """How a process ended, in words."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A process known by its pid file; the time of its creation tells it from a stranger with the same pid."""

    name: str
    pid: int
    created: float
    stage: int
    stop_signal: int
    grace_seconds: float
    log: Path

    @property
    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return lives(process) and abs(process.create_time() - self.created) < 1
        except psutil.NoSuchProcess:
            return False


def recorded(run: Path) -> list[Recorded]:
    """The processes that have a pid file in `run`, those to be stopped last first."""
    found = []
    for path in run.glob("*.pid"):
        record = json.loads(path.read_text())
        found.append(
            Recorded(
                path.stem,
                record["pid"],
                record["created"],
                record["stage"],
                record["signal"],
                record["grace"],
                Path(record["log"]),
            )
        )
    return sorted(found, key=lambda one: (one.stage, one.name))


def stop_recorded(run: Path) -> list[str]:
    """Stop what the pid files in `run` name and remove the files; returns the names of those that ran."""
    everything = recorded(run)
    alive = [one for one in everything if one.alive]
    for stage in sorted({one.stage for one in alive}, reverse=True):
        endings = [_Ending.begin(one.pid, one.stop_signal, one.grace_seconds) for one in alive if one.stage == stage]
        for end in endings:
            end.finish()
    for one in everything:
        (run / f"{one.name}.pid").unlink(missing_ok=True)
    return [one.name for one in alive]
