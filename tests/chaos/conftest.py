"""A whole Beatline of real processes for each test, with calls that take long enough to be disturbed."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from devstack.demo import JOB
from devstack.environment import ROOT
from devstack.processes import Service, family
from devstack.sample import FIELDS, VOICEMAIL, Person, due, row_of
from devstack.servers import PostgresServer, Server, ValkeyServer
from devstack.stack import CELERY, Stack
from devstack.unprivileged import discard_home
from tests.chaos.ledger import Ledger, query

# Three calls a second, so that a fault finds calls in every state: planned, claimed, ringing, talking, waiting again.
_SETTINGS = {
    "CALLS_RECORDING": "off",
    "CALLS_PER_SECOND": "3",
    "CALLS_MAX_CONCURRENT": "8",
    "CALLS_CLAIM_SECONDS": "6",
    "CALLS_GRACE_SECONDS": "3",
    "CALLS_ADVANCE_SECONDS": "1",
}
_POLL_SECONDS = 0.1

# A voicemail takes half a minute of every test and shows nothing that a ring-out does not.
PEOPLE = tuple(person for person in due() if person.suffix != VOICEMAIL)


@dataclass(slots=True)
class Chaos:
    """The stack of a test, the people in it and what may be done to both."""

    stack: Stack
    people: Sequence[Person]

    @property
    def postgres(self) -> PostgresServer:
        return self.stack._servers()[0]

    @property
    def valkey(self) -> ValkeyServer:
        return self.stack._servers()[1]

    def call_everybody(self) -> None:
        """Send the daily job, as an operator does."""
        self.stack.command("trigger", *CELERY, "call", JOB)

    def call_everybody_at_once(self, times: int) -> None:
        """Several operators, none of whom knows of the others."""
        order = [*CELERY, "call", JOB]
        sent = [
            subprocess.Popen(order, env=self.stack.environment, cwd=ROOT, stdout=subprocess.DEVNULL)
            for _ in range(times)
        ]
        assert [one.wait(60) for one in sent] == [0] * times

    def stop(self, name: str) -> None:
        self.stack.supervisor.stop(name)

    def kill(self, name: str) -> None:
        """End a process and its children as a power cut would."""
        for member in family(self.stack.supervisor.running[name].pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.stack.supervisor.stop(name)

    def start(self, name: str, *, as_name: str | None = None) -> None:
        """Start one of the stack's processes again, or a second one of its kind under a name of its own."""
        service = dataclasses.replace(self._service(name), name=as_name or name)
        self.stack.supervisor.start(service)
        self.stack.supervisor.wait_ready(service.name)

    def _service(self, name: str) -> Service:
        return next(service for service in self.stack._services() if service.name == name)

    def take_away(self, server: Server, seconds: float) -> None:
        """A server dies and comes back on the same port; no process of ours may end over it."""
        server.kill()
        time.sleep(seconds)
        self.stack.check()
        server.start()

    def ledger(self) -> Ledger:
        return Ledger.read(self.stack)

    def wait_for(self, what: str, check: Callable[[], object], *, within: float = 60) -> None:
        """Until `check` answers something true; a process that ends by itself fails the test."""
        deadline = time.monotonic() + within
        while not check():
            self.stack.check()
            assert time.monotonic() < deadline, f"not within {within:g} s: {what}; {self._state()}"
            time.sleep(_POLL_SECONDS)

    def wait_for_dials(self, count: int) -> None:
        """Until so many phones have been dialed: the middle of the work."""
        log = self.stack.state / "simulator" / "dials.jsonl"
        self.wait_for(f"{count} dials", lambda: log.exists() and len(log.read_text().splitlines()) >= count)
        assert not self.ledger().settled, "everything was over before the fault"

    def check_when_settled(self, *, within: float = 75) -> Ledger:
        """The ledger once everything is final, checked."""
        self.wait_for("every call final", lambda: self.ledger().settled, within=within)
        # What comes late must change nothing.
        time.sleep(1)
        ledger = self.ledger()
        ledger.check(len(self.people))
        return ledger

    def rows(self, statement: str) -> list[dict[str, object]]:
        return query(self.stack, statement)

    def _state(self) -> str:
        return f"unfinished: {self.ledger().unfinished()}; logs in {self.stack.logs}"


class Begin(Protocol):
    def __call__(self, people: Sequence[Person] = PEOPLE, **settings: str) -> Chaos: ...


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts a stack with these people imported; it does not outlive the test."""
    started: list[Stack] = []

    def start(people: Sequence[Person] = PEOPLE, **settings: str) -> Chaos:
        stack = Stack(tmp_path / "state", lambda _line: None, overrides=_SETTINGS | settings)
        started.append(stack)
        stack.start()
        _import(stack, people)
        return Chaos(stack, people)

    try:
        yield start
    finally:
        for stack in started:
            stack.stop()
            # The logs stay where pytest keeps them.
            discard_home(stack.state / "postgres")


def _import(stack: Stack, people: Sequence[Person]) -> None:
    sample = stack.state / "sample.csv"
    today = datetime.now(UTC).date()
    with sample.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, FIELDS)
        writer.writeheader()
        writer.writerows(row_of(index, person, today) for index, person in enumerate(people))
    stack.command("import", sys.executable, "-m", "backend.cli", "import-policies", str(sample))
