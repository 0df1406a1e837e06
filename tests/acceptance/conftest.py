"""One state folder lives through a whole story: the first run, the second, one that is kept, one that is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from devstack.environment import ROOT
from devstack.processes import lives

DEADLINE_SECONDS = 660
# The tests' own settings must not be those of the stack.
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


@dataclass(frozen=True, slots=True)
class Run:
    """A finished command."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object on the last line."""
        found: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return found


def command(state: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "devstack", *arguments, "--state", str(state)]


def run(state: Path, *arguments: str) -> Run:
    """Run a command of the local stack to its end."""
    began = time.monotonic()
    done = subprocess.run(
        command(state, *arguments),
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


def demo(state: Path, *options: str) -> Run:
    return run(state, "demo", "--json", "--api-port", "0", *options)


@dataclass(slots=True)
class Started:
    """A demo under way, and every process that it has started so far."""

    process: subprocess.Popen[str]
    run: Path
    since: float

    def wait_for(self, name: str, seconds: float = 90) -> int:
        """Until this process of the stack has been started; its pid. A killed demo leaves its pid files behind."""
        path = self.run / f"{name}.pid"
        deadline = time.monotonic() + seconds
        while not (path.exists() and path.stat().st_mtime > self.since and path.read_text()):
            assert time.monotonic() < deadline, f"{name} was not started within {seconds} s"
            time.sleep(0.1)
        pid: int = json.loads(path.read_text())["pid"]
        return pid

    def family(self) -> list[psutil.Process]:
        leader = psutil.Process(self.process.pid)
        return [leader, *leader.children(recursive=True)]


@contextmanager
def started_demo(state: Path) -> Iterator[Started]:
    """A demo under way; it does not outlive the context."""
    since = time.time()
    process = subprocess.Popen(
        command(state, "demo", "--api-port", "0"),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Started(process, state / "run", since)
    finally:
        process.kill()
        process.communicate()


def left_running(family: list[psutil.Process], seconds: float = 15) -> list[str]:
    """Those of a family that still live after `seconds`, by their command lines."""
    deadline = time.monotonic() + seconds
    while any(lives(member) for member in family) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [" ".join(member.cmdline()) for member in family if lives(member)]


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("stack")
    yield folder
    assert run(folder, "reset").code == 0


@pytest.fixture(scope="session")
def first(state: Path) -> Run:
    """The first demo on a new machine."""
    return demo(state)


@pytest.fixture(scope="session")
def dials_after_first(state: Path, first: Run) -> str:
    assert first.code == 0, first.stderr
    return (state / "simulator" / "dials.jsonl").read_text()


@pytest.fixture(scope="session")
def second(state: Path, dials_after_first: str) -> Run:
    """The same again, left running."""
    assert dials_after_first
    return demo(state, "--keep")


@pytest.fixture(scope="session")
def attached(state: Path, second: Run) -> Run:
    """A third one, which finds everything running."""
    assert second.code == 0, second.stderr
    return demo(state)


@dataclass(frozen=True, slots=True)
class Down:
    """`status` before and after `down`, and what had been running."""

    before: Run
    down: Run
    after: Run
    left: list[str]


@pytest.fixture(scope="session")
def stopped(state: Path, attached: Run) -> Down:
    assert attached.code == 0, attached.stderr
    pids = [json.loads(path.read_text())["pid"] for path in (state / "run").glob("*.pid")]
    family = [member for pid in pids for member in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]]
    before = run(state, "status")
    down = run(state, "down")
    return Down(before, down, run(state, "status"), left_running(family, 2))


@dataclass(frozen=True, slots=True)
class Interruption:
    """How a demo under way ended after a signal."""

    code: int
    output: str
    left: list[str]


def interrupt(state: Path, signum: int) -> Interruption:
    """Start a demo, wait until its workers run, send it a signal."""
    with started_demo(state) as started:
        started.wait_for("beat")
        time.sleep(3)
        family = started.family()
        assert len(family) > 8
        started.process.send_signal(signum)
        output, _ = started.process.communicate(timeout=60)
        return Interruption(started.process.returncode, output, left_running(family))


@pytest.fixture(scope="session", params=[signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda signum: signum.name)
def interrupted(request: pytest.FixtureRequest, state: Path, stopped: Down) -> Interruption:
    assert stopped.down.code == 0, stopped.down.stderr
    return interrupt(state, request.param)
