"""Files that are nothing but headers."""

from pathlib import Path

from backend.recordings.sound import containers
from backend.recordings.sound.unreadable import NotAudio
from tests.recordings.uploads.files import wav

EMPTY_CHUNK, EMPTY_BOX = b"junk\0\0\0\0", b"\0\0\0\x08ftyp"


def test_the_length_of_a_file_of_empty_chunks_is_not_sought_for_long(tmp_path: Path) -> None:
    path, sound = tmp_path / "a.wav", wav(seconds=3)
    path.write_bytes(sound[:12] + EMPTY_CHUNK * 90_000 + sound[12:])
    assert containers.wave_seconds(path) == 3
    path.write_bytes(sound[:12] + EMPTY_CHUNK * 100_000 + sound[12:])
    assert containers.wave_seconds(path) is None


def test_of_a_file_of_empty_boxes_nobody_says_that_it_ends_early(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(EMPTY_BOX * 100_001)
    assert type(containers.why_not(path, "no sound")) is NotAudio
