"""The line between us and a database, which can be cut and mended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Line:
    """Forwards to `target`; while it is cut, what was connected is broken and nobody gets through."""

    target: tuple[str, int]
    port: int = 0
    is_cut: bool = False
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        self.is_cut = True
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        self.is_cut = False

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        there_reader, there = await asyncio.open_connection(*self.target)
        self._open |= {writer, there}
        await asyncio.gather(_copy(reader, there), _copy(there_reader, writer))
        self._open -= {writer, there}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def line_to(url: str) -> AsyncIterator[tuple[Line, str]]:
    """The line, and the URL by which to go over it."""
    parts = urlsplit(url)
    line = Line((parts.hostname or "127.0.0.1", parts.port or 5432))
    server = await asyncio.start_server(line.forward, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line, url.replace(f":{parts.port}/", f":{line.port}/")
    finally:
        line.cut()
        server.close()
        await asyncio.sleep(0.05)
