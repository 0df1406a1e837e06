"""The local stack, as `make up` starts it, and a shell in which the page's commands run."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from devstack.environment import ROOT
from devstack.readiness import free_port
from tests.commands.page import PAGE, Command, read

COMMANDS = read(PAGE.read_text(encoding="utf-8"))
# Ports of the page at which something else may listen on this machine.
PORTS = re.compile(r"\b(8000|8555)\b")


def of_kind(kind: str) -> list[Command]:
    return [command for command in COMMANDS if command.kind == kind]


@dataclass
class Started:
    """A line of the shell under way, and what it says."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int = 0

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, text: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < end, f"{text!r} not within {seconds} s:\n{self.output}"
            time.sleep(0.05)

    def wait_for_answers(self, seconds: float = 60) -> None:
        """Of any kind, at its port. What is told to stop before it has begun to serve may never end: Flower for one."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{self.port}/", verify=False, trust_env=False)
                return
            assert time.monotonic() < end, f"no answer within {seconds} s:\n{self.output}"
            time.sleep(0.05)

    def end(self, seconds: float = 40) -> int:
        """The exit code of what ends by itself; nothing of it is left."""
        try:
            return self.process.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def stop(self) -> int:
        """The exit code after a request to stop."""
        self.process.terminate()
        return self.end()


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs lines in the project's folder, after the page's own set-up; `state` stands in for `.beatline`."""

    state: Path

    def start(self, line: str, **environment: str) -> Started:
        setup = "\n".join(command.line for command in of_kind("setup"))
        script = f"set -euo pipefail\n{setup}\n{line}".replace(".beatline", str(self.state))
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        log = self.state.with_name(f"{uuid4()}.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=ROOT,
                env={
                    "PATH": path,
                    "HOME": os.environ["HOME"],
                    "LANG": "C.UTF-8",
                    "PYTHONUNBUFFERED": "1",
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Started(process, log)

    def serve(self, line: str, **environment: str) -> Started:
        """Start what stays in the foreground, at a free port where it names one."""
        port = free_port()
        # The shell gives way to the program, so that the signal and the exit code are the program's own.
        *settings, program = re.split(r"(?<=\)) ", line, maxsplit=1)
        exports = "".join(f"export {setting}\n" for setting in settings)
        started = self.start(PORTS.sub(str(port), f"{exports}exec {program}"), **environment)
        started.port = port
        return started


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """After `make up`."""
    state = tmp_path_factory.mktemp("commands") / "stack"
    stack = [sys.executable, "-m", "devstack"]
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    up = [*stack, "up", "--state", str(state), "--api-port", "0"]
    subprocess.run(up, cwd=ROOT, env=environment, check=True, timeout=120)
    try:
        yield Shell(state)
    finally:
        subprocess.run([*stack, "reset", "--state", str(state)], cwd=ROOT, env=environment, check=True, timeout=120)
