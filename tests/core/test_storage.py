"""Blobs in a folder."""

import hashlib
from pathlib import Path

import pytest

from backend.core.storage import FolderStorage


def test_a_blob_is_stored_whole_with_its_size_and_hash(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    storage = FolderStorage(tmp_path / "store")
    blob = storage.put("calls/2026/11/a.ogg", source)
    assert blob.size_bytes == 3_000_000
    assert blob.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert storage.path(blob.key).read_bytes() == source.read_bytes()


def test_storing_twice_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "store")
    for content in (b"one", b"two"):
        (tmp_path / "source").write_bytes(content)
        storage.put("a", tmp_path / "source")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a"]
    assert storage.path("a").read_bytes() == b"two"


def test_a_missing_source_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FolderStorage(tmp_path / "store").put("a", tmp_path / "nowhere")
    assert not (tmp_path / "store").exists()


def test_a_copy_that_breaks_off_leaves_no_half_file(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "store")
    (tmp_path / "store" / "a").mkdir(parents=True)
    (tmp_path / "source").write_bytes(b"x")
    with pytest.raises(OSError, match="directory"):
        storage.put("a", tmp_path / "source")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a"]


@pytest.mark.parametrize("key", ["../outside", "a/../../b", "/etc/passwd", "", "a\x00b"])
def test_a_key_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="storage key"):
        FolderStorage(tmp_path).path(key)
