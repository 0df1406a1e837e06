"""What benchmarks/dispatch.py is asked for, and the figures that it finds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Wishes:
    """How much of everything; seconds, numbers of entries."""

    stored: int = 100_000
    peer_stored: int = 10_000
    due: tuple[int, ...] = (1_000, 10_000)
    sizes: tuple[int, ...] = (1_000, 1_000_000)
    peer_largest: int = 100_000
    idle_seconds: float = 20
    deadline: float = 30
    kill_due: int = 10_000
    kills: tuple[float, ...] = (0.25, 0.5, 0.75)
    failovers: int = 3
    # From arming to the due instant, beside the time that arming and starting take.
    margin_seconds: float = 2
    # Of silence, before what has come counts as all.
    quiet_seconds: float = 3
    # Wait for late doubles of a killed instance even when every entry has come.
    thorough: bool = True
    loop_seconds: float = 5


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing due. `start_seconds`: from the start of the process to the message of an overdue entry."""

    peer: str
    title: str
    stored: int
    start_seconds: float
    cpu_percent: float
    servers_cpu_percent: float
    memory_mib: float


@dataclass(frozen=True, slots=True)
class Burst:
    """`seconds`: from the due instant to the last of `published`; CPU from the instant to then."""

    peer: str
    title: str
    stored: int
    due: int
    published: int
    doubled: int
    seconds: float
    lag_p50: float
    lag_p99: float
    cpu_seconds: float
    servers_cpu_seconds: float
    peak_mib: float

    @property
    def complete(self) -> bool:
        return self.published == self.due

    @property
    def rate(self) -> float:
        return self.published / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Kill:
    """Killed `at` this share of the burst: of its messages or of the time that the last one took, whichever is first.

    From the kill to the first message of the new process (None: it sent none), and to the last entry's first message.
    """

    peer: str
    title: str
    stored: int
    due: int
    at: float
    before: int
    lost: int
    doubled: int
    worked_twice: int
    resume_seconds: float | None
    complete_seconds: float


@dataclass(frozen=True, slots=True)
class Failover:
    """`seconds`: the worst lag of an entry that was due from a second before the kill on."""

    peer: str
    title: str
    stored: int
    seconds: float
    due: int
    lost: int
    doubled: int


@dataclass(slots=True)
class Results:
    rests: list[Rest] = field(default_factory=list)
    bursts: list[Burst] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    failovers: list[Failover] = field(default_factory=list)

    def broken(self, peer: str) -> bool:
        """Whether this scheduler has lost an entry or had it worked on twice."""
        kills = [one for one in self.kills if one.peer == peer]
        failovers = [one for one in self.failovers if one.peer == peer]
        return any(one.lost or one.worked_twice for one in kills) or any(one.lost for one in failovers)
