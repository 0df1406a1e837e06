"""The whole outreach under load, beside the same calls sent straight to the API.

`queue`: `celery call call_expiring_policies`, then Beat, the scheduled worker and the high-priority worker do the rest.
`direct`: the workers stand still, and one asyncio client sends the same number of initiates to the API over HTTP.
Both ring every phone of fresh customers at the LiveKit simulator, with PostgreSQL and Valkey as real processes. The ratio of
their rates is what the queue costs. Exit code 1 when a call is missing, has not ended well, or a phone rang twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil

from benchmarks.imports import phone_of, write_csv
from devstack.dials import read_dials
from devstack.interrupts import interrupts
from devstack.processes import ProcessError, Service, family
from devstack.stack import CELERY, Stack, reset

# Waits of the network shrink to almost nothing, and the limits that spare a real trunk are out of the way.
SETTINGS = {
    "SIM_SPEED": "0.01",
    "CALLS_RECORDING": "off",
    "CALLS_PER_SECOND": "1000",
    "CALLS_MAX_CONCURRENT": "200",
    "CALLS_SHORT_SECONDS": "0",
    "CALLS_ADVANCE_SECONDS": "5",
    "CALLS_CLAIM_SECONDS": "120",
    "CALLS_RING_SECONDS": "60",
    "CALLS_AGENT_WAIT_SECONDS": "60",
    "CALLS_GRACE_SECONDS": "60",
}
WORKERS = ("beat", "worker", "worker-scheduled")
MEASURED = ("api", "worker", "worker-scheduled", "beat", "simulator", "postgres", "valkey")
CLIENTS = 32
EARLY_CALLS = 100
POLL_SECONDS = 0.5
FULL_PAUSE_SECONDS = 0.1
# Every line busy, or the API's database connections used up: the same initiate again, a little later.
_FULL = {429, 503}
_MIB = 1 << 20

_ENDED = "select count(*) from calls where ended_at is not null and created_at >= $1"
_SPAN = """
select count(*) as calls, extract(epoch from max(ended_at) - min(created_at))::float as seconds,
       percentile_cont(array[0.5, 0.99]) within group (order by extract(epoch from dialing_at - created_at)) as to_dial
