"""`/metrics` for Prometheus, made from the rows and the broker at each scrape: any replica of the API gives the same answer.

No label names a schedule, a run or a person: those are for the API.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backend.core.db import Session
from backend.core.web import DatabaseDep, Viewer
from backend.jobs import service as jobs
from backend.jobs.states import RunState
from backend.queues import service as queues
from backend.queues.schemas import HealthRead, LetterFilter, QueuesRead, WorkerRead
from backend.queues.states import LetterState

router = APIRouter(tags=["health"], dependencies=[Viewer])

# Counting more would be a scan of the table; whoever has so many knows.
_MOST_LETTERS = 100_000


def _gauge(name: str, says: str, values: Iterable[tuple[dict[str, str], float | int | None]]) -> Metric:
    """A gauge with its samples, whose labels are the same in each; unknown values are left out."""
    given = list(values)
    family = GaugeMetricFamily(f"beatline_{name}", says, labels=list(given[0][0]) if given else [])
    for labels, value in given:
        if value is not None:
            family.add_metric(list(labels.values()), float(value))
    return family


def _of_queues(found: QueuesRead) -> Iterator[Metric]:
    yield _gauge("broker_up", "1 while the broker answers.", [({}, int(found.broker_error is None))])
    yield _gauge(
        "queue_messages",
        "Messages of a queue.",
        [
            ({"queue": one.name, "state": state}, value)
            for one in found.queues
            for state, value in (("ready", one.ready), ("unacknowledged", one.unacknowledged))
        ],
    )
    yield _gauge(
        "queue_workers", "Live workers that read a queue.", [({"queue": q.name}, q.workers) for q in found.queues]
    )
    yield _gauge(
        "queue_runs_waiting",
        "Tracked runs that are due and not begun.",
        [({"queue": one.name}, one.runs_waiting) for one in found.queues],
    )


def _of_workers(found: list[WorkerRead]) -> Iterator[Metric]:
    states = (("alive", sum(one.alive for one in found)), ("missing", sum(not one.alive for one in found)))
    yield _gauge("workers", "Workers by whether they answer.", [({"state": name}, count) for name, count in states])


def _of_health(found: HealthRead) -> Iterator[Metric]:
    yield _gauge("health_check_age_seconds", "Age of the newest periodic check.", [({}, found.age_seconds)])
    yield _gauge(
        "health_check_ok",
        "What the newest periodic check found.",
        [({"part": name}, int(part.ok)) for name, part in found.parts.items()],
    )


async def _of_letters(session: Session) -> Metric:
    counts = [
        (
            {"state": state.value},
            await queues.count_letters(session, LetterFilter(), state=state, at_most=_MOST_LETTERS),
        )
        for state in LetterState
    ]
    return _gauge("dead_letters", "Tasks that have ended for good, by what was decided about them.", counts)


def _of_jobs(found: jobs.Measures) -> Iterator[Metric]:
    yield _gauge(
        "runs",
        "Tracked runs by state; those that have ended: within the last five minutes.",
        [({"state": state.value}, found.runs.get(state, 0)) for state in RunState],
    )
    for name, says, lag in (
        ("dispatch_lag_seconds", "From the scheduled time to the message.", found.sent),
        ("claim_lag_seconds", "From the scheduled time to a worker's start.", found.started),
    ):
        values = (("0.5", lag.median), ("0.99", lag.p99))
        yield _gauge(
            name, f"{says} Runs that ended in the last five minutes.", [({"quantile": q}, v) for q, v in values]
        )
    yield _gauge(
        "schedules",
        "Schedules by whether they are active.",
        [({"active": word}, found.schedules.get(active, 0)) for word, active in (("true", True), ("false", False))],
    )
    yield _gauge(
        "schedules_overdue_seconds", "How long the most overdue schedule waits.", [({}, found.overdue_seconds)]
    )
    yield _gauge(
        "alerts_open",
        "Open alerts by kind.",
        [({"kind": kind}, found.alerts.get(kind, 0)) for kind in ("late", "missed", "failing")],
    )


class _Found(Collector):
    """What was gathered, in the form in which prometheus_client asks for it."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def read_metrics(db: DatabaseDep) -> Any:
    """Queues, workers, runs, schedules, alerts and dead letters, in Prometheus's text format."""
    families = list(_of_queues(await queues.read_queues(db)))
    async with db.transaction() as session:
        families += _of_workers(await queues.list_workers(session))
        families += _of_health(await queues.read_health(session))
        families.append(await _of_letters(session))
        families += _of_jobs(await jobs.measure(session))
    registry = CollectorRegistry()
    registry.register(_Found(families))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
