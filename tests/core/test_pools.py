"""Pools: how one is chosen, which are refused, and what shares a process with work that does not end."""

from pathlib import Path

import pytest
from celery.signals import worker_init

from backend.core.db import Database
from devstack.servers import PostgresServer, ValkeyServer
from tests.core.worker.running import worker


def test_a_neighbour_of_what_will_not_be_cancelled_is_delivered_again(
    valkey: ValkeyServer, postgres: PostgresServer, tmp_path: Path, db: Database
) -> None:
    with worker(tmp_path / "worker.log", postgres.url, "-P", "threads") as run:
        neighbour = run("come_twice", marker=str(tmp_path / "starts"))
        with pytest.raises(Exception, match="TimeLimitExceeded"):
            run("refuse_to_end", marker=str(tmp_path / "turns")).get(timeout=30)
        assert neighbour.get(timeout=30) == "done"
    assert (tmp_path / "starts").read_text() == "xx"


def test_the_environment_chooses_the_pool(valkey: ValkeyServer, postgres: PostgresServer, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with worker(log, postgres.url, CELERY_WORKER_POOL="threads", CELERY_WORKER_CONCURRENCY="3") as run:
        assert run("reach_the_database").get(timeout=30) == "reached"
    assert "concurrency: 2 (thread)" in log.read_text()


class Worker:
    """What the signal of a worker's start is sent with."""

    def __init__(self, pool: str) -> None:
        self.pool_cls = type("TaskPool", (), {"__module__": f"celery.concurrency.{pool}"})


@pytest.mark.parametrize("pool", ["eventlet", "gevent"])
def test_a_pool_of_green_threads_is_refused(pool: str) -> None:
    with pytest.raises(SystemExit, match=f"the pool {pool} cannot run async tasks; use one of prefork, solo, threads"):
        worker_init.send(sender=Worker(pool))
