"""Webhooks by the rules of Standard Webhooks (standardwebhooks.com): signed, with an id that is the same for every try."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import urlsplit

import httpcore
import httpx

from backend.config import Config
from backend.core.addresses import resolve
from backend.core.clock import utc_now
from backend.core.errors import PermanentError, TransientError
from backend.core.outbound import CheckedTransport
from backend.notifications.channels.base import ALERTS, Line, Message, unconnected
from backend.notifications.signing import key_of, sign

SECONDS = 20.0
_SETTING = "NOTIFY_WEBHOOK_ALLOW_PRIVATE"
_LONGEST_WAIT = 86_400.0
_TRY_AGAIN = {408, 425, 429}


class WebhookChannel:
    """POSTs to a user's own URL, or to the operator's for `alerts`, which may lead anywhere. Redirects are not followed."""

    def __init__(self, config: Config, *, seconds: float = SECONDS) -> None:
        self._alerts, self._secret, self._seconds = config.alert_webhook_url, config.notify.webhook_secret, seconds
        self._allow_private = config.notify.webhook_allow_private

    def open(self) -> AbstractAsyncContextManager[Line]:
        return unconnected(self)

    async def send(self, message: Message) -> str:
        url = self._alerts if message.address == ALERTS else message.webhook_url
        if not url:
            raise PermanentError("webhook: no URL is set any more")
        if message.user_id is not None and not self._secret:
            raise PermanentError("webhook: NOTIFY_WEBHOOK_SECRET is not set any more")
        key = key_of(self._secret, message.user_id)
        body = _body(message)
        headers = _headers(message, key, body)
        try:
            async with asyncio.timeout(self._seconds), self._client(message.address) as client:
                return await _post(client, url, body, headers)
        except (TimeoutError, httpcore.TimeoutException, httpx.TimeoutException) as fault:
            raise TransientError(f"webhook: no answer within {self._seconds:g} s") from fault
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpcore.UnsupportedProtocol) as fault:
            raise PermanentError("webhook: the URL cannot be called") from fault
        except (httpx.TransportError, httpcore.NetworkError, httpcore.ProtocolError, OSError) as fault:
            # The URL may hold a secret, so that no error names more of it than its host.
            raise TransientError(f"webhook: {_host(url)}: {type(fault).__name__}") from fault

    def _client(self, address: str) -> httpx.AsyncClient:
        if address == ALERTS:
            # The operator's own setting: it may lead anywhere, by a proxy of the environment, too.
            return httpx.AsyncClient(timeout=self._seconds)
        allowed = partial(resolve, allow_private=self._allow_private, setting=_SETTING)
        return httpx.AsyncClient(transport=CheckedTransport(allowed), trust_env=False, timeout=self._seconds)


def _host(url: str) -> str:
    return urlsplit(url).hostname or "?"


def _body(message: Message) -> bytes:
    content = message.payload
    if content is None:
        content = {
            "type": "notification",
            "timestamp": message.created_at.astimezone(UTC).isoformat(),
            "data": {"id": str(message.notification_id), "subject": message.subject, "text": message.text},
        }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _headers(message: Message, key: bytes, body: bytes) -> dict[str, str]:
    name, now = f"msg_{message.id.hex}", int(time.time())
    headers = {
        "content-type": "application/json",
        # `identity`: a small answer must not unpack to a large one.
        "accept-encoding": "identity",
        "user-agent": "Beatline",
        "webhook-id": name,
        "webhook-timestamp": str(now),
    }
    if key:
        headers["webhook-signature"] = sign(key, name, now, body)
    return headers


async def _post(client: httpx.AsyncClient, url: str, body: bytes, headers: dict[str, str]) -> str:
    request = client.build_request("POST", url, content=body, headers=headers)
    # Nobody reads the answer's body: it may be endless.
    response = await client.send(request, stream=True, follow_redirects=False)
    await response.aclose()
    text = f"webhook: status {response.status_code}"
    if response.is_success:
        return text
    if response.status_code >= 500 or response.status_code in _TRY_AGAIN:
        raise TransientError(text, after=_retry_after(response.headers.get("retry-after", "")))
    if response.has_redirect_location:
        raise PermanentError(f"{text}: redirects are not followed")
    raise PermanentError(text)


def _retry_after(value: str) -> float | None:
    """RFC 9110: seconds, or a date."""
    readers: tuple[Callable[[str], float], ...] = (_seconds, _until)
    for read in readers:
        try:
            return min(_LONGEST_WAIT, max(0.0, read(value)))
        except (ValueError, OverflowError):
            continue
    return None


def _seconds(value: str) -> float:
    if not (value.isascii() and value.isdigit()):
        raise ValueError(value)
    return float(value)


def _until(value: str) -> float:
    at = parsedate_to_datetime(value)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - utc_now().timestamp()
