"""Files in an S3-compatible object store, and which storage it is to be."""

import hashlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from backend.config import Config
from backend.core.errors import TransientError
from backend.core.storage import CHUNK, Blob, FolderStorage, Storage, check_key, file_chunks, gathered
from backend.recording_settings import ObjectStore

if TYPE_CHECKING:
    from obstore import GetOptions

log = logging.getLogger(__name__)

# Two parts on their way at once: 24 MB of memory for an upload; 10,000 parts, the most there may be, are 80 GB.
_PART = 8 << 20
_AT_ONCE = 2


def open_storage(config: Config) -> Storage:
    """The storage of the settings: the object store where there is one, else the folder."""
    settings = config.recordings.storage
    return FolderStorage(settings.folder) if settings.objects is None else ObjectStorage(settings.objects)


class ObjectStorage:
    """Blobs in a bucket. An upload that breaks off is aborted; what a killed process leaves is for the bucket's lifecycle rule."""

    def __init__(self, settings: ObjectStore, *, patience: timedelta = timedelta(seconds=20)) -> None:
        """`patience`: how long a request is tried again while the store answers with errors or not at all."""
        self._store = S3Store(
            settings.bucket,
            prefix=settings.prefix or None,
            endpoint=settings.endpoint or None,
            region=settings.region,
            access_key_id=settings.access_key,
            secret_access_key=settings.secret_key,
            client_options={
                "allow_http": settings.endpoint.startswith("http://"),
                "connect_timeout": "5s",
                "timeout": "120s",
            },
            retry_config={"max_retries": 5, "retry_timeout": patience},
        )

    async def put(self, key: str, source: Path) -> Blob:
        return await self.write(key, file_chunks(source))

    async def write(self, key: str, chunks: AsyncIterable[bytes]) -> Blob:
        check_key(key)
        digest, size = hashlib.sha256(), 0
        # Not put_async with an iterator: it waits for Python on the library's own threads, and a source that fails blocks them.
        try:
            with _explained(key):
                async with obstore.open_writer_async(
                    self._store, key, buffer_size=_PART, max_concurrency=_AT_ONCE
                ) as writer:
                    async for chunk in gathered(_told_apart(chunks)):
                        digest.update(chunk)
                        size += len(chunk)
                        await writer.write(chunk)
        except _SourceFault as fault:
            raise fault.what from fault
        return Blob(key=key, size_bytes=size, sha256=digest.hexdigest())

    async def local(self, key: str, folder: Path) -> Path:
        here = FolderStorage(folder)
        await here.write(key, self.read(key))
        return here.path(key)

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        size = await self.size(key)
        if size is None:
            raise FileNotFoundError(2, "no such blob", key)
        end = size if end is None else min(end, size)
        if start >= end:
            return
        # All of it without a range: some servers answer that one with 200, which the library takes for a fault.
        wanted: GetOptions = {} if (start, end) == (0, size) else {"range": (start, end)}
        with _explained(key):
            found = await obstore.get_async(self._store, key, options=wanted)
            async for chunk in found.stream(min_chunk_size=CHUNK):
                yield bytes(chunk)

    async def size(self, key: str) -> int | None:
        try:
            with _explained(key):
                return (await obstore.head_async(self._store, check_key(key)))["size"]
        except FileNotFoundError:
            return None

    async def delete(self, key: str) -> bool:
        was = await self.size(key) is not None
        if was:
            with _explained(key):
                await obstore.delete_async(self._store, key)
        return was

    async def clear(self, folder: str) -> int:
        gone = 0
        with _explained(folder):
            async for batch in obstore.list(self._store, f"{check_key(folder)}/"):
                await obstore.delete_async(self._store, [each["path"] for each in batch])
                gone += len(batch)
        return gone

    async def room(self) -> int | None:
        return None

    async def tidy(self, age: timedelta) -> int:  # noqa: ARG002 - the Protocol's; the bucket's lifecycle rule does it
        return 0


class _SourceFault(Exception):
    """What the source of a blob raised, on its way past the explanation of the store's own errors."""

    def __init__(self, what: OSError) -> None:
        super().__init__(str(what))
        self.what = what


async def _told_apart(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except OSError as fault:
        raise _SourceFault(fault) from fault


@contextmanager
def _explained(key: str) -> Iterator[None]:
    """The library's errors as ours. Credentials and buckets that are wrong are for people to mend: nothing is lost meanwhile."""
    try:
        yield
    except OSError as fault:
        # The library's have no number, also where it raises Python's own; those of a local file have one.
        if fault.errno is not None:
            raise
        if "NoSuchBucket" in str(fault):
            raise TransientError(f"{key}: there is no such bucket: S3_BUCKET") from fault
        if isinstance(fault, FileNotFoundError):
            raise FileNotFoundError(2, "no such blob", key) from fault
        raise _away(key, fault) from fault
    except (PermissionDeniedError, UnauthenticatedError) as fault:
        raise TransientError(f"{key}: the object store refuses our key: S3_ACCESS_KEY_ID and what it may do") from fault
    except BaseError as fault:
        raise _away(key, fault) from fault


def _away(key: str, fault: Exception) -> TransientError:
    """What the library says names the endpoint and the bucket: it is for the log, not for whoever uploads."""
    log.warning("%s: the object store: %s", key, (str(fault).splitlines() or [type(fault).__name__])[0][:500])
    return TransientError(f"{key}: the object store does not answer")
