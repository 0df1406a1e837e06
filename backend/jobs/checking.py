"""The scheduling engine as a task: what every Beat does all the time, once, in a worker."""

from backend.celery_app import app
from backend.core.errors import TransientError
from backend.core.runtime import Runtime, task
from backend.scheduling.engine import NOT_READY, Engine, Settings
from backend.scheduling.publisher import Publisher


@task(max_retries=0, time_limit=60)
async def check_job_schedules(runtime: Runtime) -> dict[str, object]:
    """Claim what is due, publish what waits, sweep; counts. Harmless beside any number of Beats, and enough without one."""
    config = runtime.config
    settings = Settings(
        config.database_url,
        lease_seconds=config.run_lease_seconds,
        queue_timeout=config.queue_timeout_seconds,
        retention_days=config.run_retention_days,
    )
    engine = Engine(settings, Publisher(app))
    try:
        return dict(await engine.run_once())
    except NOT_READY as fault:
        raise TransientError(f"database away: {fault or type(fault).__name__}") from fault
    finally:
        await engine.close()
