"""Uploads into an object store."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backend.core.errors import TransientError
from backend.core.object_storage import ObjectStorage, open_storage
from backend.core.storage import FolderStorage
from tests.fixtures.object_store import Bucket, object_store, store
from tests.fixtures.product import Product, Start
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
