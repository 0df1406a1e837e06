"""Import of a large CSV file beside the naive way: one ORM object, one flush and one commit per row.

Prints rows per second, the memory that the import needed, and the ratio of the two ways. Exit code 1 when rows are missing.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psutil
from sqlmodel import select

from backend.calls.models import Customer, Policy
from backend.calls.service import import_policies
from backend.config import Config, load
from backend.core.db import Database
from backend.migrations import running
from devstack.processes import Supervisor
from devstack.readiness import free_port
from devstack.servers import PostgresServer

FIELDS = ("customer_ref", "full_name", "phone", "policy_number", "insurer", "product", "premium", "expiry_date")
_MIB = 1 << 20
# None of the endings that make the simulated phone do anything but answer.
_ANSWERING, _PER_BLOCK = 300, 100
_HORIZON_DAYS = 28


def phone_of(index: int) -> str:
    """A valid number of its own for each index, of a simulated phone that answers."""
    block, place = divmod(index, _PER_BLOCK)
    return f"+9198{block:05d}{_ANSWERING + place:03d}"


def rows(count: int, first: int, today: date) -> Iterator[dict[str, str]]:
    """Rows of `count` customers with one policy each, which expires within the horizon."""
    for index in range(first, first + count):
        yield {
            "customer_ref": f"B-{index:07d}",
            "full_name": f"Customer {index}",
            "phone": phone_of(index),
            "policy_number": f"BENCH-{index:07d}",
            "insurer": "Harbour Mutual",
            "product": "Car",
            "premium": f"{4000 + index % 9000}.00",
            "expiry_date": (today + timedelta(days=2 + index % (_HORIZON_DAYS - 2))).isoformat(),
        }


def write_csv(path: Path, count: int, first: int = 0) -> None:
    """Write the rows of `count` customers from number `first` on."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, FIELDS)
        writer.writeheader()
        writer.writerows(rows(count, first, datetime.now(UTC).date()))


@dataclass(frozen=True, slots=True)
class Import:
    """One pass over the file; memory in MiB, of this process."""

    seconds: float
    rows_per_second: float
    created: int
    unchanged: int
    failed: int
    rss_before: float
    rss_at_tenth: float
    rss_peak: float


async def measure_import(db: Database, config: Config, path: Path, count: int) -> Import:
    """Import the file and watch the memory after each batch."""
    process = psutil.Process()
    before = process.memory_info().rss
    seen: list[tuple[int, int]] = []

    def watch(read: int) -> None:
        seen.append((read, process.memory_info().rss))

    began = time.perf_counter()
    with path.open("rb") as source:
        done = await import_policies(db, source, filename=path.name, config=config, progress=watch)
    took = time.perf_counter() - began
    tenth = next(rss for read, rss in seen if read >= seen[-1][0] / 10)
    peak = max(rss for _, rss in seen)
    return Import(
        took,
        count / took,
        done.created,
        done.unchanged,
        done.failed,
        before / _MIB,
        tenth / _MIB,
        peak / _MIB,
    )


async def measure_naive(db: Database, count: int, first: int) -> float:
    """Rows per second when each row is looked up, added and committed by itself, as a first version would."""
    began = time.perf_counter()
    for row in rows(count, first, datetime.now(UTC).date()):
        async with db.transaction() as session:
            customer = (
                await session.exec(select(Customer).where(Customer.external_ref == row["customer_ref"]))
            ).first()
            if customer is None:
                customer = Customer(
                    external_ref=row["customer_ref"],
                    full_name=row["full_name"],
                    phone_e164=row["phone"],
                    timezone="Asia/Kolkata",
                )
                session.add(customer)
                await session.flush()
            found = select(Policy).where(Policy.policy_number == row["policy_number"])
            if (await session.exec(found)).first() is None:
                session.add(_policy(customer, row))
    return count / (time.perf_counter() - began)


def _policy(customer: Customer, row: dict[str, str]) -> Policy:
    return Policy(
        customer_id=customer.id,
        policy_number=row["policy_number"],
        insurer=row["insurer"],
        product=row["product"],
        expiry_date=date.fromisoformat(row["expiry_date"]),
    )


async def compare(url: str, path: Path, count: int, sample: int) -> tuple[Import, Import, float]:
    config = load({"DATABASE_URL": url})
    db = Database(url, pool_size=2)
    try:
        first = await measure_import(db, config, path, count)
        again = await measure_import(db, config, path, count)
        return first, again, await measure_naive(db, sample, first=count)
    finally:
        await db.close()


def run(count: int, sample: int) -> tuple[Import, Import, float]:
    """Start a PostgreSQL of our own with its usual durability, measure, remove it."""
    with tempfile.TemporaryDirectory(prefix="beatline-imports-") as folder:
        state = Path(folder)
        path = state / "policies.csv"
        write_csv(path, count)
        supervisor = Supervisor(state / "logs", state / "run")
        postgres = PostgresServer(supervisor, "postgres", free_port(), state / "postgres")
        try:
            postgres.start()
            running.upgrade(postgres.url)
            return asyncio.run(compare(postgres.url, path, count, sample))
        finally:
            supervisor.close()
            postgres.discard()


def _line(name: str, done: Import) -> str:
    return (
        f"{name:<14} {done.rows_per_second:9,.0f} rows/s  {done.seconds:6.1f} s  "
        f"memory {done.rss_before:.0f} MiB before, {done.rss_at_tenth:.0f} at a tenth, {done.rss_peak:.0f} at most"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=2_000, help="rows of the naive way")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wish = parser.parse_args()
    first, again, naive = run(wish.rows, wish.sample)
    complete = (first.created, again.unchanged, first.failed + again.failed) == (wish.rows, wish.rows, 0)
    ratio = first.rows_per_second / naive
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if wish.json:
        both = {"first": asdict(first), "again": asdict(again)}
        more = {"rows": wish.rows, "naive_rows_per_second": naive, "ratio": ratio, "peak_rss": peak, "ok": complete}
        print(json.dumps(both | more))
    else:
        print(_line("first import", first))
        print(_line("second import", again))
        print(f"{'row by row':<14} {naive:9,.0f} rows/s  (a sample of {wish.sample:,} rows)")
        print(f"{'ratio':<14} {ratio:9.1f}  first import to row by row; peak memory of the whole run {peak:.0f} MiB")
    if not complete:
        print(f"rows are missing: {first}, {again}", file=sys.stderr)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
