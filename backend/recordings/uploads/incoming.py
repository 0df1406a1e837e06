"""The bytes of an upload on their way in: counted, looked at, cut into pieces. Never more than a chunk of them in memory."""

import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from backend.core.errors import AppError, TooLarge
from backend.recordings.sound import signatures

# Below this many bytes a file's first part says too little.
_LEAST = 512


class ClientGone(AppError):
    """Whoever sends has gone, or has sent nothing for too long. 400, for one who still listens."""

    status, code = 400, "cut_off"


class Mismatch(AppError):
    """What came is not what was promised: the checksum of a part differs (tus, 460)."""

    status, code = 460, "checksum_mismatch"


def too_large(limit: int) -> TooLarge:
    return TooLarge(f"an upload may have {limit / 1_000_000:g} MB at most (UPLOAD_MAX_MB)", max_bytes=limit)


async def looked_at(chunks: AsyncIterable[bytes], limit: int, *, whole: bool = True) -> AsyncIterator[bytes]:
    """The same bytes. Invalid (422) as soon as they show to be no recording, TooLarge (413) beyond `limit`.

    `whole`: nothing more will follow; otherwise few bytes say nothing yet.
    """
    head, size, looked = bytearray(), 0, False
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        if looked:
            yield chunk
            continue
        head += chunk
        if len(head) >= signatures.HEAD:
            looked = True
            signatures.check(bytes(head))
            yield bytes(head)
    if not looked:
        if whole or len(head) >= _LEAST:
            signatures.check(bytes(head))
        yield bytes(head)


async def kept_alive(
    chunks: AsyncIterable[bytes], beat: Callable[[], Awaitable[None]], every: float
) -> AsyncIterator[bytes]:
    """The same bytes; `beat` is called every so many seconds, while some come."""
    last = time.monotonic()
    async for chunk in chunks:
        if time.monotonic() - last >= every:
            last = time.monotonic()
            await beat()
        yield chunk


@dataclass
class Feed:
    """Bytes that are cut into pieces. `gone` is why they ended before the sender said so."""

    chunks: AsyncIterator[bytes]
    ended: bool = False
    gone: ClientGone | None = None

    async def piece(self, most: int | None, seconds: float) -> AsyncIterator[bytes]:
        """The next bytes: about `most` of them, or what comes in `seconds`; None: all of them, however long they take."""
        size, end = 0, time.monotonic() + seconds
        while most is None or (size < most and time.monotonic() < end):
            try:
                chunk = await anext(self.chunks)
            except StopAsyncIteration:
                self.ended = True
                return
            except ClientGone as gone:
                self.ended, self.gone = True, gone
                return
            size += len(chunk)
            yield chunk
