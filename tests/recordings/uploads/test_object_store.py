"""Uploads into an object store."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from backend.core.errors import TransientError
from backend.core.object_storage import ObjectStorage, open_storage
from backend.core.storage import FolderStorage
from backend.recordings import tasks
from backend.recordings.fetching import voice_key
from backend.recordings.models import Recording
from backend.recordings.voice_samples import voice_samples
from tests.fixtures.object_store import Bucket, object_store, store
from tests.fixtures.people import People
from tests.fixtures.product import Product, Start, eventually
from tests.recordings.notes import scripted_note
from tests.recordings.uploads import files

URL = "/api/recordings"
TUS = {"Tus-Resumable": "1.0.0"}
PART = TUS | {"Content-Type": "application/offset+octet-stream"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with object_store() as bucket:
        yield bucket


@pytest.fixture
async def product(start: Start, bucket: Bucket) -> Product:
    settings = bucket.settings
    return await start(
        RECORDINGS_STORAGE="s3",
        S3_BUCKET=settings.bucket,
        S3_PREFIX=settings.prefix,
        S3_ENDPOINT_URL=settings.endpoint,
        S3_ACCESS_KEY_ID=settings.access_key,
        S3_SECRET_ACCESS_KEY=settings.secret_key,
    )


async def test_an_upload_lies_in_the_bucket_and_is_read_from_there(product: Product, bucket: Bucket) -> None:
    sound = files.wav(seconds=700)
    answer = await product.client.post(URL, content=sound)
    assert answer.status_code == 201, answer.text
    name = answer.json()["id"]
    assert f"{name}</Key>" in bucket.listing()
    assert not (product.folder / "recordings").exists()
    audio = f"{URL}/{name}/audio"
    assert (await product.client.get(audio)).content == sound
    part = await product.client.get(audio, headers={"Range": "bytes=1000000-1000099"})
    assert (part.status_code, part.content) == (206, sound[1_000_000:1_000_100])
    assert (await product.client.post(URL, content=sound)).json()["duplicate"] is True


async def test_a_resumed_upload_leaves_no_pieces_in_the_bucket(product: Product, bucket: Bucket) -> None:
    sound = files.wav(seconds=40, seed=3)
    begun = await product.client.post(URL, headers=TUS | {"Upload-Length": str(len(sound))})
    where = begun.headers["Location"]
    for start in range(0, len(sound), 200_000):
        content = sound[start : start + 200_000]
        checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
        headers = PART | {"Upload-Offset": str(start), "Upload-Checksum": f"sha256 {checksum}"}
        answer = await product.client.patch(where, content=content, headers=headers)
        assert answer.status_code == 204, answer.text
    assert (await product.client.get(f"{URL}/{answer.headers['Beatline-Recording']}/audio")).content == sound
    assert "uploads/" not in bucket.listing()


async def transcribed(product: Product, client: httpx.AsyncClient, sound: bytes) -> Recording:
    """Uploaded, then looked at and transcribed by a worker that has nothing but the bucket."""
    uploaded = await client.post(URL, content=sound)
    assert uploaded.status_code == 201, uploaded.text
    runtime, name = product.runtime, uploaded.json()["id"]
    runtime.resources[tasks.TOOLS] = scripted_note().tools(voice_samples=voice_samples)
    assert product.sent.named("probe_recording") == [{"recording_id": name}]
    assert await tasks.probe_recording(runtime, recording_id=name) == "fetched"
    assert product.sent.named("transcribe_recording") == [{"recording_id": name}]
    assert await tasks.transcribe_recording(runtime, recording_id=name) == "ready"
    async with product.db.transaction() as session:
        found = await session.get(Recording, UUID(name))
    assert found is not None
    return found


async def test_a_recordings_whole_life_takes_place_in_the_bucket(
    product: Product, people: People, bucket: Bucket
) -> None:
    otto, before, sound = await people.operator(), bucket.keys(), files.wav(seconds=8, seed=4)
    recording = await transcribed(product, otto.client, sound)
    where = f"{URL}/{recording.id}"
    assert len(bucket.keys() - before) == 3, "the sound and two voices"
    assert [path for path in (product.folder / "recordings").rglob("*") if path.is_file()] == []
    assert (recording.duration_ms, recording.codec) == (8_000, "pcm_s16le")

    part = await otto.client.get(f"{where}/audio", headers={"Range": "bytes=-1000"})
    assert (part.status_code, part.content) == (206, sound[-1000:])
    speakers = (await otto.client.get(f"{where}/speakers")).json()
    voices = [await otto.client.get(f"{where}/speakers/{each['label']}/sample") for each in speakers]
    assert [(voice.status_code, voice.content[:4]) for voice in voices] == [(200, b"RIFF")] * 2

    removed = await otto.client.delete(where)
    assert (removed.json()["files_deleted"], removed.json()["files_pending"]) == (3, 0)
    assert bucket.keys() == before
    assert bucket.unfinished() == []


async def test_what_a_worker_puts_into_the_bucket_after_its_recording_went_is_removed(
    product: Product, people: People, bucket: Bucket, tmp_path: Path
) -> None:
    otto, before = await people.operator(), bucket.keys()
    recording = await transcribed(product, otto.client, files.wav(seconds=8, seed=5))
    async with product.db.transaction() as session:
        # As if another worker were at it once more.
        await (await session.connection()).execute(
            text("update recordings set attempts = 2, claimed_until = now() + interval '1 hour'")
        )
    await otto.client.delete(f"{URL}/{recording.id}")
    late = tmp_path / "late.wav"
    late.write_bytes(files.wav(seconds=1))
    await open_storage(product.config).put(voice_key(recording, 2), late)
    assert len(bucket.keys() - before) == 1
    async with product.db.transaction() as session:
        await (await session.connection()).execute(
            text("update removed_files set until = now(), next_attempt_at = now()")
        )
    assert await tasks.remove_recording_files(product.runtime) == {"files": 1, "files_left": 0, "work_folders": 0}
    assert bucket.keys() == before


async def test_an_upload_that_breaks_off_leaves_no_parts_in_the_bucket(
    product: Product, people: People, bucket: Bucket
) -> None:
    vera, before = await people.viewer(), bucket.keys()

    async def endless() -> AsyncIterator[bytes]:
        yield files.wav(seconds=3)
        while True:
            yield b"\1" * 1_000_000
            await asyncio.sleep(0.01)

    async def has_parts() -> bool:
        return await asyncio.to_thread(bucket.unfinished) != []

    async def has_none() -> bool:
        return not await has_parts()

    sending = asyncio.create_task(vera.client.post(URL, content=endless()))
    await eventually(has_parts)
    sending.cancel()
    await eventually(has_none)
    assert bucket.keys() == before


async def test_what_is_refused_leaves_nothing_in_the_bucket(product: Product, bucket: Bucket) -> None:
    before = bucket.listing().count("<Key>")
    assert (await product.client.post(URL, content=b"%PDF-1.7" + b"\1" * 20_000_000)).status_code == 422
    assert bucket.listing().count("<Key>") == before
    assert (await product.client.get(f"{URL}/uploads")).json() == []


async def test_a_store_that_is_away_is_told_as_such(start: Start) -> None:
    product = await start(
        RECORDINGS_STORAGE="s3",
        S3_BUCKET="their-bucket",
        S3_PREFIX="their-prefix",
        S3_ENDPOINT_URL="http://127.0.0.1:9",
        S3_ACCESS_KEY_ID="key",
        S3_SECRET_ACCESS_KEY="secret",
    )
    answer = await product.client.post(URL, content=files.wav(), timeout=httpx.Timeout(60))
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_away")
    for private in ("secret", "their-bucket", "their-prefix", "127.0.0.1"):
        assert private not in answer.text
    assert isinstance(open_storage(product.config), ObjectStorage)


async def test_a_bucket_that_is_not_there_says_so(bucket: Bucket, tmp_path: Path) -> None:
    storage = ObjectStorage(store(bucket.settings.endpoint, bucket="missing"))
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(TransientError, match="S3_BUCKET"):
        await storage.put("a", tmp_path / "a")


async def test_the_folder_is_the_storage_where_nothing_else_is_set(start: Start) -> None:
    assert isinstance(open_storage((await start()).config), FolderStorage)
