import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from devstack.processes import ProcessError, Running, Service, Supervisor, lives, recorded, stop_recorded
from devstack.readiness import when_logged

# A leader with a child in its group and one in a session of its own, like a prefork worker's and a database's.
TREE = """
import subprocess, sys, time
one = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
two = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("ready", one.pid, two.pid, flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


def service(name: str, code: str, *, stage: int = 0, grace: float = 5.0) -> Service:
    return Service(
        name,
        (sys.executable, "-c", code),
        dict(os.environ),
        when_logged("ready"),
        stage=stage,
        grace_seconds=grace,
        ready_seconds=10,
    )


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path / "logs", tmp_path / "run")
    yield made
    made.close()


def pids_of(running: Running) -> list[int]:
    """The leader and the children that it has said it has."""
    return [running.pid, *(int(word) for word in running.log.read_text().split()[1:3])]


def gone(pid: int) -> bool:
    try:
        return not lives(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_stopping_a_process_ends_its_children_wherever_they_went(supervisor: Supervisor) -> None:
    running = supervisor.start(service("tree", TREE))
    supervisor.wait_ready("tree")
    pids = pids_of(running)
    assert len(pids) == 3
    supervisor.stop("tree")
    assert all(gone(pid) for pid in pids)
    assert recorded(supervisor.run) == []


def test_a_process_that_ignores_the_signal_is_killed_after_its_grace(supervisor: Supervisor) -> None:
    running = supervisor.start(service("stubborn", STUBBORN, grace=0.3))
    supervisor.wait_ready("stubborn")
    began = time.monotonic()
    supervisor.stop()
    assert gone(running.pid)
    assert 0.3 <= time.monotonic() - began < 3


def test_a_paused_process_can_be_stopped(supervisor: Supervisor) -> None:
    running = supervisor.start(service("tree", TREE))
    supervisor.wait_ready("tree")
    psutil.Process(running.pid).suspend()
    began = time.monotonic()
    supervisor.stop()
    assert gone(running.pid)
    assert time.monotonic() - began < 3


def test_the_highest_stage_is_stopped_first(supervisor: Supervisor, tmp_path: Path) -> None:
    order = tmp_path / "order"
    says = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    open({path!r}, 'a').write({name!r})\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    for name, stage in (("a", 0), ("c", 2), ("b", 1)):
        supervisor.start(service(name, says.format(path=str(order), name=name), stage=stage))
    supervisor.wait_ready("a", "b", "c")
    supervisor.stop()
    assert order.read_text() == "cba"


def test_a_process_that_fails_is_named_with_its_last_lines_and_its_log(supervisor: Supervisor) -> None:
    supervisor.start(service("broken", "print('one'); print('the reason'); raise SystemExit(3)"))
    with pytest.raises(ProcessError, match=r"broken ended by itself \(exit code 3\)") as failure:
        supervisor.wait_ready("broken")
    assert failure.value.tail[-1] == "the reason"
    assert failure.value.log == supervisor.logs / "broken.log"


def test_a_process_killed_from_outside_is_noticed(supervisor: Supervisor) -> None:
    running = supervisor.start(service("tree", TREE))
    supervisor.wait_ready("tree")
    orphans = pids_of(running)[1:]
    os.kill(running.pid, signal.SIGKILL)
    assert wait_until(lambda: running.popen.poll() is not None)
    with pytest.raises(ProcessError, match="signal SIGKILL"):
        supervisor.check()
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)


def test_a_process_that_never_gets_ready_is_given_up(supervisor: Supervisor) -> None:
    slow = Service(
        "slow", (sys.executable, "-c", "import time; time.sleep(60)"), {}, when_logged("ready"), ready_seconds=0.3
    )
    supervisor.start(slow)
    with pytest.raises(ProcessError, match=r"slow was not ready after 0\.3 s"):
        supervisor.wait_ready("slow")


def test_a_command_gives_its_output_or_fails_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    assert supervisor.run_once("fine", (sys.executable, "-c", "print('yes')"), {}, cwd=tmp_path) == "yes\n"
    with pytest.raises(ProcessError, match="bad failed") as failure:
        supervisor.run_once("bad", (sys.executable, "-c", "raise SystemExit('no')"), {}, cwd=tmp_path)
    assert failure.value.tail == ["no"]
    with pytest.raises(ProcessError, match="did not end within"):
        supervisor.run_once(
            "long", (sys.executable, "-c", "import time; time.sleep(60)"), {}, cwd=tmp_path, seconds=0.2
        )


def test_released_processes_go_on_and_are_stopped_by_their_pid_files(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "logs", tmp_path / "run")
    running = supervisor.start(service("tree", TREE))
    supervisor.wait_ready("tree")
    pids = pids_of(running)
    supervisor.release()
    supervisor.close()
    assert not any(gone(pid) for pid in pids)
    assert [(one.name, one.alive) for one in recorded(tmp_path / "run")] == [("tree", True)]
    assert stop_recorded(tmp_path / "run") == ["tree"]
    assert all(gone(pid) for pid in pids)
    assert stop_recorded(tmp_path / "run") == []
    running.popen.wait()


def test_a_pid_that_a_stranger_has_by_now_is_left_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    record = {"pid": stranger.pid, "created": 1.0, "stage": 0, "signal": 15, "grace": 1.0, "log": "old.log"}
    (run / "old.pid").write_text(json.dumps(record))
    try:
        assert stop_recorded(run) == []
        assert stranger.poll() is None
        assert not (run / "old.pid").exists()
    finally:
        stranger.kill()
        stranger.wait()


SUPERVISING = """
import sys, time
from pathlib import Path
from devstack.processes import Supervisor
from tests.devstack.test_processes import TREE, pids_of, service
supervisor = Supervisor(Path(sys.argv[1]) / "logs", Path(sys.argv[1]) / "run")
running = supervisor.start(service("tree", TREE))
supervisor.start(service("other", "print('ready', flush=True); import time; time.sleep(600)"))
supervisor.wait_ready("tree", "other")
print(*pids_of(running)[:2], supervisor.running["other"].pid, flush=True)
time.sleep(600)
"""


def test_nothing_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    supervising = subprocess.Popen(
        [sys.executable, "-c", SUPERVISING, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert supervising.stdout is not None
    pids = [int(word) for word in supervising.stdout.readline().split()]
    assert len(pids) == 3
    supervising.kill()
    supervising.communicate()
    assert wait_until(lambda: all(gone(pid) for pid in pids), 15)
