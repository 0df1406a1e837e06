"""The course of one scheduler through benchmarks/dispatch.py: rest, bursts, kill, failover."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass

import asyncpg
import psutil

from benchmarks.peers.base import Ground, Peer
from benchmarks.peers.broker import Reader, cpu_seconds, memory_mib, peak_memory_mib
from benchmarks.peers.figures import Burst, Failover, Kill, Rest, Results, Wishes
from devstack.processes import Running, family

READY_SECONDS = 600
# After the last message, for what may come twice.
SETTLE_SECONDS = 0.5
FAILOVER_STEP = 0.2
FAILOVER_LEAD = 2.0
FAILOVER_MOST = 60.0
# An entry is due at the kill: each round finds it at another stage of its way.
FAILOVER_SHIFT = 0.004


@dataclass(slots=True)
class Trial:
    """One scheduler over one pair of servers."""

    ground: Ground
    peer: Peer
    reader: Reader
    wishes: Wishes
    results: Results
    stored: int = 0
    start_seconds: float = 0.0

    def run(self) -> None:
        home = self.wishes.peer_stored if self.peer.loads_all else self.wishes.stored
        own = self.peer.name == "beatline"
        most = (
            max(self.wishes.sizes, default=home) if own else home if self.peer.loads_all else self.wishes.peer_largest
        )
        for size in sorted({home, *(size for size in self.wishes.sizes if size <= most)}):
            self.stored = size
            began = time.time()
            self.peer.store(size)
            asyncio.run(_clean(self.ground.postgres.url))
            self._say(f"{size:,} stored in {time.time() - began:.1f} s")
            self._rest()
            if size == home:
                self._bursts()

    def _bursts(self) -> None:
        rate = 0.0
        for due in self.wishes.due:
            burst = self._burst(due)
            rate = burst.rate
            if not burst.complete:
                break
        kill_due = min(self.wishes.kill_due, max(20, int(rate * 8)))
        for at in self.wishes.kills:
            self._kill(kill_due, at, kill_due / rate if rate else self.wishes.deadline)
        if self.peer.shares:
            for round_ in range(self.wishes.failovers):
                self._failover(round_ * FAILOVER_SHIFT)

    def _rest(self) -> None:
        self.peer.arm([time.time() - 60])
        began = time.time()
        running = self._start(1)
        self.start_seconds = self._ready(began)
        # What follows a start, such as a first collection of garbage, is not rest yet.
        time.sleep(1)
        resting = time.monotonic()
        own, servers = cpu_seconds([running.pid]), cpu_seconds(self._servers())
        time.sleep(self.wishes.idle_seconds)
        share = 100 / (time.monotonic() - resting)
        used = (cpu_seconds([running.pid]) - own) * share
        served = (cpu_seconds(self._servers()) - servers) * share
        memory = memory_mib(running.pid)
        self._stop()
        self.results.rests.append(
            Rest(self.peer.name, self.peer.title, self.stored, self.start_seconds, used, served, memory)
        )
        self._say(f"first message after {self.start_seconds:.1f} s, {used:.2f} % CPU and {memory:.0f} MiB at rest")

    def _burst(self, due: int) -> Burst:
        running, instant = self._armed(due)
        self._sleep_until(instant - 0.1)
        own, servers = cpu_seconds([running.pid]), cpu_seconds(self._servers())
        self._sleep_until(instant)
        done = self.reader.wait(due, instant + self.wishes.deadline * max(1.0, due / 1_000))
        used, served = cpu_seconds([running.pid]) - own, cpu_seconds(self._servers()) - servers
        time.sleep(SETTLE_SECONDS if done else 0)
        peak = peak_memory_mib(running.pid)
        arrivals = self._arrivals()
        self._stop()
        lags = sorted(at - instant for at in arrivals.first.values())
        burst = Burst(
            self.peer.name,
            self.peer.title,
            self.stored,
            due,
            len(lags),
            arrivals.doubled,
            lags[-1] if done else time.time() - instant,
            _percentile(lags, 0.5),
            _percentile(lags, 0.99),
            used,
            served,
            peak,
        )
        self.results.bursts.append(burst)
        self._say(f"{burst.published:,} of {due:,} due in {burst.seconds:.2f} s")
        return burst

    def _kill(self, due: int, at: float, takes: float) -> None:
        running, instant = self._armed(due)
        self._sleep_until(instant)
        self.reader.wait(int(at * due), instant + at * takes, check_seconds=0.001)
        killed = self._sigkill(running)
        before = self.reader.count()
        restarted = self._start(1)
        arrivals = self._after_kill(killed, before, due)
        resume = self.reader.messages[before][0] - killed if self.reader.count() > before else None
        worked = Counter(self.peer.worked([message for _at, message in self.reader.messages]))
        twice = sum(1 for index, times in worked.items() if index > 0 and times > 1)
        self._stop(restarted)
        kill = Kill(
            self.peer.name,
            self.peer.title,
            self.stored,
            due,
            at,
            before,
            due - len(arrivals.first),
            arrivals.doubled,
            twice,
            resume,
            max(0.0, *(at - killed for at in arrivals.first.values())),
        )
        self.results.kills.append(kill)
        self._say(
            f"killed after {before:,} of {due:,}: {kill.lost} lost, {kill.doubled} doubled, "
            f"resumed after {resume or math.nan:.1f} s, last after {kill.complete_seconds:.1f} s"
        )

    def _after_kill(self, killed: float, before: int, due: int) -> Arrivals:
        """Wait until it is quiet again, and until what the killed instance had in hand must have come out."""
        quiet, late = self.wishes.quiet_seconds, self.peer.late_seconds
        allowed = 2 * max(self.wishes.deadline, 8 * self.wishes.loop_seconds) + late
        while True:
            time.sleep(0.25)
            now = time.time()
            arrivals = self._arrivals()
            complete = len(arrivals.first) == due
            resumed = self.reader.count() > before or (complete and now > killed + 2 * self.start_seconds)
            last = self.reader.messages[-1][0] if self.reader.messages else killed
            settled = now > killed + late + quiet or (complete and not self.wishes.thorough)
            if (resumed and settled and now > last + quiet) or now > killed + allowed:
                return arrivals

    def _failover(self, shift: float) -> None:
        lead = FAILOVER_LEAD + self.start_seconds * 2
        steps = int((FAILOVER_MOST + lead) / FAILOVER_STEP)
        first, instant = self._armed(min(steps, self.stored), FAILOVER_STEP, extra=lead)
        second = self._start(2)
        self._sleep_until(instant + FAILOVER_LEAD + shift)
        killed = self._sigkill(first)
        wanted, arrivals = self._after_failover(killed, instant)
        self._stop(second)
        due = {index: instant + (index - 1) * FAILOVER_STEP for index in wanted}
        lags = [at - due[index] for index, at in arrivals.first.items() if due.get(index, 0) >= killed - 1]
        worst, lost = max(lags, default=math.inf), len(wanted - arrivals.first.keys())
        self.results.failovers.append(
            Failover(self.peer.name, self.peer.title, self.stored, worst, len(wanted), lost, arrivals.doubled)
        )
        self._say(f"failover in {worst:.2f} s, {lost} lost, {arrivals.doubled} doubled")

    def _after_failover(self, killed: float, instant: float) -> tuple[set[int], Arrivals]:
        """Wait until every entry due so far has come, or those that have not are lost; those due, those come."""
        while True:
            time.sleep(0.25)
            end = time.time() - 1
            arrivals = self._arrivals()
            wanted = self._due_until(instant, end)
            resumed = min((at for at in arrivals.first.values() if at > killed + 0.05), default=math.inf)
            since = killed if wanted <= arrivals.first.keys() else resumed + self.peer.late_seconds
            if end > since + self.wishes.quiet_seconds or end > killed + FAILOVER_MOST:
                return wanted, arrivals

    def _due_until(self, instant: float, end: float) -> set[int]:
        return {index for index in range(1, self.stored) if instant + (index - 1) * FAILOVER_STEP <= end}

    def _armed(self, due: int, step: float = 0.0, extra: float = 0.0) -> tuple[Running, float]:
        """One instance, ready, and the instant at which the entries 1 to `due` are due, `step` seconds apart."""
        wait = self.wishes.margin_seconds + self.start_seconds * 1.5 + extra
        while True:
            began = time.time()
            # Whole seconds: a sorted set of RedBeat knows no others.
            instant = float(math.ceil(began + wait))
            self.peer.arm([began - 60, *(instant + number * step for number in range(due))])
            running = self._start(1)
            self._ready(time.time())
            if time.time() + 0.5 + extra / 2 < instant:
                return running, instant
            self._stop(running)
            wait = (time.time() - began) * 1.5 + self.wishes.margin_seconds + extra

    def _start(self, number: int) -> Running:
        return self.ground.supervisor.start(self.peer.service(number))

    def _ready(self, began: float) -> float:
        """Seconds until the overdue entry was published; nothing else is in the reader afterwards."""
        self.reader.forget()
        until = began + READY_SECONDS
        while not self.reader.wait(1, min(time.time() + 1, until)):
            self.ground.supervisor.check()
            if time.time() > until:
                raise TimeoutError(f"{self.peer.title} published nothing within {READY_SECONDS} s of its start")
        seconds = self.reader.messages[0][0] - began
        self.reader.forget()
        return seconds

    def _stop(self, *_running: Running) -> None:
        self.ground.supervisor.stop()
        time.sleep(0.1)
        self.reader.forget()

    def _sigkill(self, running: Running) -> float:
        members = family(running.pid)
        killed = time.time()
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.ground.supervisor.stop(running.service.name)
        # What it had sent is read by then.
        time.sleep(0.05)
        return killed

    def _arrivals(self) -> Arrivals:
        seen = list(self.reader.messages)
        first: dict[int, float] = {}
        times: Counter[int] = Counter()
        for (at, _message), index in zip(seen, self.peer.entries([message for _at, message in seen]), strict=True):
            # Entry 0 is the one that tells that the scheduler is ready.
            if index > 0:
                first.setdefault(index, at)
                times[index] += 1
        return Arrivals(first, sum(1 for count in times.values() if count > 1))

    def _servers(self) -> list[int]:
        servers = (self.ground.postgres, self.ground.valkey)
        return [server.supervisor.running[server.name].pid for server in servers]

    def _sleep_until(self, instant: float) -> None:
        time.sleep(max(0.0, instant - time.time()))

    def _say(self, line: str) -> None:
        print(f"{self.peer.title}: {line}", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When each entry was published first, and how many entries were published more than once."""

    first: dict[int, float]
    doubled: int


async def _clean(url: str) -> None:
    """What the server would do by itself some minutes after so many rows are new."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("vacuum analyze")
        await connection.execute("checkpoint")
    finally:
        await connection.close()


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else math.nan
