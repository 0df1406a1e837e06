"""What must add up at the end: everything sent has taken effect, is a dead letter, or still waits; nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Environment variables of the workers: where executions are told, and Redis's visibility timeout in seconds.
EXECUTIONS, VISIBILITY = "EXECUTIONS", "CHAOS_VISIBILITY"

TABLES = "create table if not exists effects (number int primary key); create table if not exists book (number int)"


@dataclass(frozen=True, slots=True)
class Ledger:
    """`sent`: what the broker has confirmed. `attempted`: what it may have besides. `booked`: effects, as often as they were."""

    sent: set[int]
    attempted: set[int]
    booked: Counter[int]
    letters: set[int]
    waiting: int
    executions: Counter[int]

    @property
    def repeated(self) -> int:
        """How many messages were executed more than once."""
        return sum(times > 1 for times in self.executions.values())

    def check(self) -> None:
        """Fail unless everything adds up."""
        twice = {number: times for number, times in self.booked.items() if times > 1}
        assert twice == {}, f"effects that were made more than once: {twice}"
        effects = set(self.booked)
        invented = (effects | self.letters) - self.sent - self.attempted
        assert invented == set(), f"nobody has sent {sorted(invented)[:10]}"
        assert effects & self.letters == set(), f"effect and dead letter: {sorted(effects & self.letters)[:10]}"
        unaccounted = self.sent - effects - self.letters
        assert len(unaccounted) <= self.waiting, (
            f"lost: of {len(self.sent)} sent {len(unaccounted)} are neither done nor dead letters, and {self.waiting} wait:"
            f" {sorted(unaccounted)[:10]}"
        )


def read_executions(path: Path) -> Counter[int]:
    lines: Sequence[str] = path.read_text().splitlines() if path.exists() else []
    return Counter(int(line.split()[0]) for line in lines)
