"""Files that are nothing but headers."""

from pathlib import Path

import pytest

from backend.recordings.sound import containers
from backend.recordings.sound.decoding import probe
from backend.recordings.sound.unreadable import NotAudio, TruncatedAudio
from tests.recordings.sounds import noise, write_encoded
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


@pytest.mark.parametrize(("name", "codec"), [("a.flac", "flac"), ("a.ogg", "libopus"), ("a.webm", "libopus")])
def test_what_only_begins_as_a_recording_is_damaged_and_not_something_else(
    tmp_path: Path, name: str, codec: str
) -> None:
    path = write_encoded(tmp_path / name, codec, noise(1.0))
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(TruncatedAudio, match="the file begins as a recording does"):
        probe(path)


def test_what_is_of_no_known_kind_is_said_without_the_librarys_words(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(b"\xff\xfb\x00\x00" + bytes(range(200, 256)) * 50)
    with pytest.raises(NotAudio) as fault:
        probe(path)
    assert str(fault.value) == "the file is not a recording of a kind that can be read"
