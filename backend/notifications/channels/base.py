"""What a channel is: a way to hand one message to one address."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from backend.notifications.states import Channel

# The address of the operator's own webhook; its URL stands in the environment.
ALERTS = "alerts"


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent. `id` is the same for every try, so that a receiver can tell a copy; `user_id` is None outside the house."""

    id: UUID
    notification_id: UUID
    address: str
    subject: str
    text: str
    html: str | None
    payload: Mapping[str, Any] | None
    created_at: datetime
    user_id: UUID | None = None
    webhook_url: str = ""
    bulk: bool = False


class Line(Protocol):
    """A channel that is open, for several messages one after the other."""

    async def send(self, message: Message) -> str:
        """Hand it over; what the other side said, for people to read.

        TransientError: not now; its `after` is the wait that the other side asked for. PermanentError: never. After an error it
        may have been sent all the same. No error text names a secret.
        """
        ...


class Opener(Protocol):
    """A channel that is set up."""

    def open(self) -> AbstractAsyncContextManager[Line]:
        """Nothing is connected before the first message."""
        ...


Channels = Mapping[Channel, Opener]


@asynccontextmanager
async def unconnected(line: Line) -> AsyncIterator[Line]:
    """For channels that connect anew for each message."""
    yield line
