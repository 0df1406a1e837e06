"""Kinds of job that POST /api/tasks/{name} sends, too: once, at once, without a schedule and without a run."""

from backend.jobs.kinds import KINDS
from backend.queues.offers import Offer, offer

_ALSO = ("noop", "sleep", "http_request")


def offer_kinds() -> None:
    for name in _ALSO:
        kind = KINDS[name]
        offer(Offer(kind.task, kind.description, kind.parameters, kind.check))
