"""The figures of benchmarks/dispatch.py as tables, each beside its ratio to Beatline's and Beatline's goals."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from benchmarks.peers.figures import Burst, Failover, Kill, Rest, Results

One = TypeVar("One", Rest, Burst, Kill, Failover)
OURS = "beatline"
# Seconds from the instant to the last message, by the number due.
BURST_GOALS = {1_000: 0.5, 10_000: 5.0}
LAG_P99_GOAL = 1.0
IDLE_CPU_GOAL = 1.0
IDLE_MEMORY_GOAL = 50.0
FAILOVER_GOAL = 2.0
LARGE = 1_000_000


def print_report(results: Results, load: float) -> None:
    """Ratios are to Beatline, or to the first scheduler where Beatline did not take part."""
    console = Console(width=None if Console().is_terminal else 170)
    console.print(f"{os.cpu_count()} cores, load {load:.1f} before the start")
    for table in (_bursts(results.bursts), _rests(results.rests), _kills(results.kills), _failovers(results.failovers)):
        if table.row_count:
            console.print(table)
    for line in goals(results):
        console.print(line)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("scheduler", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _bursts(bursts: Sequence[Burst]) -> Table:
    table = _table(
        "Due in the same second",
        "stored", "due", "published", "in s", "per second", "slower ×", "lag p50 s", "lag p99 s", "× ours", "CPU s", "× ours",
        "servers' CPU s", "peak MiB", "× ours",
    )  # fmt: skip
    for due in sorted({one.due for one in bursts}):
        those = [one for one in bursts if one.due == due]
        base = _base(those)
        for one in those:
            table.add_row(
                one.title,
                f"{one.stored:,}",
                f"{one.due:,}",
                f"{one.published:,}" + (f" ({one.doubled:,} twice)" if one.doubled else ""),
                f"{one.seconds:.2f}",
                f"{one.rate:,.0f}",
                _ratio(base.rate, one.rate),
                f"{one.lag_p50:.3f}",
                f"{one.lag_p99:.3f}" if one.complete else "unfinished",
                _ratio(one.lag_p99, base.lag_p99) if one.complete else "",
                f"{one.cpu_seconds:.2f}",
                _ratio(one.cpu_seconds / max(1, one.published), base.cpu_seconds / max(1, base.published)),
                f"{one.servers_cpu_seconds:.2f}",
                f"{one.peak_mib:.0f}",
                _ratio(one.peak_mib, base.peak_mib),
            )
        table.add_section()
    table.caption = "CPU: the ratio is per message. Lag: of those published."
    return table


def _rests(rests: Sequence[Rest]) -> Table:
    table = _table(
        "Start and rest", "stored", "first message s", "× ours", "idle CPU %", "servers' CPU %", "MiB", "× ours"
    )
    for stored in sorted({one.stored for one in rests}):
        those = [one for one in rests if one.stored == stored]
        base = _base(those)
        for one in those:
            table.add_row(
                one.title,
                f"{one.stored:,}",
                f"{one.start_seconds:.2f}",
                _ratio(one.start_seconds, base.start_seconds),
                f"{one.cpu_percent:.2f}",
                f"{one.servers_cpu_percent:.2f}",
                f"{one.memory_mib:.0f}",
                _ratio(one.memory_mib, base.memory_mib),
            )
        table.add_section()
    return table


def _kills(kills: Sequence[Kill]) -> Table:
    columns = (
        "stored",
        "due",
        "at",
        "sent before",
        "lost",
        "sent twice",
        "worked twice",
        "resumed s",
        "× ours",
        "last s",
    )
    table = _table("Killed amid the burst, started again at once", *columns)
    for one in kills:
        those = [other for other in kills if other.at == one.at]
        resumed, ours = one.resume_seconds, _base(those).resume_seconds
        table.add_row(
            one.title,
            f"{one.stored:,}",
            f"{one.due:,}",
            f"{one.at:.0%}",
            f"{one.before:,}",
            f"{one.lost:,}",
            f"{one.doubled:,}",
            f"{one.worked_twice:,}",
            "" if resumed is None else f"{resumed:.1f}",
            "" if resumed is None or ours is None else _ratio(resumed, ours),
            f"{one.complete_seconds:.1f}",
        )
    return table


def _failovers(failovers: Sequence[Failover]) -> Table:
    table = _table("One of two killed", "stored", "due", "lost", "published twice", "worst lag s", "× ours")
    for one in failovers:
        ratio = _ratio(one.seconds, _base(failovers).seconds)
        table.add_row(
            one.title,
            f"{one.stored:,}",
            f"{one.due:,}",
            f"{one.lost:,}",
            f"{one.doubled:,}",
            f"{one.seconds:.2f}",
            ratio,
        )
    return table


def _base(those: Sequence[One]) -> One:
    return next((one for one in those if one.peer == OURS), those[0])


def _ratio(value: float, base: float) -> str:
    if not base or not math.isfinite(value) or not math.isfinite(base):
        return ""
    return f"{value / base:.1f}"


def goals(results: Results) -> list[str]:
    """Beatline's goals beside what was measured; none where it did not take part or the size was another."""
    lines = []
    for burst in (one for one in results.bursts if one.peer == OURS):
        if burst.due in BURST_GOALS:
            lines.append(
                _goal(f"{burst.due:,} due, s", burst.seconds if burst.complete else math.inf, BURST_GOALS[burst.due])
            )
        if burst.due == 1_000:
            lines.append(_goal("lag p99 of 1,000 due, s", burst.lag_p99, LAG_P99_GOAL))
    for rest in (one for one in results.rests if one.peer == OURS and one.stored == LARGE):
        lines.append(_goal("idle CPU of a million, %", rest.cpu_percent, IDLE_CPU_GOAL))
        lines.append(_goal("memory of a million, MiB", rest.memory_mib, IDLE_MEMORY_GOAL))
    for kill in (one for one in results.kills if one.peer == OURS):
        lines.append(_goal("lost when killed", kill.lost, 0))
        lines.append(_goal("worked on twice when killed", kill.worked_twice, 0))
    lines += [_goal("failover, s", one.seconds, FAILOVER_GOAL) for one in results.failovers if one.peer == OURS]
    return lines


def _goal(what: str, value: float, most: float) -> str:
    return f"{'met   ' if value <= most else 'MISSED'} {what}: {value:g}, at most {most:g}"
