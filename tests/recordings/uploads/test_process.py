"""A server of its own: how much memory an upload takes, and what is left when it is killed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from backend.config import Config, load
from backend.core.db import Database
from backend.core.object_storage import open_storage
from backend.recordings.uploads import accepting
from backend.recordings.uploads.accepting import Intake
from devstack.readiness import free_port
from devstack.servers import PostgresServer
from tests.fixtures.people import add_session, add_user
from tests.fixtures.product import eventually
from tests.recordings.uploads import files

URL = "/api/recordings"
MB = 1_000_000


@contextmanager
def server(environ: dict[str, str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "uvicorn", "backend.main:app", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
def environ(postgres: PostgresServer, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": postgres.url,
        "BEATLINE_API_URL": f"http://127.0.0.1:{free_port()}",
        "RECORDINGS_DIR": str(tmp_path / "recordings"),
    }


@asynccontextmanager
async def asking(config: Config, token: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that is up."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=config.api_url, headers=headers, timeout=60) as client:

        async def up() -> bool:
            try:
                return (await client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(up, within=60)
        yield client


async def _many(megabytes: int, first: bytes = b"") -> AsyncIterator[bytes]:
    yield first
    for number in range(megabytes):
        yield number.to_bytes(4) * (MB // 4)


async def test_a_large_upload_takes_no_more_memory_than_a_small_one(
    db: Database, environ: dict[str, str], tmp_path: Path
) -> None:
    config = load(environ)
    _, token = await add_session(db, config, await add_user(db, "vera"))
    with server(environ, int(config.api_url.rpartition(":")[2])) as process:
        async with asking(config, token) as client:
            assert (await client.post(URL, content=files.wav())).status_code == 201
            before = psutil.Process(process.pid).memory_info().rss
            peak = asyncio.create_task(_peak(process.pid))
            answer = await client.post(URL, content=_many(300, files.wav()))
            assert answer.status_code == 201, answer.text
            size = answer.json()["size_bytes"]
            headers = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
            again = await client.post(
                URL, content=_many(200, files.wav(seed=2)), headers=headers | {"Upload-Length": str(size - 100 * MB)}
            )
            assert (again.status_code, again.headers["Beatline-Duplicate"]) == (201, "false")
            peak.cancel()
            grown = max(await peak) - before
    assert size > 300 * MB
    assert grown < 60 * MB
    assert sum(path.stat().st_size for path in (tmp_path / "recordings").rglob("*") if path.is_file()) > 500 * MB


async def _peak(pid: int) -> list[int]:
    seen = [0]
    try:
        while True:
            seen.append(psutil.Process(pid).memory_info().rss)
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        return seen


async def test_a_server_that_is_killed_leaves_an_upload_that_goes_on(
    db: Database, environ: dict[str, str], tmp_path: Path
) -> None:
    config = load(environ)
    port = int(config.api_url.rpartition(":")[2])
    sound = files.wav(seconds=30)
    tus = {"Tus-Resumable": "1.0.0"}
    part = tus | {"Content-Type": "application/offset+octet-stream"}
    _, token = await add_session(db, config, await add_user(db, "vera"))
    with server(environ, port) as process:
        async with asking(config, token) as client:
            where = (await client.post(URL, headers=tus | {"Upload-Length": str(len(sound))})).headers["Location"]
            sent = await client.patch(where, content=sound[:90_000], headers=part | {"Upload-Offset": "0"})
            assert sent.status_code == 204
            stuck = [
                await _hanging(client, "PATCH", where, sound[90_000:180_000], part | {"Upload-Offset": "90000"}),
                await _hanging(client, "POST", URL, sound[:90_000], {}),
            ]
            await eventually(lambda: _has_half_files(tmp_path, 2))
            process.send_signal(signal.SIGKILL)
            for writer in stuck:
                writer.transport.abort()
    with server(environ, port):
        async with asking(config, token) as client:
            assert (await client.head(where, headers=tus)).headers["Upload-Offset"] == "90000"
            rest = await client.patch(where, content=sound[90_000:], headers=part | {"Upload-Offset": "90000"})
            assert rest.headers["Beatline-Duplicate"] == "false"
            read = await client.get(f"{URL}/{rest.headers['Beatline-Recording']}/audio")
            assert read.content == sound
    await _swept(db, config)
    assert [path.suffix for path in (tmp_path / "recordings").rglob("*") if path.is_file()] == [""]


async def _hanging(
    client: httpx.AsyncClient, method: str, path: str, content: bytes, headers: dict[str, str]
) -> asyncio.StreamWriter:
    """A request that has sent `content`, and will never send all that it promised."""
    headers = {"Host": "x", "Authorization": client.headers["Authorization"], "Content-Length": "400000"} | headers
    _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"{head}\r\n".encode() + content)
    await writer.drain()
    return writer


async def _swept(db: Database, config: Config) -> None:
    """A day later."""
    for half in (config.recordings.storage.folder / ".incoming").iterdir():
        os.utime(half, (0, 0))
    intake = Intake(db, open_storage(config), replace(config.recordings.uploads, unfinished_hours=1))
    swept = await accepting.sweep(intake)
    assert (swept["completed"], swept["tidied"]) == (0, 2)
    assert intake.lasting == timedelta(hours=1)


async def _has_half_files(folder: Path, number: int) -> bool:
    incoming = folder / "recordings" / ".incoming"
    return incoming.is_dir() and len(list(incoming.iterdir())) == number
