"""Whatever `apprise` reaches: chat, push, SMS services, by the URLs of the configuration."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import apprise

from backend.core.errors import PermanentError, TransientError
from backend.notifications.channels.base import Line, Message, unconnected

SECONDS = 45.0


class AppriseChannel:
    """Targets by name. Services differ: of an error there is nothing to learn but that it was one, and none of them knows an id by
    which to tell a copy."""

    def __init__(self, urls: Mapping[str, str], *, seconds: float = SECONDS) -> None:
        self._urls, self._seconds = urls, seconds

    def open(self) -> AbstractAsyncContextManager[Line]:
        return unconnected(self)

    async def send(self, message: Message) -> str:
        url = self._urls.get(message.address)
        if url is None:
            raise PermanentError(f"apprise: NOTIFY_APPRISE_URLS names no {message.address!r} any more")
        target = apprise.Apprise(asset=apprise.AppriseAsset(secure_logging=True))
        # The first one loads a hundred plug-ins.
        if not await asyncio.to_thread(target.add, url):
            raise PermanentError(f"apprise: the URL of {message.address!r} is none that apprise understands")
        try:
            async with asyncio.timeout(self._seconds):
                sent = await target.async_notify(body=message.text, title=message.subject)
        except TimeoutError as fault:
            raise TransientError(f"apprise: {message.address}: no answer within {self._seconds:g} s") from fault
        if not sent:
            raise TransientError(f"apprise: {message.address}: not delivered; the worker's log says more")
        return f"apprise: {message.address}"
