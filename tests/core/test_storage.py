"""Blobs, in a folder and in an object store alike."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from backend.core.errors import TransientError
from backend.core.object_storage import ObjectStorage
from backend.core.storage import FolderStorage, Storage, StorageFull, join
from tests.fixtures.object_store import Bucket, object_store
from tests.fixtures.small_disk import small_disk

BIG = os.urandom(1 << 20) * 20


class Broken(Exception):
    """What a source may raise that is no business of the storage."""


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with object_store() as bucket:
        yield bucket


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return FolderStorage(tmp_path / "store")
    bucket: Bucket = request.getfixturevalue("bucket")
    return ObjectStorage(bucket.settings)


async def _in_pieces(content: bytes, size: int = 60_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def _breaking(content: bytes, fault: Exception | None = None) -> AsyncIterator[bytes]:
    async for chunk in _in_pieces(content):
        yield chunk
    raise fault or Broken


async def content(storage: Storage, key: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in storage.read(key, start, end)])


async def test_a_file_is_stored_whole_with_its_size_and_hash(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(BIG)
    blob = await storage.put("calls/2026/11/a.ogg", tmp_path / "source")
    assert (blob.size_bytes, blob.sha256) == (len(BIG), hashlib.sha256(BIG).hexdigest())
    assert await storage.size(blob.key) == len(BIG)
    assert await content(storage, blob.key) == BIG


async def test_a_stream_of_small_chunks_is_stored_whole(storage: Storage) -> None:
    blob = await storage.write("notes/b.wav", _in_pieces(BIG[:2_500_001]))
    assert (blob.size_bytes, blob.sha256) == (2_500_001, hashlib.sha256(BIG[:2_500_001]).hexdigest())
    assert await content(storage, "notes/b.wav") == BIG[:2_500_001]


async def test_nothing_at_all_is_a_blob_too(storage: Storage) -> None:
    blob = await storage.write("notes/empty", _in_pieces(b""))
    assert blob.size_bytes == 0
    assert await storage.size("notes/empty") == 0
    assert await content(storage, "notes/empty") == b""


async def test_storing_twice_replaces(storage: Storage) -> None:
    for value in (b"one", b"two"):
        await storage.write("again", _in_pieces(value))
    assert await content(storage, "again") == b"two"


@pytest.mark.parametrize("size", [100, 18_000_000])
async def test_a_source_that_breaks_off_stores_nothing_and_says_why_in_its_own_words(
    storage: Storage, size: int
) -> None:
    with pytest.raises(Broken):
        await storage.write("broken", _breaking(BIG[:size]))
    assert await storage.size("broken") is None


@pytest.mark.parametrize("fault", [TimeoutError("database"), ConnectionResetError("sender"), OSError(5, "disk")])
async def test_the_storage_is_not_blamed_for_its_source(storage: Storage, fault: OSError) -> None:
    with pytest.raises(type(fault)) as raised:
        await storage.write("broken", _breaking(BIG[:100], fault))
    assert raised.value is fault
    assert await storage.size("broken") is None


@pytest.mark.parametrize("size", [100, 18_000_000])
async def test_a_source_that_breaks_off_leaves_what_was_there_before(storage: Storage, size: int) -> None:
    await storage.write("kept", _in_pieces(b"before"))
    with pytest.raises(Broken):
        await storage.write("kept", _breaking(BIG[:size]))
    assert await content(storage, "kept") == b"before"


async def test_a_missing_source_is_told_and_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await storage.put("missing", tmp_path / "nowhere")
    assert await storage.size("missing") is None


async def test_a_part_of_a_blob_is_read_alone(storage: Storage) -> None:
    await storage.write("ranges", _in_pieces(BIG[:3_000_000]))
    assert await content(storage, "ranges", 10, 20) == BIG[10:20]
    assert await content(storage, "ranges", 2_999_990) == BIG[2_999_990:3_000_000]
    assert await content(storage, "ranges", 1_000_000, 2_900_000) == BIG[1_000_000:2_900_000]
    assert await content(storage, "ranges", 2_999_999, 5_000_000) == BIG[2_999_999:3_000_000]
    assert await content(storage, "ranges", 3_000_000) == b""
    assert await content(storage, "ranges", 20, 20) == b""


async def test_a_blob_that_is_not_there_is_told(storage: Storage, tmp_path: Path) -> None:
    assert await storage.size("nowhere") is None
    assert await storage.delete("nowhere") is False
    with pytest.raises(FileNotFoundError):
        await content(storage, "nowhere")
    with pytest.raises(FileNotFoundError):
        await storage.local("nowhere", tmp_path / "here")


async def test_a_deleted_blob_is_gone(storage: Storage) -> None:
    await storage.write("some/where/gone", _in_pieces(b"x"))
    assert await storage.delete("some/where/gone") is True
    assert await storage.size("some/where/gone") is None
    assert await storage.delete("some/where/gone") is False


async def test_all_that_lies_below_a_key_is_cleared_and_nothing_else(storage: Storage) -> None:
    for key in ("up/1/a", "up/1/b", "up/1/c/d", "up/12", "up/2/a"):
        await storage.write(key, _in_pieces(b"x"))
    assert await storage.clear("up/1") == 3
    assert await storage.clear("up/1") == 0
    assert [await storage.size(key) for key in ("up/1/a", "up/1/c/d", "up/12", "up/2/a")] == [None, None, 1, 1]


async def test_a_local_file_has_the_same_bytes(storage: Storage, tmp_path: Path) -> None:
    await storage.write("notes/local.wav", _in_pieces(BIG))
    path = await storage.local("notes/local.wav", tmp_path / "work")
    assert path.read_bytes() == BIG
    assert path.suffix == ".wav"


async def test_blobs_are_joined_and_stay(storage: Storage) -> None:
    for number in range(3):
        await storage.write(f"parts/{number}", _in_pieces(BIG[number * 1_500_000 : (number + 1) * 1_500_000]))
    blob = await join(storage, [f"parts/{number}" for number in range(3)], "joined")
    assert (blob.size_bytes, blob.sha256) == (4_500_000, hashlib.sha256(BIG[:4_500_000]).hexdigest())
    assert await content(storage, "joined") == BIG[:4_500_000]
    assert await storage.size("parts/0") == 1_500_000
    with pytest.raises(FileNotFoundError):
        await join(storage, ["parts/0", "parts/gone"], "incomplete")
    assert await storage.size("incomplete") is None


async def test_a_writer_that_is_cancelled_stores_nothing(storage: Storage) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield BIG[: 1 << 20]
            begun.set()
            await asyncio.sleep(0.01)

    writing = asyncio.create_task(storage.write("cancelled", endless()))
    await asyncio.wait_for(begun.wait(), 20)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await storage.size("cancelled") is None


async def test_two_writers_of_one_key_leave_one_of_both_whole(storage: Storage) -> None:
    one, two = BIG[:9_000_000], BIG[1:9_000_001]
    await asyncio.gather(storage.write("raced", _in_pieces(one)), storage.write("raced", _in_pieces(two)))
    assert await content(storage, "raced") in {one, two}


@pytest.mark.parametrize("key", ["../outside", "a/../../b", "/etc/passwd", "", "a\x00b"])
async def test_a_key_cannot_leave_the_storage(storage: Storage, key: str) -> None:
    with pytest.raises(ValueError, match="storage key"):
        await storage.write(key, _in_pieces(b"x"))
    with pytest.raises(ValueError, match="storage key"):
        await storage.size(key)
    with pytest.raises(ValueError, match="storage key"):
        await storage.delete(key)
    with pytest.raises(ValueError, match="storage key"):
        await content(storage, key)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_a_folder_holds_nothing_but_the_blobs(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "store")
    await storage.write("a/b/one", _in_pieces(b"1"))
    with pytest.raises(Broken):
        await storage.write("a/b/two", _breaking(BIG[:100]))
    assert _files(tmp_path / "store") == ["a/b/one"]
    await storage.delete("a/b/one")
    assert not (tmp_path / "store" / "a").exists()


async def test_a_blob_may_come_while_the_last_other_one_of_its_folder_goes(tmp_path: Path) -> None:
    def come_and_go(name: str) -> None:
        async def often() -> None:
            storage = FolderStorage(tmp_path / "store")
            for _ in range(300):
                await storage.write(f"uploads/one/{name}", _in_pieces(b"x"))
                assert await storage.delete(f"uploads/one/{name}")

        asyncio.run(often())

    await asyncio.gather(*(asyncio.to_thread(come_and_go, name) for name in "abcd"))
    assert _files(tmp_path / "store") == []


async def test_a_folder_that_is_in_the_way_is_told_and_nothing_stays_behind(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "store")
    (tmp_path / "store" / "a").mkdir(parents=True)
    with pytest.raises(TransientError, match="directory"):
        await storage.write("a", _in_pieces(b"x"))
    assert _files(tmp_path / "store") == []
    assert await storage.size("a") is None


async def test_what_killed_writers_left_in_the_folder_goes_once_it_is_old(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "store")
    assert await storage.tidy(timedelta(hours=1)) == 0
    await storage.write("kept", _in_pieces(b"x"))
    left = tmp_path / "store" / ".incoming" / "left"
    left.write_bytes(b"half")
    assert await storage.tidy(timedelta(hours=1)) == 0
    os.utime(left, (0, 0))
    assert await storage.tidy(timedelta(hours=1)) == 1
    assert _files(tmp_path / "store") == ["kept"]


async def test_a_folder_tells_how_much_room_there_is_also_before_it_exists(tmp_path: Path) -> None:
    room = await FolderStorage(tmp_path / "not" / "yet").room()
    assert room is not None
    assert room > 0


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    with small_disk(tmp_path / "full", "1m"):
        yield tmp_path / "full"


async def test_a_full_disk_is_told_as_such_and_the_half_file_is_removed(full: Path) -> None:
    storage = FolderStorage(full)
    with pytest.raises(StorageFull, match="No space left"):
        await storage.write("big", _in_pieces(BIG))
    assert _files(full) == []
    await storage.write("small", _in_pieces(b"still works"))
