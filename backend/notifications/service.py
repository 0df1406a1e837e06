"""The door of the notifications domain."""

from backend.notifications.asking import ask_bulk, ask_notification
from backend.notifications.bulk import read_bulk, resume_stranded, send_bulk
from backend.notifications.channels.base import ALERTS
from backend.notifications.delivering import deliver
from backend.notifications.digesting import make_digests
from backend.notifications.preferences import read_preferences, set_preferences
from backend.notifications.reading import (
    list_deliveries,
    list_inbox,
    mark_all_read,
    mark_read,
    read_notification,
    retry,
)
from backend.notifications.rendering import OWN, Content, every_template, render
from backend.notifications.sending import Told, tell
from backend.notifications.states import Channel
from backend.notifications.writing import SUBJECT, Noted, Target, notify

__all__ = [
    "ALERTS",
    "OWN",
    "SUBJECT",
    "Channel",
    "Content",
    "Noted",
    "Target",
    "Told",
    "ask_bulk",
    "ask_notification",
    "deliver",
    "every_template",
    "list_deliveries",
    "list_inbox",
    "make_digests",
    "mark_all_read",
    "mark_read",
    "notify",
    "read_bulk",
    "read_notification",
    "read_preferences",
    "render",
    "resume_stranded",
    "retry",
    "send_bulk",
    "set_preferences",
    "tell",
]