from calls where created_at >= $1
"""
_WRONG = """
select p.policy_number, s.status, s.reason, count(k.id) as calls
from scheduled_calls s join policies p on p.id = s.policy_id left join calls k on k.scheduled_call_id = s.id
group by s.id, p.policy_number
having s.status <> 'completed' or count(k.id) <> 1 or bool_or(k.dialing_at is null or k.status <> 'completed')
"""
_PENDING = "select id, customer_id, attempt_no + 1 as attempt_no from scheduled_calls where status = 'pending'"


class CallingStack(Stack):
    """The stack without the audio worker: nothing is recorded here."""

    def _services(self) -> tuple[Service, ...]:
        return tuple(service for service in super()._services() if service.name != "worker-audio")


@dataclass(frozen=True, slots=True)
class Way:
    """How one way went; memory in MiB and CPU in seconds, by process with its children."""

    calls: int
    seconds: float
    calls_per_second: float
    to_dial_p50: float
    to_dial_p99: float
    rss_early: dict[str, float]
    rss_end: dict[str, float]
    cpu_seconds: dict[str, float]


def rss(stack: Stack) -> dict[str, float]:
    return {name: sum(_each(stack, name, lambda one: one.memory_info().rss)) / _MIB for name in _alive(stack)}


def cpu(stack: Stack) -> dict[str, float]:
    # Children that have ended are counted by their parent.
    return {name: sum(_each(stack, name, lambda one: sum(one.cpu_times()[:4]))) for name in _alive(stack)}


def _alive(stack: Stack) -> list[str]:
    return [name for name in MEASURED if name in stack.supervisor.running]


def _each(stack: Stack, name: str, measure: Any) -> list[float]:
    measured = []
    for one in family(stack.supervisor.running[name].pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            measured.append(float(measure(one)))
    return measured


@dataclass(slots=True)
class Bench:
    """Both ways over one running stack."""

    stack: Stack
    customers: int
    deadline: float
    database: asyncpg.Connection

    async def queue(self) -> Way:
        """Through Celery, triggered as an operator does it."""
        await self.import_customers(0)
        return await self.measure(self._trigger())

    async def direct(self) -> Way:
        """Past Celery: its consumers are stopped before the plan is made."""
        await asyncio.to_thread(self.stack.supervisor.stop, *WORKERS)
        await self.import_customers(self.customers)
        async with self._client() as client:
            (await client.post("/api/scheduler/plan")).raise_for_status()
            waiting = await self.database.fetch(_PENDING)
            return await self.measure(self._initiate_all(client, waiting))

    async def import_customers(self, first: int) -> None:
        path = self.stack.state / f"customers-{first}.csv"
        await asyncio.to_thread(write_csv, path, self.customers, first)
        importing = (sys.executable, "-m", "backend.cli", "import-policies", str(path))
        await asyncio.to_thread(self.stack.command, "import", *importing)

    async def measure(self, work: Coroutine[Any, Any, None]) -> Way:
        """Do the work and wait until every call has ended."""
        since = await self.database.fetchval("select clock_timestamp()")
        cpu_before = cpu(self.stack)
        working = asyncio.create_task(work)
        early: dict[str, float] = {}
        limit = time.monotonic() + self.deadline
        ended = 0
        while ended < self.customers and time.monotonic() < limit:
            await asyncio.sleep(POLL_SECONDS)
            self.stack.check()
            if working.done():
                working.result()
            ended = await self.database.fetchval(_ENDED, since)
            if not early and ended >= min(EARLY_CALLS, self.customers):
                early = rss(self.stack)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        span = await self.database.fetchrow(_SPAN, since)
        used = {name: seconds - cpu_before[name] for name, seconds in cpu(self.stack).items()}
        calls, seconds, to_dial = span or (0, None, None)
        p50, p99 = to_dial or (0.0, 0.0)
        return Way(calls, seconds or 0.0, ended / (seconds or 1.0), p50, p99, early, rss(self.stack), used)

    async def _trigger(self) -> None:
        await asyncio.to_thread(self.stack.command, "trigger", *CELERY, "call", "call_expiring_policies")

    async def _initiate_all(self, client: httpx.AsyncClient, waiting: list[asyncpg.Record]) -> None:
        left = iter(waiting)

        async def work() -> None:
            for row in left:
                await self._initiate(client, row)

        await asyncio.gather(*(work() for _ in range(CLIENTS)))

    async def _initiate(self, client: httpx.AsyncClient, row: asyncpg.Record) -> None:
        while True:
            answer = await client.post(
                f"/api/calls/initiate/{row['customer_id']}",
                json={"scheduled_call_id": str(row["id"])},
                headers={"Idempotency-Key": f"{row['id']}:{row['attempt_no']}"},
            )
            if answer.status_code not in _FULL:
                answer.raise_for_status()
                return
            await asyncio.sleep(FULL_PAUSE_SECONDS)

    def _client(self) -> httpx.AsyncClient:
        key = self.stack.environment["BEATLINE_SERVICE_KEY"]
        return httpx.AsyncClient(
            base_url=self.stack.ports.api_url,
            headers={"Authorization": f"Bearer {key}"},
            limits=httpx.Limits(max_connections=CLIENTS),
            timeout=60,
            trust_env=False,
        )

    async def problems(self) -> list[str]:
        """What the database and the dial log do not agree to be 'every phone rang exactly once'."""
        found = [f"{dict(row)}" for row in await self.database.fetch(_WRONG)]
        planned = await self.database.fetchval("select count(*) from scheduled_calls")
        if planned != 2 * self.customers:
            found.append(f"{planned} scheduled calls instead of {2 * self.customers}")
        dials = read_dials(self.stack.state / "simulator" / "dials.jsonl")
        numbers = Counter(dial.number for dial in dials)
        wanted = {phone_of(index) for index in range(2 * self.customers)}
        found += [f"{number} rang {times} times" for number, times in numbers.items() if times > 1]
        found += [f"{number} never rang" for number in sorted(wanted - numbers.keys())]
        return found + [f"{number} is nobody's" for number in sorted(numbers.keys() - wanted)]


async def compare(stack: Stack, customers: int, deadline: float) -> tuple[Way, Way, list[str]]:
    database = await asyncpg.connect(stack.environment["DATABASE_URL"])
    try:
        bench = Bench(stack, customers, deadline, database)
        queue = await bench.queue()
        stack.say(f"queue: {queue.calls} calls in {queue.seconds:.1f} s")
        direct = await bench.direct()
        stack.say(f"direct: {direct.calls} calls in {direct.seconds:.1f} s")
        return queue, direct, await bench.problems()
    finally:
        await database.close()


def _print(name: str, way: Way) -> None:
    print(
        f"{name:<7} {way.calls_per_second:7.1f} calls/s  ({way.calls} calls in {way.seconds:.1f} s)  accepted to dial: "
        f"p50 {way.to_dial_p50 * 1000:.0f} ms, p99 {way.to_dial_p99 * 1000:.0f} ms"
    )
    for process, end in way.rss_end.items():
        early, used = way.rss_early.get(process, 0.0), way.cpu_seconds.get(process, 0.0)
        share = used / way.calls * 1000 if way.calls else 0.0
        print(
            f"        {process:<17} memory {early:6.0f} MiB after {EARLY_CALLS} calls, {end:6.0f} MiB at the end   "
            f"CPU {used:6.1f} s, {share:5.1f} ms per call"
        )


def report(queue: Way, direct: Way, problems: list[str], load: tuple[float, ...], *, as_json: bool) -> None:
    ratio = queue.calls_per_second / direct.calls_per_second if direct.calls_per_second else 0.0
    if as_json:
        ways = {"queue": asdict(queue), "direct": asdict(direct), "ratio": ratio}
        print(json.dumps({**ways, "load_before": load[0], "cores": os.cpu_count(), "problems": problems}))
        return
    print(f"{os.cpu_count()} cores, load {load[0]:.1f} before the start")
    _print("queue", queue)
    _print("direct", direct)
    print(f"ratio   {ratio:7.2f}  queue to direct")
    print(f"{len(problems)} problems" if problems else "Every call was made, no phone rang twice.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=2_000, help="of each way")
    parser.add_argument("--deadline", type=float, default=300, help="seconds for each way")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wish = parser.parse_args()
    interrupts.install()
    load = os.getloadavg()
    state = Path(tempfile.mkdtemp(prefix="beatline-outreach-"))
    stack = CallingStack(state, lambda line: print(line, file=sys.stderr), overrides=SETTINGS)
    problems = ["the run did not end"]
    try:
        stack.start()
        queue, direct, problems = asyncio.run(compare(stack, wish.customers, wish.deadline))
        report(queue, direct, problems, load, as_json=wish.json)
    except ProcessError as fault:
        problems = [f"{fault}", *fault.tail]
    finally:
        stack.stop()
        if problems:
            print("\n".join([*problems[:20], f"The logs are kept: {stack.logs}"]), file=sys.stderr)
        else:
            reset(state)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
