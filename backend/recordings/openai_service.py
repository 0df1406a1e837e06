"""Requests to an OpenAI-compatible service: retried, bounded in time, and given up within a second when somebody cancels."""

import asyncio
import contextlib
import email.utils
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import openai
from openai import AsyncOpenAI

from backend.core.errors import PermanentError, TransientError
from backend.recording_settings import OpenAI
from backend.recordings.openai_refused import Refused

# Its own default is an empty OPENAI_BASE_URL's, too, which compose sets.
_OPENAI_URL = "https://api.openai.com/v1"
_WATCH_SECONDS = 0.5
_CONNECT_SECONDS = 10.0
_LONGEST_PAUSE = 20.0
_MAX_SAID = 300
_KEY = re.compile(r"\b(sk|pk|org|proj)-[\w*.-]{4,}")
_USED_UP = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_credits"}

# Debug messages of both hold what was said; the service's address is in ours.
for _name in ("openai", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """`first` pause in seconds, doubled each time; at most `tries`, and `waiting` seconds of pauses in all."""

    first: float = 1.0
    tries: int = 5
    waiting: float = 120.0


Ask = Callable[[AsyncOpenAI], Awaitable[Any]]


class OpenAIService:
    """Opens a connection per request; threads may share it."""

    def __init__(self, settings: OpenAI, patience: Patience | None = None) -> None:
        """PermanentError without a key, unless `base_url` names a server that may need none."""
        if not settings.api_key and not settings.base_url:
            raise PermanentError("OPENAI_API_KEY is not set, nor OPENAI_BASE_URL for a server that needs no key")
        self.settings = settings
        self._patience = patience or Patience()

    def ask(self, ask: Ask, watch: Callable[[], None]) -> str:
        """The body of a successful answer to `ask`, which must make one raw request.

        Calls `watch` each half second; what it raises ends the request at once. Raises Refused for what no second try mends,
        TransientError once the patience is used up, its `after` as the service named it. Not inside a running event loop.
        """
        with asyncio.Runner() as runner:
            return runner.run(self._watched(ask, watch))

    async def _watched(self, ask: Ask, watch: Callable[[], None]) -> str:
        asking = asyncio.ensure_future(self._tried(ask))
        try:
            while not asking.done():
                await asyncio.wait({asking}, timeout=_WATCH_SECONDS)
                watch()
            return asking.result()
        finally:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, PermanentError, TransientError):
                await asking

    async def _tried(self, ask: Ask) -> str:
        waited, tries = 0.0, 0
        async with self._client() as client:
            while True:
                tries += 1
                try:
                    async with asyncio.timeout(self.settings.timeout_seconds):
                        answer = await ask(client)
                    return str(answer.text)
                except (openai.APIError, TimeoutError) as fault:
                    pause = self._pause(fault, tries, waited)
                log.info("asking %s again in %.1f s", client.base_url.host, pause)
                waited += pause
                await asyncio.sleep(pause)

    def _client(self) -> AsyncOpenAI:
        return AsyncOpenAI(
            api_key=self.settings.api_key or "none",
            base_url=self.settings.base_url or _OPENAI_URL,
            timeout=openai.Timeout(self.settings.timeout_seconds, connect=_CONNECT_SECONDS),
            max_retries=0,
        )

    def _pause(self, fault: openai.APIError | TimeoutError, tries: int, waited: float) -> float:
        """Seconds until the next try; raises what the request ends with where there is none."""
        if isinstance(fault, openai.APIStatusError) and (refusal := self._refusal(fault)):
            raise refusal from fault
        named = _named_pause(fault)
        pause: float = self._own_pause(tries) if named is None else named
        # A service that hangs holds the worker each time for the whole time limit.
        most = 2 if isinstance(fault, TimeoutError | openai.APITimeoutError) else self._patience.tries
        if tries >= most or waited + pause > self._patience.waiting or _never_again(fault):
            raise TransientError(self._trouble(fault), after=named) from fault
        return pause

    def _own_pause(self, tries: int) -> float:
        doubled: float = self._patience.first * 2 ** (tries - 1)
        return min(_LONGEST_PAUSE, doubled) * random.uniform(0.75, 1.0)  # noqa: S311 - it spreads retries

    def _refusal(self, fault: openai.APIStatusError) -> Refused | None:
        """None where the service may think otherwise later."""
        status, code = fault.status_code, fault.code or fault.type
        if status == 401:
            # Its own words show part of the key.
            reason = (
                "the OpenAI service does not take the key (401): OPENAI_API_KEY is wrong, expired or another service's"
            )
        elif status == 402 or (status == 429 and code in _USED_UP):
            reason = (
                f"the credit at the OpenAI service is used up ({status}, {code}): add credit or raise the limit there, then"
                " try again"
            )
        elif status in {408, 409, 425, 429} or (status >= 500 and status != 501):
            return None
        else:
            reason = f"the OpenAI service refused ({status}): {self._said(fault)}"
        return Refused(reason, status=status, code=code)

    def _trouble(self, fault: openai.APIError | TimeoutError) -> str:
        if isinstance(fault, TimeoutError | openai.APITimeoutError):
            return f"the OpenAI service did not answer within {self.settings.timeout_seconds:g} s"
        if isinstance(fault, openai.RateLimitError):
            return f"the OpenAI service's rate limit is reached: {self._said(fault)}"
        if isinstance(fault, openai.APIStatusError):
            return f"the OpenAI service is in trouble ({fault.status_code}): {self._said(fault)}"
        return f"the OpenAI service cannot be reached: {self._clean(str(fault.__cause__ or fault))}"

    def _said(self, fault: openai.APIError) -> str:
        said = fault.body.get("message") if isinstance(fault.body, dict) else None
        return self._clean(said if isinstance(said, str) else fault.message)

    def _clean(self, said: str) -> str:
        """One printable line without keys."""
        if self.settings.api_key:
            said = said.replace(self.settings.api_key, "***")
        line = " ".join("".join(mark if mark.isprintable() else " " for mark in _KEY.sub("***", said)).split())
        return line if len(line) <= _MAX_SAID else line[: _MAX_SAID - 1] + "…"


def _never_again(fault: openai.APIError | TimeoutError) -> bool:
    return isinstance(fault, openai.APIStatusError) and fault.response.headers.get("x-should-retry") == "false"


def _named_pause(fault: openai.APIError | TimeoutError) -> float | None:
    """Seconds, as Retry-After (seconds or a date) or retry-after-ms say."""
    if not isinstance(fault, openai.APIStatusError):
        return None
    headers = fault.response.headers
    for name, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with contextlib.suppress(ValueError, OverflowError):
            seconds = float(headers.get(name, "")) / per_second
            if 0 <= seconds < 1e6:
                return seconds
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None
