"""What must be true once everything is final, read from the database and from the simulator's dial log."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

import asyncpg

from devstack.dials import read_dials
from devstack.sample import do_not_call_phones
from devstack.stack import Stack

Row = dict[str, Any]

_FINAL = {"completed", "exhausted", "skipped"}
# Ends of an attempt that, as its row says, never reached a phone.
_NOBODY_RANG = {"unavailable", "agent_unavailable", "never_dialed", "not_found"}


def query(stack: Stack, statement: str) -> list[Row]:
    """The rows of a statement."""

    async def fetch() -> list[Row]:
        connection = await asyncpg.connect(stack.environment["DATABASE_URL"])
        try:
            return [dict(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(fetch())


@dataclass(frozen=True, slots=True)
class Ledger:
    """Planned calls, attempts, and the rooms and numbers that were dialed."""

    planned: list[Row]
    attempts: list[Row]
    rooms: list[str]
    numbers: list[str]

    @classmethod
    def read(cls, stack: Stack) -> Ledger:
        dials = read_dials(stack.state / "simulator" / "dials.jsonl")
        return cls(
            query(stack, "select * from scheduled_calls"),
            query(stack, "select * from calls"),
            [dial.room for dial in dials],
            [dial.number for dial in dials],
        )

    def unfinished(self) -> list[tuple[str, str | None, int]]:
        """Planned calls that still wait for something: status, reason, attempts."""
        return [
            (row["status"], row["reason"], row["attempt_no"])
            for row in self.planned
            if row["status"] not in _FINAL and (row["status"], row["reason"]) != ("pending", "callback")
        ]

    @property
    def settled(self) -> bool:
        return bool(self.planned) and not self.unfinished() and all(row["ended_at"] for row in self.attempts)

    def check(self, planned: int) -> None:
        """Fail unless all of the `planned` calls are final and everybody was dialed exactly as often as their rows say."""
        assert len(self.planned) == planned
        assert self.unfinished() == []
        assert [row["room_name"] for row in self.attempts if row["ended_at"] is None] == []
        made = Counter(row["scheduled_call_id"] for row in self.attempts)
        assert {row["id"]: row["attempt_no"] for row in self.planned if row["attempt_no"]} == dict(made)
        assert [room for room, times in Counter(self.rooms).items() if times > 1] == []
        assert set(self.numbers) & do_not_call_phones() == set()
        rang = {row["room_name"]: _story(row) for row in self.attempts if _rang(row)}
        quiet = {row["room_name"]: _story(row) for row in self.attempts if not _rang(row)}
        assert {room: quiet.get(room, "no row at all") for room in self.rooms if room not in rang} == {}
        assert {room: story for room, story in rang.items() if room not in self.rooms} == {}

    def reached(self) -> int:
        return sum(row["status"] == "completed" for row in self.planned)


def _rang(attempt: Row) -> bool:
    return attempt["dialing_at"] is not None and attempt["dial_error"] not in _NOBODY_RANG


def _story(attempt: Row) -> str:
    told = ("to_e164", "status", "end_reason", "dialing_at", "joined_at", "left_at", "ended_at")
    return ", ".join(f"{name} {attempt[name]}" for name in told)
