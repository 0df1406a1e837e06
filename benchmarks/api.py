"""Requests per second and waits of `POST /api/tasks/noop` and `GET /api/job-runs`, beside a bare FastAPI application.

Beatline's API writes a row before each message, knows the caller and shapes each answer; the bare one (`bare_api.py`) publishes a
message, or answers with one query, and does nothing else. Each is one process of uvicorn with the same PostgreSQL (usual
durability) and Valkey, asked in turn by the same client: `--clients` connections that are kept open, each waiting for its answer
before it asks again. 20,000 runs are stored; no worker runs. Prints medians of the rounds; exit code 1 when a request fails.

    PYTHONPATH=. .venv/bin/python benchmarks/api.py [--requests 1500] [--clients 8] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import psutil
import redis

from devstack.environment import ROOT
from devstack.processes import Running, Service, Supervisor, last_lines
from devstack.readiness import free_port, when_port
from devstack.servers import embedded_postgres, embedded_valkey

APIS = {"bare": "benchmarks.bare_api:app", "beatline": "backend.main:app"}
REQUESTS = ("POST /api/tasks/noop", "GET /api/job-runs")
_ACCEPTED = {b"200", b"202"}
_RUNS = """
insert into job_runs (id, name, scheduled_for, created_at, trigger, task, queue, state, published_at, started_at, finished_at)
select gen_random_uuid(), 'benchmark', at, at, 'manual', 'noop', 'default', 'succeeded', at, at, at
from (select now() - n * interval '1 minute' as at from generate_series(1, 20000) as n) as made
"""


@dataclass(frozen=True, slots=True)
class Round:
    """Requests per second, waits in milliseconds, milliseconds of the API's CPU for each request."""

    rate: float
    p50: float
    p99: float
    cpu: float


class Refused(Exception):
    """An answer that is none; the message is its beginning."""


class Client:
    """HTTP/1.1 without ceremony, for a client that takes little of the machine."""

    def __init__(self, port: int, request: str, key: str) -> None:
        self._port = port
        lines = (f"{request} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}", "Content-Length: 0", "", "")
        self._request = "\r\n".join(lines).encode()

    async def ask(self, times: int) -> list[float]:
        """The seconds that each of so many answers took, one after the other."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        took = []
        for _ in range(times):
            start = time.perf_counter()
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            if head[9:12] not in _ACCEPTED:
                raise Refused(head.decode())
            length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
            took.append(time.perf_counter() - start)
        writer.close()
        return took


async def _round(running: Running, port: int, request: str, key: str, arguments: argparse.Namespace) -> Round:
    process = psutil.Process(running.pid)
    each = arguments.requests // arguments.clients
    before, start = process.cpu_times(), time.perf_counter()
    answers = await asyncio.gather(*(Client(port, request, key).ask(each) for _ in range(arguments.clients)))
    seconds, after = time.perf_counter() - start, process.cpu_times()
    took = sorted(one * 1000 for some in answers for one in some)
    cpu = after.user + after.system - before.user - before.system
    return Round(len(took) / seconds, took[len(took) // 2], took[int(len(took) * 0.99)], cpu / len(took) * 1000)


async def measure(supervisor: Supervisor, ports: dict[str, int], key: str, arguments: argparse.Namespace) -> None:
    """Every request of both, in turn; prints the table."""
    rounds: dict[tuple[str, str], list[Round]] = {(name, request): [] for request in REQUESTS for name in APIS}
    for turn in range(arguments.rounds + 1):
        for (name, request), told in rounds.items():
            with redis.Redis(port=int(os.environ["REDIS_PORT"])) as client:
                client.flushall()
            done = await _round(supervisor.running[name], ports[name], request, key, arguments)
            # The first opens connections.
            if turn:
                told.append(done)
    head = f"{arguments.requests:,} requests a round by {arguments.clients} clients, {arguments.rounds} rounds"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {head}, load {os.getloadavg()[0]:.1f}:")
    for request in REQUESTS:
        bare, ours = rounds["bare", request], rounds["beatline", request]
        _print(f"{request}, bare", bare, "")
        ratio = statistics.median(one.rate / other.rate for one, other in zip(ours, bare, strict=True))
        _print(f"{request}", ours, f"   {ratio:.2f} of bare")


def _print(name: str, told: Sequence[Round], said: str) -> None:
    rate, p50, p99, cpu = (
        statistics.median(getattr(one, field) for one in told) for field in ("rate", "p50", "p99", "cpu")
    )
    print(f"  {name:28} {rate:6.0f} /s   p50 {p50:5.1f} ms   p99 {p99:5.1f} ms   {cpu:5.2f} ms of CPU{said}")


async def _store_runs(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(_RUNS)
    await connection.execute("vacuum analyze job_runs")
    await connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_500)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        folder = Path(name)
        folder.chmod(0o755)
        postgres = opened.enter_context(embedded_postgres(folder / "postgres"))
        valkey = opened.enter_context(embedded_valkey(folder / "valkey"))
        key = secrets.token_hex(32)
        os.environ |= {
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": postgres.url,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(valkey.port),
            "BEATLINE_SERVICE_KEY": key,
            "LIVEKIT_URL": "http://127.0.0.1:9",
            "LIVEKIT_API_KEY": "benchmark",
            "LIVEKIT_API_SECRET": key,
            "LOG_LEVEL": "WARNING",
        }
        subprocess.run([sys.executable, "-m", "backend.cli", "migrate"], cwd=ROOT, check=True, capture_output=True)
        asyncio.run(_store_runs(postgres.url))
        supervisor = Supervisor(folder / "logs", folder / "run")
        opened.callback(supervisor.close)
        ports = {api: free_port() for api in APIS}
        for api, place in APIS.items():
            argv = (sys.executable, "-m", "uvicorn", place, "--port", str(ports[api]), "--no-access-log")
            supervisor.start(Service(api, argv, dict(os.environ), when_port(ports[api]), cwd=ROOT))
        supervisor.wait_ready(*APIS)
        try:
            asyncio.run(measure(supervisor, ports, key, arguments))
        except (Refused, OSError, asyncio.IncompleteReadError) as fault:
            time.sleep(1)
            logs = [line for api in APIS for line in last_lines(supervisor.logs / f"{api}.log")]
            print(f"a request failed: {fault}", *logs, sep="\n", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
