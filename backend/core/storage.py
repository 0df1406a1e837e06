"""Where files are kept: one Protocol, and the local folder. The object store is in object_storage.py."""

import asyncio
import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Protocol

from backend.core.errors import TransientError

CHUNK = 1 << 20

_KEY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,200}$")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_INCOMING = ".incoming"
_RENAMES = 3


class StorageFull(TransientError):
    """No room is left; somebody must make some."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob; `sha256` is hexadecimal."""

    key: str
    size_bytes: int
    sha256: str


class Storage(Protocol):
    """Blobs, each under a key such as `calls/2026/11/ID.ogg`; a key holds a whole blob or none, whenever a process is killed.

    ValueError for a key that could leave the storage, FileNotFoundError for one that holds nothing, StorageFull where no room is
    left, TransientError while the storage is away. Nothing holds a whole blob in memory.
    """

    async def put(self, key: str, source: Path) -> Blob:
        """Copy a local file to `key`, replacing what was there. FileNotFoundError while there is no source."""

    async def write(self, key: str, chunks: AsyncIterable[bytes]) -> Blob:
        """Store what `chunks` gives, replacing what was there. What `chunks` raises ends it, and nothing is stored."""

    async def local(self, key: str, folder: Path) -> Path:
        """A local file with the blob's content, to read only: the blob itself, or a download in `folder`, which is the caller's."""

    def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`, that one not included."""

    async def size(self, key: str) -> int | None:
        """In bytes; None where there is no such blob."""

    async def delete(self, key: str) -> bool:
        """Whether there was one."""

    async def clear(self, folder: str) -> int:
        """Delete every blob whose key begins with `folder` and a slash; how many."""

    async def room(self) -> int | None:
        """How many bytes more may be stored; None where there is no telling."""

    async def tidy(self, age: timedelta) -> int:
        """Delete what writers that were killed have left behind for longer than `age`; how many."""


def check_key(key: str) -> str:
    """The key. Raises ValueError for one that could leave the storage."""
    if not _KEY.match(key) or ".." in key.split("/"):
        raise ValueError(f"storage key {key!r}: letters, digits, . _ - and / only, without ..")
    return key


async def join(storage: Storage, keys: Sequence[str], key: str) -> Blob:
    """Store the blobs `keys` at `key`, one behind the other; they themselves stay. FileNotFoundError where one is gone."""

    return await storage.write(key, read_all(storage, keys))


async def read_all(storage: Storage, keys: Sequence[str]) -> AsyncIterator[bytes]:
    """The bytes of all of them, one behind the other. FileNotFoundError as soon as one is gone."""
    for part in keys:
        async for chunk in storage.read(part):
            yield chunk


class FolderStorage:
    """Blobs below `root`: written in its folder `.incoming`, synced, then renamed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, key: str) -> Path:
        """Where a blob lies. Raises ValueError for a key that could leave the folder."""
        return self._root / check_key(key)

    async def put(self, key: str, source: Path) -> Blob:
        return await self.write(key, file_chunks(source))

    async def write(self, key: str, chunks: AsyncIterable[bytes]) -> Blob:
        target, digest, size = self.path(key), hashlib.sha256(), 0
        with _explained(key):
            outgoing = await asyncio.to_thread(_temporary, self._root / _INCOMING)
        try:
            async for chunk in gathered(chunks):
                with _explained(key):
                    await asyncio.to_thread(_add, outgoing, digest, chunk)
                size += len(chunk)
            with _explained(key):
                await asyncio.to_thread(_finish, outgoing, target)
        except BaseException:
            # Where the task is cancelled, its thread may write on, into a file without a name.
            await asyncio.shield(asyncio.to_thread(Path(outgoing.name).unlink, missing_ok=True))
            raise
        finally:
            outgoing.close()
        return Blob(key=key, size_bytes=size, sha256=digest.hexdigest())

    async def local(self, key: str, folder: Path) -> Path:  # noqa: ARG002 - the Protocol's; the blob itself will do
        path = self.path(key)
        if await self.size(key) is None:
            raise FileNotFoundError(errno.ENOENT, "no such blob", key)
        return path

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        with _explained(key):
            incoming = await asyncio.to_thread(self.path(key).open, "rb")
        with incoming:
            incoming.seek(start)
            async for chunk in _chunks(incoming, None if end is None else max(0, end - start)):
                yield chunk

    async def size(self, key: str) -> int | None:
        with _explained(key):
            try:
                found = await asyncio.to_thread(self.path(key).stat)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    async def delete(self, key: str) -> bool:
        with _explained(key):
            return await asyncio.to_thread(_remove, self.path(key), self._root)

    async def clear(self, folder: str) -> int:
        with _explained(folder):
            return await asyncio.to_thread(_clear, self.path(folder), self._root)

    async def room(self) -> int | None:
        with _explained("its folder"):
            return await asyncio.to_thread(_room, self._root)

    async def tidy(self, age: timedelta) -> int:
        return await asyncio.to_thread(_tidy, self._root / _INCOMING, time.time() - age.total_seconds())


async def file_chunks(path: Path) -> AsyncIterator[bytes]:
    """A local file's bytes. Raises OSError as open and read do."""
    with await asyncio.to_thread(path.open, "rb") as incoming:
        async for chunk in _chunks(incoming):
            yield chunk


async def gathered(chunks: AsyncIterable[bytes], size: int = CHUNK) -> AsyncIterator[bytes]:
    """The same bytes in chunks of at least `size`, but for the last: what arrives from the network is small."""
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        if len(held) >= size:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


@contextmanager
def _explained(key: str) -> Iterator[None]:
    """What the operating system says, as StorageFull or TransientError; a missing file stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as fault:
        kind = StorageFull if fault.errno in _FULL else TransientError
        raise kind(f"{key} in the recordings' storage: {fault.strerror or fault}") from fault


def _temporary(folder: Path) -> IO[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    return NamedTemporaryFile(dir=folder, delete=False)


def _add(outgoing: IO[bytes], digest: "hashlib._Hash", chunk: bytes) -> None:
    digest.update(chunk)
    outgoing.write(chunk)


def _finish(outgoing: IO[bytes], target: Path) -> None:
    outgoing.flush()
    os.fsync(outgoing.fileno())
    _rename(Path(outgoing.name), target)
    # The name, too, must outlive a power cut: the database will say that the blob is there.
    with suppress(FileNotFoundError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _rename(source: Path, target: Path) -> None:
    """Whoever deletes the last blob of a folder at this moment removes the folder too: then it is made again."""
    for left in reversed(range(_RENAMES)):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        except (FileNotFoundError, FileExistsError) as fault:
            # The latter, too: mkdir finds the folder, then does not.
            if not left:
                raise TransientError(f"{target.name} in the recordings' storage: {fault.strerror}") from fault
        else:
            return


async def _chunks(incoming: IO[bytes], length: int | None = None) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(incoming.read, CHUNK if length is None else min(CHUNK, length)):
        if length is not None:
            length -= len(chunk)
        yield chunk


def _remove(path: Path, root: Path) -> bool:
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    folder = path.parent
    with suppress(OSError):
        # Empty ones only, such as an upload's; one that somebody writes to at this moment is made again.
        while folder != root:
            folder.rmdir()
            folder = folder.parent
    return True


def _clear(folder: Path, root: Path) -> int:
    return sum(_remove(path, root) for path in list(folder.rglob("*")) if not path.is_dir())


def _room(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _tidy(folder: Path, before: float) -> int:
    gone = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                path.unlink()
                gone += 1
    return gone
