"""Outlives its supervisor by a few seconds: when the supervisor is gone without a word, it ends what was left behind.

Run by path with the standard library only. Standard input carries one order per line: `+ PID SIGNAL` (look after this
process, the leader of its session), `- PID` (it has ended), `release` (leave everything running). End of input means
that the supervisor died.
"""

import contextlib
import os
import signal
import sys
import time

GRACE_SECONDS = 8.0
ORPHAN_SECONDS = 0.5


def read_orders() -> dict[int, int]:
    """The stop signal of each process to end, by pid, in the order of their start; empty after a release."""
    watched: dict[int, int] = {}
    for line in sys.stdin:
        match line.split():
            case ["+", pid, number]:
                watched[int(pid)] = int(number)
            case ["-", pid]:
                watched.pop(int(pid), None)
            case ["release"]:
                return {}
    return watched


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def end(watched: dict[int, int]) -> None:
    """Signal the leaders, last started first; when they have gone, or after the grace, kill what their groups left."""
    for pid in reversed(watched):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, watched[pid])
            os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + GRACE_SECONDS
    while any(lives(pid) for pid in watched) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(ORPHAN_SECONDS)
    for pid in watched:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    end(read_orders())
