"""Webhooks as livekit/protocol sends them: signed, in order per room or egress, sent again a few times, then dropped."""

import base64
import hashlib
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

import aiohttp
import jwt
from google.protobuf.json_format import MessageToJson
from livekit.protocol.webhook import WebhookEvent

from backend.simulator.clock import Clock, Tasks
from backend.simulator.config import SimConfig
from backend.simulator.outgoing import Client

logger = logging.getLogger("simulator")

Fault = Literal["drop", "duplicate", "wrong_signature", "off"]
_WAITS = (1, 2, 4, 8)
MAX_AGE = 30.0  # real seconds: how long a receiver is behind does not depend on the time scale
_MAX_DEPTH = 200
_TOKEN_SECONDS = 300
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)  # a receiver that hangs holds up its queue, as in LiveKit


@dataclass(frozen=True, slots=True)
class _Posted:
    """Whether to send it again, what went wrong, and the simulated seconds that the receiver asked to wait."""

    again: bool = False
    problem: str = ""
    retry_after: float = 0.0


class Webhooks:
    def __init__(self, config: SimConfig, clock: Clock, http: Client, tasks: Tasks) -> None:
        self._config, self._clock, self._http, self._tasks = config, clock, http, tasks
        self._queues: dict[str, deque[tuple[float, WebhookEvent]]] = {}
        self.fault: Fault = "off"
        self.max_age = MAX_AGE

    def __len__(self) -> int:
        """Events that wait, those under way included."""
        return sum(len(queue) for queue in self._queues.values())

    def send(self, key: str, event: WebhookEvent) -> None:
        """Queue the event behind those of the same key: the room's name, or the egress id."""
        event.id = f"EV_{uuid4().hex[:12]}"
        event.created_at = int(time.time())
        if self.fault == "drop":
            return
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
            self._tasks.spawn(self._drain(key, queue))
        if len(queue) < _MAX_DEPTH:
            queue.append((time.monotonic(), event))

    async def _drain(self, key: str, queue: deque[tuple[float, WebhookEvent]]) -> None:
        while queue:
            queued_at, event = queue[0]
            if time.monotonic() - queued_at <= self.max_age:
                await self._deliver(event)
            else:
                logger.warning("Webhook %s %s dropped: too old", event.event, event.id)
            queue.popleft()
        del self._queues[key]

    async def _deliver(self, event: WebhookEvent) -> None:
        body = MessageToJson(event, indent=None).encode()
        for _ in range(2 if self.fault == "duplicate" else 1):
            await self._post_with_retries(event, body)

    async def _post_with_retries(self, event: WebhookEvent, body: bytes) -> None:
        for wait in (*_WAITS, None):
            posted = await self._post(body)
            if wait is None or not posted.again:
                if posted.problem:
                    logger.warning("Webhook %s %s not delivered: %s", event.event, event.id, posted.problem)
                return
            await self._clock.sleep(posted.retry_after or wait)

    async def _post(self, body: bytes) -> _Posted:
        headers = self._headers(body)
        try:
            async with self._http.post(
                self._config.webhook_url, data=body, headers=headers, timeout=_NO_TIMEOUT
            ) as answer:
                status, later = answer.status, answer.headers.get("Retry-After", "")
        except (aiohttp.ClientError, OSError) as fault:
            return _Posted(again=True, problem=str(fault) or type(fault).__name__)
        if status < 300:
            return _Posted()
        again = status == 429 or (status >= 500 and status != 501)
        return _Posted(again, f"HTTP {status}", float(later) if later.isdecimal() else 0.0)

    def _headers(self, body: bytes) -> dict[str, str]:
        now = int(time.time())
        claims = {
            "iss": self._config.api_key,
            "nbf": now,
            "exp": now + _TOKEN_SECONDS,
            "sha256": base64.b64encode(hashlib.sha256(body).digest()).decode(),
        }
        secret = self._config.api_secret
        if self.fault == "wrong_signature":
            secret = secret[::-1] + "x"
        return {
            # The bare token: LiveKit writes no "Bearer " here.
            "Authorization": jwt.encode(claims, secret, algorithm="HS256"),
            "Content-Type": "application/webhook+json",
            "User-Agent": "LiveKit",
        }
