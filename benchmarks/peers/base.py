"""What benchmarks/dispatch.py asks of a scheduler, and those schedulers that run in the peers' environment."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.peers.plan import QUEUE, Place, Plan
from devstack.processes import Service, Supervisor
from devstack.servers import PostgresServer, ValkeyServer

ROOT = Path(__file__).resolve().parent.parent.parent
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
BEAT_REQUIREMENTS = ROOT / "requirements-beat.txt"
BEAT_STAND_IN = ROOT / "containers" / "beat" / "click_repl.py"
CONSTRAINTS = ROOT / "constraints.txt"
STORE_SECONDS = 1_800


@dataclass(frozen=True, slots=True)
class Ground:
    """Where everything runs: the servers, the processes, a folder for files, and the Python of the peers and of Beat."""

    postgres: PostgresServer
    valkey: ValkeyServer
    supervisor: Supervisor
    state: Path
    python: Path
    beat_python: Path
    loop_seconds: float

    def redis_url(self, database: int) -> str:
        return f"redis://127.0.0.1:{self.valkey.port}/{database}"


class Peer(Protocol):
    """A scheduler that holds entries 0 to n, each once a day, and publishes to a Redis list in database 0."""

    name: str
    title: str
    # Reads everything at its start and compares it at each tick: gets the smaller store.
    loads_all: bool
    # A second instance may stand by or share the work.
    shares: bool
    queue: str
    # How long after a kill messages may still come that the killed instance had in hand.
    late_seconds: float

    def store(self, count: int) -> None:
        """Forget everything and hold the entries 0 to `count`, all at rest; no instance runs."""

    def arm(self, instants: Sequence[float]) -> None:
        """Make entry i due at `instants[i]` (epoch seconds), the others at rest; no instance runs."""

    def service(self, number: int) -> Service:
        """Instance `number`, with nothing to wait for before it counts as ready."""

    def entries(self, messages: Sequence[bytes]) -> list[int]:
        """The entry of each message, in order."""

    def worked(self, messages: Sequence[bytes]) -> list[int]:
        """The entries that workers would work on when handed these messages, one for each time."""


@dataclass(slots=True)
class PipPeer:
    """A scheduler from PyPI. `module` writes its entries when run with a plan, `command` serves."""

    ground: Ground
    name: str
    title: str
    module: str
    command: tuple[str, ...]
    loads_all: bool = False
    shares: bool = False
    queue: str = QUEUE
    late_seconds: float = 0.0
    _stored: int = 0
    _armed: int = 0

    def store(self, count: int) -> None:
        self._stored, self._armed = count, 0
        self._write(Plan(count, count + 1, fresh=True))

    def arm(self, instants: Sequence[float]) -> None:
        touched, self._armed = max(self._armed, len(instants)), len(instants)
        self._write(Plan(self._stored, touched, fresh=False, instants=list(instants)))

    def _write(self, plan: Plan) -> None:
        path = self.ground.state / f"{self.name}.json"
        plan.write(path)
        writer = (str(self.ground.python), "-m", self.module, str(path))
        self.ground.supervisor.run_once(
            f"{self.name}-write", writer, self._environment(), cwd=ROOT, seconds=STORE_SECONDS
        )

    def service(self, number: int) -> Service:
        return Service(
            f"{self.name}-{number}",
            (str(self.ground.python), *self.command),
            self._environment(),
            lambda _running: True,
            cwd=ROOT,
            grace_seconds=30,
        )

    def entries(self, messages: Sequence[bytes]) -> list[int]:
        bodies = (base64.b64decode(json.loads(message)["body"]) for message in messages)
        return [int(json.loads(body)[0][0]) for body in bodies]

    def worked(self, messages: Sequence[bytes]) -> list[int]:
        return self.entries(messages)

    def _environment(self) -> dict[str, str]:
        place = Place(
            broker=self.ground.redis_url(0),
            store=self.ground.redis_url(1),
            database=self.ground.postgres.url.replace("postgresql://", "postgresql+psycopg2://"),
            state=str(self.ground.state),
            stored=self._stored,
            loop_seconds=self.ground.loop_seconds,
        )
        return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **place.variables()}


def pip_peers(ground: Ground) -> list[PipPeer]:
    def beat(module: str) -> tuple[str, ...]:
        return ("-m", "celery", "-A", module, "beat", "--pidfile=")

    here = "benchmarks.peers"
    redbeat, own, alchemy = f"{here}.redbeat", f"{here}.celery_beat", f"{here}.sqlalchemy_beat"
    scheduler = f"{here}.apscheduler3"
    return [
        PipPeer(ground, "redbeat", "celery-redbeat 2.4", redbeat, beat(redbeat), shares=True),
        PipPeer(ground, "apscheduler", "APScheduler 3.11, tuned", scheduler, ("-m", scheduler)),
        PipPeer(ground, "sqlalchemy-beat", "sqlalchemy-celery-beat 0.9", alchemy, beat(alchemy), loads_all=True),
        PipPeer(ground, "celery-beat", "celery beat 5.7", own, beat(own), loads_all=True),
    ]


def environment(folder: Path, requirements: Path, constraints: Path, *, stand_in: Path | None = None) -> Path:
    """The Python of a virtual environment with these requirements, made anew when they have changed.

    `stand_in` takes the place of the package click-repl, as in Containerfile.celery-beat.
    """
    sources = [requirements, constraints, *([stand_in] if stand_in else [])]
    wanted = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    stamp, python = folder / "requirements.sha256", folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = (str(python), "-m", "pip", "--quiet")
    subprocess.run((*pip, "install", "-r", str(requirements), "-c", str(constraints)), check=True)
    if stand_in is not None:
        subprocess.run((*pip, "uninstall", "--yes", "click-repl", "prompt-toolkit", "wcwidth"), check=True)
        (site,) = folder.glob("lib/python3*/site-packages")
        shutil.copy(stand_in, site)
    stamp.write_text(wanted)
    return python
