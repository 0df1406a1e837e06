"""Calls to URLs that people chose: only to addresses that may be called, and never more of an answer than is needed."""

import asyncio
import json
import time
from dataclasses import dataclass

import httpcore
import httpx

from backend.core.addresses import Resolver
from backend.core.errors import PermanentError, TransientError
from backend.core.outbound import CheckedTransport
from backend.jobs.kinds import HttpRequestParameters, statuses

# How much of an answer is read, and how much of that is kept.
READ_BYTES = 1024 * 1024
KEPT_BYTES = 64 * 1024
_MAX_HOPS = 5
_LONGEST_WAIT = 3600.0
_TRY_AGAIN = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    url: str
    body: bytes
    truncated: bool
    retry_after: float | None


async def call(wish: HttpRequestParameters, *, resolve: Resolver) -> dict[str, object]:
    """Make the request and check the answer: {status, url, elapsed_ms, bytes, truncated, body}.

    `resolve` gives the address for each connection, redirects included, or refuses it.

    TransientError: no connection, too slow, or a status from 500, 408, 425, 429 that was not expected; PermanentError: another
    unexpected status, a text that is missing, an address that may not be called.
    """
    began = time.perf_counter()
    try:
        async with asyncio.timeout(wish.timeout_seconds):
            answer = await _answer(wish, resolve)
    except (TimeoutError, httpcore.TimeoutException) as fault:
        raise TransientError(f"{wish.url}: no answer within {wish.timeout_seconds:g} s") from fault
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as fault:
        raise TransientError(f"{wish.url}: {fault or type(fault).__name__}") from fault
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as fault:
        raise PermanentError(f"{wish.url}: {fault}") from fault
    _check(wish, answer)
    return {
        "status": answer.status,
        "url": answer.url,
        "elapsed_ms": round((time.perf_counter() - began) * 1000),
        "bytes": len(answer.body),
        "truncated": answer.truncated,
        "body": _text(answer.body[:KEPT_BYTES]),
    }


def _text(body: bytes) -> str:
    # PostgreSQL's jsonb does not take U+0000.
    return body.decode("utf-8", "replace").replace("\0", "\ufffd")


def _content(wish: HttpRequestParameters) -> tuple[bytes | None, dict[str, str]]:
    if wish.body is None:
        return None, {}
    if isinstance(wish.body, str):
        return wish.body.encode(), {"content-type": "text/plain; charset=utf-8"}
    return json.dumps(wish.body).encode(), {"content-type": "application/json"}


async def _answer(wish: HttpRequestParameters, resolve: Resolver) -> _Answer:
    content, headers = _content(wish)
    # `identity`: a small answer must not unpack to a large one.
    headers |= {"accept-encoding": "identity", "user-agent": "Beatline"}
    headers |= {name.lower(): value for name, value in wish.headers.items()}
    transport = CheckedTransport(resolve)
    async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=wish.timeout_seconds) as client:
        request: httpx.Request | None = client.build_request(wish.method, wish.url, content=content, headers=headers)
        hops = 0
        while request is not None:
            response = await client.send(request, stream=True)
            try:
                request = response.next_request if wish.follow_redirects else None
                if request is None:
                    return await _read(response)
            finally:
                await response.aclose()
            hops += 1
            _check_hop(wish, request.url, hops)
    raise AssertionError("a request is answered or redirected")


def _check_hop(wish: HttpRequestParameters, url: httpx.URL, hops: int) -> None:
    if hops > _MAX_HOPS:
        raise PermanentError(f"{wish.url}: more than {_MAX_HOPS} redirects")
    if url.scheme not in {"http", "https"} or url.userinfo:
        raise PermanentError(f"{wish.url}: redirected to a URL that may not be called")


async def _read(response: httpx.Response) -> _Answer:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > READ_BYTES:
            break
    after = response.headers.get("retry-after", "")
    return _Answer(
        status=response.status_code,
        url=str(response.url),
        body=bytes(body[:READ_BYTES]),
        truncated=len(body) > READ_BYTES,
        retry_after=min(_LONGEST_WAIT, float(after)) if after.isascii() and after.isdigit() else None,
    )


def _check(wish: HttpRequestParameters, answer: _Answer) -> None:
    if not any(low <= answer.status <= high for low, high in statuses(wish.expect_status)):
        problem = f"{answer.url}: status {answer.status}, expected {wish.expect_status}: {_text(answer.body[:200])!r}"
        if answer.status >= 500 or answer.status in _TRY_AGAIN:
            raise TransientError(problem, after=answer.retry_after)
        raise PermanentError(problem)
    if wish.expect_text is not None and wish.expect_text not in answer.body.decode("utf-8", "replace"):
        raise PermanentError(f"{answer.url}: the answer does not hold {wish.expect_text!r}")
