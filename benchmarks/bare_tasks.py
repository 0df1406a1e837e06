"""A plain Celery task that does nothing, for comparison: `--include=benchmarks.bare_tasks`."""

from backend.celery_app import app


@app.task(name="bare_noop", ignore_result=True)
def bare_noop() -> None:
    """Nothing."""
