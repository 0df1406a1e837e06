"""The whole of Beatline as local processes: servers, LiveKit simulator, API, workers and Beat."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from devstack.environment import ROOT, Ports, inherited, load_secrets, variables, write_private
from devstack.processes import ProcessError, Recorded, Service, Supervisor, recorded, stop_recorded
from devstack.readiness import when_http, when_logged, when_port
from devstack.servers import PostgresServer, ValkeyServer
from devstack.unprivileged import discard_home

CELERY = (sys.executable, "-m", "celery", "-A", "backend.celery_app")
WORKER = (*CELERY, "worker", "--include=backend.tasks", "--loglevel=INFO")
SERVERS, PLANE, WORK = 0, 1, 2
NAMES = ("postgres", "valkey", "simulator", "api", "worker", "worker-scheduled", "worker-audio", "beat")


class InUse(Exception):
    """Another command is at work on the same state."""


@dataclass(slots=True)
class Stack:
    """The processes over one state folder. `say` gets a line for the person at the terminal."""

    state: Path
    say: Callable[[str], None]
    api_port: int = 0
    overrides: dict[str, str] = field(default_factory=dict)
    attached: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    supervisor: Supervisor = field(init=False)
    ports: Ports = field(init=False)
    _lock: IO[str] | None = None

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.logs, self.run)

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def run(self) -> Path:
        return self.state / "run"

    def start(self) -> None:
        """Start everything and wait until it is ready, or attach to what `make up` left running."""
        self._take_lock()
        known = self._known()
        left = [one for one in recorded(self.run) if one.name in NAMES]
        if known and len(left) == len(NAMES) and all(one.alive for one in left):
            self.attached = True
            self.ports = Ports(**known)
            self._set_environment()
            self.say(f"Already running at {self.ports.api_url}")
            return
        if any(one.alive for one in left):
            self.say("Only a part of the stack was left running: stopping that first")
        stop_recorded(self.run)
        self.ports = Ports.choose(known, self.api_port or known.get("api", 0))
        self._ports_file.write_text(json.dumps(asdict(self.ports)))
        self._start_servers()
        self._step("Database schema", self._migrate)
        self._step("LiveKit simulator, API, workers, Beat", self._start_processes)

    def check(self) -> None:
        """Raise ProcessError when one of the processes has ended."""
        if not self.attached:
            self.supervisor.check()
            return
        for one in recorded(self.run):
            if one.name in NAMES and not one.alive:
                raise ProcessError(one.name, "ended by itself", one.log)

    def command(self, name: str, *arguments: str) -> str:
        """Run a command of Beatline's in the stack's environment; its output."""
        return self.supervisor.run_once(name, arguments, self.environment, cwd=ROOT)

    def stop(self) -> None:
        """Stop what this command started; what it found running stays."""
        self.supervisor.close()
        self._give_lock()

    def leave(self) -> None:
        """Leave everything running."""
        self.supervisor.release()
        self._give_lock()

    def _start_servers(self) -> None:
        postgres, valkey = self._servers()
        self._set_environment()
        self._step("PostgreSQL", postgres.start)
        self._step("Valkey", valkey.start)

    def _servers(self) -> tuple[PostgresServer, ValkeyServer]:
        keys = self._keys()
        return (
            PostgresServer(
                self.supervisor, "postgres", self.ports.postgres, self.state / "postgres", keys["POSTGRES_PASSWORD"]
            ),
            ValkeyServer(self.supervisor, "valkey", self.ports.valkey, self.state / "valkey", keys["REDIS_PASSWORD"]),
        )

    def _keys(self) -> dict[str, str]:
        return load_secrets(self.state / "secrets.env")

    def _set_environment(self) -> None:
        postgres, _ = self._servers()
        own = variables(self.state, self.ports, self._keys(), postgres.url) | self.overrides
        for folder in ("EGRESS_DIR", "RECORDINGS_DIR", "BEATLINE_CACHE_DIR", "SIM_STATE_DIR"):
            Path(own[folder]).mkdir(parents=True, exist_ok=True)
        write_private(self.state / "stack.env", own)
        self.environment = inherited() | own

    def _migrate(self) -> None:
        self.command("migrate", sys.executable, "-m", "backend.cli", "migrate")

    def _start_processes(self) -> None:
        services = self._services()
        for service in services:
            self.supervisor.start(service)
        self.supervisor.wait_ready(*(service.name for service in services))

    def _services(self) -> tuple[Service, ...]:
        api = (
            "uvicorn",
            "backend.main:app",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.ports.api),
            "--no-proxy-headers",
        )
        simulator = Service(
            "simulator",
            (sys.executable, "-m", "backend.simulator"),
            self.environment,
            when_port(self.ports.simulator),
            cwd=ROOT,
            stage=PLANE,
        )
        return (
            simulator,
            Service(
                "api",
                (sys.executable, "-m", *api),
                self.environment,
                when_http(f"{self.ports.api_url}/readyz"),
                cwd=ROOT,
                stage=PLANE,
            ),
            self._worker("worker", "default,high_priority,low_priority"),
            self._worker("worker-scheduled", "scheduled"),
            self._worker("worker-audio", "audio", "--concurrency=1"),
            Service(
                "beat",
                (*CELERY, "beat", "--loglevel=INFO"),
                self.environment,
                when_logged("beat: Starting..."),
                cwd=ROOT,
                stage=WORK,
            ),
        )

    def _worker(self, name: str, queues: str, *options: str) -> Service:
        return Service(
            name,
            (*WORKER, "-Q", queues, "-n", f"{name}@%h", *options),
            self.environment,
            when_logged(" ready."),
            cwd=ROOT,
            stage=WORK,
        )

    def _step(self, what: str, work: Callable[[], None]) -> None:
        began = time.monotonic()
        work()
        self.say(f"{what}: ready after {time.monotonic() - began:.1f} s")

    @property
    def _ports_file(self) -> Path:
        return self.run / "ports.json"

    def _known(self) -> dict[str, int]:
        known: dict[str, int] = json.loads(self._ports_file.read_text()) if self._ports_file.exists() else {}
        return known

    def _take_lock(self) -> None:
        self.run.mkdir(parents=True, exist_ok=True)
        self.state.chmod(0o711)
        self._lock = lock_state(self.state)

    def _give_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def lock_state(state: Path) -> IO[str]:
    """Take the state for one command; raise InUse when another one has it."""
    lock = (state / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as fault:
        lock.close()
        raise InUse(f"another command is at work on {state}; wait for it, or stop it with Ctrl-C") from fault
    return lock


def down(state: Path) -> list[str]:
    """Stop what `up` left running; the names of what was stopped."""
    if not (state / "run").exists():
        return []
    with lock_state(state):
        return stop_recorded(state / "run")


def reset(state: Path) -> None:
    """Stop everything and remove the state."""
    down(state)
    discard_home(state / "postgres")
    if state.exists():
        shutil.rmtree(state)


def status(state: Path) -> list[Recorded]:
    """What has a pid file."""
    return recorded(state / "run") if (state / "run").exists() else []
