"""Uploads in one request that do not end as they should: nothing of them stays."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backend.core.clock import utc_now
from backend.core.storage import FolderStorage
from backend.recordings.models import Upload
from backend.recordings.tasks import cleanup_uploads
from backend.recordings.uploads import accepting
from tests.fixtures.product import eventually
from tests.fixtures.small_disk import small_disk
from tests.recordings.uploads import files
from tests.recordings.uploads.conftest import Bench

URL = "/api/recordings"


async def test_a_client_that_goes_away_leaves_nothing_behind(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    port = bench.product.api_port
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST {URL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {vera.token}\r\nContent-Length: {len(sound)}\r\n\r\n"
    )
    writer.write(head.encode() + sound[:20_000])
    await writer.drain()

    async def begun() -> bool:
        return len(await bench.uploads()) == 1

    await eventually(begun)
    where = f"{URL}/uploads/{(await bench.uploads())[0].id}"
    part = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    assert (await vera.client.patch(where, content=sound, headers=part)).status_code == 404
    assert (await vera.client.head(where, headers=part)).status_code == 404
    writer.transport.abort()

    async def gone() -> bool:
        return await bench.uploads() == [] and bench.files() == []

    await eventually(gone)
    assert await bench.recordings() == []


FORM = {"Content-Type": "multipart/form-data; boundary=b"}
HEAD = b"--b\r\nContent-Disposition: form-data; name=file; filename=a.wav\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "tail", "given", "status"),
    [
        (b"", b"", {}, 410),
        (b"", b"", {"params": {"sha256": "0" * 64}}, 422),
        (HEAD, b"\r\n--b--\r\n", {"headers": FORM}, 410),
        (HEAD, b"", {"headers": FORM}, 422),
    ],
    ids=["as it should", "another checksum", "a form", "half a form"],
)
async def test_an_upload_that_is_deleted_on_its_way_makes_no_recording_and_leaves_no_file(
    bench: Bench, sound: bytes, head: bytes, tail: bytes, given: dict[str, Any], status: int
) -> None:
    vera = await bench.people.viewer()
    begun, deleted = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield head + sound[:20_000]
        begun.set()
        await deleted.wait()
        yield sound[20_000:] + tail

    going = asyncio.create_task(vera.client.post(URL, content=slowly(), **given))
    await asyncio.wait_for(begun.wait(), 10)

    async def listed() -> list[str]:
        return [each["id"] for each in (await vera.client.get(f"{URL}/uploads")).json()]

    await eventually(listed)
    (name,) = await listed()
    assert (await vera.client.delete(f"{URL}/uploads/{name}")).status_code == 204
    deleted.set()
    assert (await going).status_code == status
    assert bench.files() == []
    assert await bench.recordings() == []


async def test_a_process_that_was_killed_has_its_upload_swept_within_the_hour(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    storage, limits = FolderStorage(bench.product.config.recordings.storage.folder), bench.intake.limits
    left = Upload(
        owner_id=vera.id,
        created_by="vera",
        size_bytes=limits.max_bytes,
        blob_key="notes/2026/11/left.wav",
        progress={"once": True},
        expires_at=utc_now() + timedelta(minutes=15),
    )

    async def chunks() -> AsyncIterator[bytes]:
        yield sound

    await storage.write(left.blob_key, chunks())
    async with bench.product.db.transaction() as session:
        session.add(left)
    assert (await accepting.sweep(bench.intake))["removed"] == 0
    await bench.pass_time(timedelta(minutes=17))
    assert await cleanup_uploads(bench.product.runtime) == {"completed": 0, "removed": 1, "tidied": 0}
    assert bench.files() == []


@pytest.fixture
def scarce(tmp_path: Path) -> Iterator[None]:
    """A storage of 70 MB."""
    with small_disk(tmp_path / "recordings", "70m"):
        yield


async def test_a_disk_without_room_is_told_before_and_on_the_way(scarce: None, bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    assert (await vera.client.post(URL, content=sound)).status_code == 201
    large = sound + b"\1" * 30_000_000
    answer = await vera.client.post(URL, content=large)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")

    async def unsaid() -> AsyncIterator[bytes]:
        yield files.wav(seed=2)
        for _ in range(80):
            yield b"\1" * 1_000_000

    answer = await vera.client.post(URL, content=unsaid())
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert len(bench.files()) == 1
    assert await bench.uploads() == []
    assert (await vera.client.post(URL, content=files.wav(seed=3))).status_code == 201
