"""The door of the queues domain."""

from backend.queues.cleaning import clean
from backend.queues.draining import drain
from backend.queues.letters import count_letters, discard, list_letters, read_letter, requeue, requeue_many
from backend.queues.offers import Offer, checked, every_offer, offer, offered
from backend.queues.sending import Sent, read, send
from backend.queues.watching import check_health, check_workers, list_workers, read_health, read_queues

__all__ = [
    "Offer",
    "Sent",
    "check_health",
    "check_workers",
    "checked",
    "clean",
    "count_letters",
    "discard",
    "drain",
    "every_offer",
    "list_letters",
    "list_workers",
    "offer",
    "offered",
    "read",
    "read_health",
    "read_letter",
    "read_queues",
    "requeue",
    "requeue_many",
    "send",
]
