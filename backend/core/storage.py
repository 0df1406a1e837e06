"""Blobs in a local folder: written under a temporary name, synced, then renamed, so a crash leaves no half file."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

_KEY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,200}$")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob; `sha256` is hexadecimal."""

    key: str
    size_bytes: int
    sha256: str


class FolderStorage:
    """Blobs below `root`, each under a key such as `calls/2026/11/ID.ogg`. All methods block."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, key: str) -> Path:
        """Where a blob lies. Raises ValueError for a key that could leave the folder."""
        if not _KEY.match(key) or ".." in key.split("/"):
            raise ValueError(f"storage key {key!r}: letters, digits, . _ - and / only, without ..")
        return self._root / key

    def put(self, key: str, source: Path) -> Blob:
        """Copy `source` to `key`, replacing what was there. Raises FileNotFoundError while there is no source."""
        target = self.path(key)
        with source.open("rb") as incoming:
            target.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=target.parent, prefix=".incoming-", delete=False) as outgoing:
                try:
                    digest = _copy(incoming, outgoing)
                    outgoing.flush()
                    os.fsync(outgoing.fileno())
                    Path(outgoing.name).replace(target)
                except BaseException:
                    Path(outgoing.name).unlink(missing_ok=True)
                    raise
        return Blob(key=key, size_bytes=target.stat().st_size, sha256=digest)


def _copy(incoming: IO[bytes], outgoing: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := incoming.read(_CHUNK):
        digest.update(chunk)
        outgoing.write(chunk)
    return digest.hexdigest()
