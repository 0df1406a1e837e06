"""The words of notifications: channels, states, digests."""

from collections.abc import Iterable
from enum import StrEnum


class Channel(StrEnum):
    """Ways out of the house. The inbox is none: there every notification of a user stands by itself."""

    EMAIL = "email"
    WEBHOOK = "webhook"
    APPRISE = "apprise"


class Kind(StrEnum):
    """What a notification is: something to say, a digest of such, or one text to many addresses."""

    MESSAGE = "message"
    DIGEST = "digest"
    BULK = "bulk"


class DeliveryState(StrEnum):
    """Of one notification on one channel.

    PENDING is due at `due_at`, HELD waits for a digest. The others are ends: SENT, DIGESTED (told in a digest), SKIPPED (the
    channel is off, or not set up), DEAD (refused for good, or tried too often).
    """

    PENDING = "pending"
    HELD = "held"
    SENT = "sent"
    DIGESTED = "digested"
    SKIPPED = "skipped"
    DEAD = "dead"


class Digest(StrEnum):
    """How a user's notifications are gathered."""

    OFF = "off"
    HOURLY = "hourly"
    DAILY = "daily"


def sql_list(values: Iterable[str]) -> str:
    return "(" + ",".join(f"'{value}'" for value in values) + ")"
