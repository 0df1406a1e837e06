"""What came of the calls: a table for people, an object for scripts, and two promises checked against the dial log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date
from typing import Any

from rich.table import Table
from rich.text import Text

from devstack.dials import Dial
from devstack.following import Row
from devstack.sample import PEOPLE, do_not_call_phones, phone_of, policy_number_of

_PHONES = {policy_number_of(index): phone_of(person) for index, person in enumerate(PEOPLE)}
# From this many columns on there is room for a column of its own; what the other columns take, narrow and wide.
WIDE = 120
TAKEN = (59, 83)
_COLORS = {"completed": "green", "exhausted": "yellow", "skipped": "dim", "pending": "cyan"}


@dataclass(frozen=True, slots=True)
class Promises:
    """Nobody on the do-not-call list was dialed, and no attempt was dialed twice."""

    dialed: int
    do_not_call: list[str]
    twice: list[str]

    @classmethod
    def check(cls, dials: list[Dial], rows: list[Row]) -> Promises:
        """A call is one attempt and has one room: one dial per room, and no more dials of a number than attempts."""
        attempts = Counter({_PHONES[row["policy_number"]]: row["attempts"] for row in rows})
        rooms = Counter(dial.room for dial in dials)
        numbers = Counter(dial.number for dial in dials)
        twice = [room for room, times in rooms.items() if times > 1]
        twice += [number for number, times in numbers.items() if times > attempts[number]]
        return cls(len(dials), sorted(set(numbers) & do_not_call_phones()), sorted(twice))

    @property
    def kept(self) -> bool:
        return not self.do_not_call and not self.twice

    def line(self) -> str:
        """In one line, for the terminal."""
        if self.kept:
            return f"{self.dialed} dials so far: no number on the do-not-call list, no attempt twice."
        broken = []
        if self.do_not_call:
            broken.append(f"do-not-call numbers dialed: {', '.join(self.do_not_call)}")
        if self.twice:
            broken.append(f"dialed more often than attempted: {', '.join(self.twice)}")
        return f"{self.dialed} dials: {'; '.join(broken)}"


def table(rows: list[Row], width: int) -> Table:
    """One line per planned call, by expiry date; on a narrow terminal outcome and first words share a column."""
    wide = width >= WIDE
    made = Table(box=None, pad_edge=False, padding=(0, 2 if wide else 1, 0, 0), header_style="bold")
    for name in ("Customer", "Policy", "Expires", "Status"):
        made.add_column(name, no_wrap=True)
    for name in ("Tries", "Secs"):
        made.add_column(name, no_wrap=True, justify="right")
    for name in ("Outcome", "First words") if wide else ("Outcome: first words",):
        made.add_column(name, no_wrap=True)
    for row in ordered(rows):
        outcome, words = outcome_of(row), Text(row["first_line"] or "", style="italic")
        last = words if wide else Text.assemble(outcome, ": " if words else "", words)
        last.truncate(max(width - TAKEN[wide], 16), overflow="ellipsis")
        made.add_row(*_facts(row), *((outcome, last) if wide else (last,)))
    return made


def ordered(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["expiry_date"], row["policy_number"]))


def _facts(row: Row) -> tuple[str | Text, ...]:
    return (
        row["customer_name"],
        row["policy_number"],
        f"{date.fromisoformat(row['expiry_date']):%d %b}",
        Text(row["status"], style=_COLORS.get(row["status"], "")),
        str(row["attempts"]),
        "" if row["talk_seconds"] is None else f"{row['talk_seconds']:.1f}",
    )


def outcome_of(row: Row) -> str:
    """What the customer wants, or why nobody could ask."""
    said: str = row["outcome"] or row["reason"] or row["end_reason"] or row["call_status"] or ""
    return said.replace("_", " ")


def as_object(rows: list[Row], promises: Promises, timings: dict[str, float], more: dict[str, Any]) -> dict[str, Any]:
    """Everything that the table says and more, for scripts."""
    return {
        "counts": dict(Counter(row["status"] for row in rows)),
        "calls": [row | {"phone": _PHONES.get(row["policy_number"])} for row in ordered(rows)],
        "dialed": promises.dialed,
        "do_not_call_dialed": promises.do_not_call,
        "dialed_twice": promises.twice,
        "timings": {name: round(seconds, 2) for name, seconds in timings.items()},
        **more,
    }
