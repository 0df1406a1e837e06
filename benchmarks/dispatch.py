"""Beatline's dispatching beside celery-redbeat, APScheduler 3.11, sqlalchemy-celery-beat and celery's own beat.

Each scheduler is one process that holds N entries (each runs once a day) and publishes a Celery message for each that is due, to
the same Valkey, from its own PostgreSQL or Redis tables. No worker runs. A reader in this process empties the queue every 5 ms and
notes when it saw each message: so one clock, outside every scheduler, times all of them. Ratios compare like with like in one run.

Burst: 1,000 and 10,000 entries due in the same second; the time until the last is in the broker, and the lag of each.
Rest: from the start of the process to the first message, of an entry that was due before; then CPU and memory with nothing due.
Kill: SIGKILL a quarter, half and three quarters through a burst and a new start at once; entries lost, published twice, and worked
on twice: the same as published twice but for Beatline, whose workers claim a run before they work; the claim is made here.
Failover: two instances, entries due five times a second, SIGKILL for the first as one is due, or some milliseconds
later; the worst lag from then on, for each round.

Those that read everything at their start hold `--peer-stored` entries. A scheduler that does not end in time is stopped, and what
it did until then is shown. celery-redbeat gets a loop of `--loop` seconds and its own default of five loops for the lock;
APScheduler gets 20 threads and no limit on lateness. Exit code 1 when Beatline has lost an entry or had it worked on twice.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.peers.base import (
    BEAT_REQUIREMENTS,
    BEAT_STAND_IN,
    CONSTRAINTS,
    REQUIREMENTS,
    ROOT,
    Ground,
    Peer,
    environment,
    pip_peers,
)
from benchmarks.peers.beatline import Beatline
from benchmarks.peers.broker import Reader
from benchmarks.peers.figures import Results, Wishes
from benchmarks.peers.report import print_report
from benchmarks.peers.trial import Trial
from devstack.interrupts import interrupts
from devstack.processes import ProcessError, Supervisor
from devstack.servers import embedded_postgres, embedded_valkey
from devstack.unprivileged import discard_home

EVERYONE = "beatline,redbeat,apscheduler,sqlalchemy-beat,celery-beat"
QUICK_ONLY = "beatline,redbeat,apscheduler"
QUICK = Wishes(
    stored=1_000,
    peer_stored=1_000,
    due=(100,),
    sizes=(),
    idle_seconds=1,
    deadline=6,
    kill_due=100,
    kills=(0.5,),
    failovers=1,
    margin_seconds=1,
    quiet_seconds=1,
    thorough=False,
    loop_seconds=1,
)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def _shares(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part)


def _wishes(argv: list[str] | None) -> tuple[argparse.Namespace, Wishes]:
    usual = Wishes()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--stored", type=int, default=usual.stored, help="entries stored for burst, kill and failover")
    add("--peer-stored", type=int, default=usual.peer_stored, help="of schedulers that read everything at their start")
    add("--due", type=_numbers, default=usual.due, help="entries due in the same second, e.g. 1000,10000")
    add("--sizes", type=_numbers, default=usual.sizes, help="entries stored for start and rest, beside --stored")
    add("--peer-largest", type=int, default=usual.peer_largest, help="the largest of --sizes for the peers")
    add("--idle-seconds", type=float, default=usual.idle_seconds)
    add("--deadline", type=float, default=usual.deadline, help="seconds for 1,000 due; in proportion for more")
    add("--kill-due", type=int, default=usual.kill_due, help="at most; no more than a scheduler sends in 8 s")
    add("--kills", type=_shares, default=usual.kills, help="when to kill, as shares of the burst's time, e.g. 0.25,0.5")
    add("--failovers", type=int, default=usual.failovers, help="rounds")
    add("--loop", type=float, default=usual.loop_seconds, dest="loop_seconds", help="beat_max_loop_interval of RedBeat")
    add("--only", default="", help=f"names, of {EVERYONE}")
    add("--env", type=Path, default=ROOT / ".beatline" / "bench-venv", help="where the virtual environments are kept")
    add("--quick", action="store_true", help=f"a smoke run of {QUICK_ONLY}: a thousand stored, a hundred due")
    add("--json", type=Path, help="write the figures to this file")
    wish = parser.parse_args(argv)
    wished = {name: value for name, value in vars(wish).items() if name in Wishes.__dataclass_fields__}
    return wish, QUICK if wish.quick else Wishes(**wished)


def measure(ground: Ground, wishes: Wishes, only: set[str]) -> Results:
    results = Results()
    everyone: list[Peer] = [Beatline(ground), *pip_peers(ground)]
    for peer in everyone:
        if peer.name in only:
            with Reader(ground.valkey.port, peer.queue) as reader:
                Trial(ground, peer, reader, wishes, results).run()
    return results


def _on_servers(state: Path, peers: Path, beat: Path, wishes: Wishes, only: set[str]) -> Results:
    supervisor = Supervisor(state / "logs", state / "run")
    with embedded_postgres(state / "postgres") as postgres, embedded_valkey(state / "valkey") as valkey:
        ground = Ground(postgres, valkey, supervisor, state, peers, beat, wishes.loop_seconds)
        try:
            return measure(ground, wishes, only)
        finally:
            supervisor.close()


def main(argv: list[str] | None = None) -> int:
    wish, wishes = _wishes(argv)
    interrupts.install()
    load = os.getloadavg()[0]
    peers = environment(wish.env / "peers", REQUIREMENTS, CONSTRAINTS)
    beat = environment(wish.env / "beat", BEAT_REQUIREMENTS, CONSTRAINTS, stand_in=BEAT_STAND_IN)
    state = Path(tempfile.mkdtemp(prefix="beatline-dispatch-"))
    default = QUICK_ONLY if wish.quick else EVERYONE
    keep = False
    try:
        results = _on_servers(state, peers, beat, wishes, set((wish.only or default).split(",")))
    except ProcessError as fault:
        keep = True
        print("\n".join([f"{fault}", *fault.tail, f"The logs are kept: {fault.log.parent}"]), file=sys.stderr)
        return 1
    finally:
        if not keep:
            discard_home(state / "postgres")
            shutil.rmtree(state, ignore_errors=True)
    print_report(results, load)
    if wish.json:
        figures = json.dumps(
            {"cores": os.cpu_count(), "load_before": load, "wishes": asdict(wishes), **asdict(results)}
        )
        # What was never published has no lag: null, since JSON knows no infinity.
        wish.json.write_text(json.dumps(json.loads(figures, parse_constant=lambda _name: None), indent=1))
    return 1 if results.broken("beatline") else 0


if __name__ == "__main__":
    sys.exit(main())
