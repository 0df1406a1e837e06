"""Results where Celery's own tools look for them."""

import json
from pathlib import Path

import pytest
import redis

from backend.celery_app import settings
from devstack.servers import PostgresServer, ValkeyServer
from tests.core.worker.running import worker


@pytest.mark.usefixtures("db")
def test_a_result_stands_under_its_tasks_id_with_state_end_and_traceback_for_a_day(
    valkey: ValkeyServer, postgres: PostgresServer, tmp_path: Path
) -> None:
    with worker(tmp_path / "worker.log", postgres.url) as run, redis.Redis(port=valkey.port, db=1) as store:
        done, failed = run("reach_the_database"), run("fail_for_good", marker=str(tmp_path / "tries"))
        assert done.get(timeout=30) == "reached"
        with pytest.raises(Exception, match="no retry can help"):
            failed.get(timeout=30)
        kept, fault = (json.loads(store.get(f"beatline:celery-task-meta-{one.id}")) for one in (done, failed))
        expires = store.ttl(f"beatline:celery-task-meta-{done.id}")
    assert (kept["status"], kept["result"], kept["traceback"]) == ("SUCCESS", "reached", None)
    assert kept["date_done"]
    assert fault["status"] == "FAILURE"
    assert "PermanentError: no retry can help" in fault["traceback"]
    assert settings.result_expires == 86_400
    assert 86_300 < expires <= 86_400
