"""Files that a broken disk or a broken line has damaged: whatever libav calls it, it is the file's fault."""

import errno
import random
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container.input import InputContainer

from backend.recordings.models import RecordingState
from backend.recordings.sound.decoding import packets
from backend.recordings.sound.inspecting import inspect
from backend.recordings.sound.unreadable import NotAudio, UnreadableAudio
from backend.recordings.work import probing
from tests.recordings.desk import Desk
from tests.recordings.sounds import noise, write_encoded

_DAMAGES = 16
_FORMATS = [
    ("a.aac", "aac", 48_000),
    ("a.ac3", "ac3", 48_000),
    ("a.aiff", "pcm_s16be", 16_000),
    ("a.amr", "libopencore_amrnb", 8_000),
    ("a.m4a", "aac", 48_000),
    ("a.mkv", "aac", 48_000),
    ("a.mp3", "libmp3lame", 48_000),
    ("a.ogg", "libopus", 48_000),
    ("a.wav", "adpcm_ms", 16_000),
    ("a.webm", "libopus", 48_000),
]


def _damaged(content: bytes, seed: int) -> bytes:
    """Single bytes here and there, or a stretch of another file."""
    dice, bad = random.Random(seed), bytearray(content)
    if seed % 2:
        start, length = dice.randrange(len(bad)), dice.randrange(30, len(bad) // 3)
        bad[start : start + length] = dice.randbytes(len(bad[start : start + length]))
    else:
        for _ in range(dice.choice((5, 50, 400))):
            bad[dice.randrange(len(bad))] = dice.randrange(256)
    return bytes(bad)


@pytest.mark.parametrize(("name", "codec", "rate"), _FORMATS, ids=[f"{name} {codec}" for name, codec, _ in _FORMATS])
def test_a_damaged_file_is_read_in_part_or_refused_and_never_taken_for_a_broken_disk(
    tmp_path: Path, name: str, codec: str, rate: int
) -> None:
    path = write_encoded(tmp_path / name, codec, noise(6.0), rate=rate)
    content, read = path.read_bytes(), 0
    for seed in range(_DAMAGES):
        path.write_bytes(_damaged(content, seed))
        try:
            inspect(path, max_seconds=3600.0, scratch=tmp_path)
        except UnreadableAudio:
            continue
        read += 1
    assert read, "none was read at all"


def test_a_codec_whose_name_no_one_can_read_is_no_fault_of_ours(tmp_path: Path) -> None:
    path = write_encoded(tmp_path / "a.m4a", "aac", noise(2.0))
    whole = path.read_bytes()
    assert whole.count(b"mp4a") == 1
    path.write_bytes(whole.replace(b"mp4a", b"mp\xf5a"))
    assert inspect(path, max_seconds=60.0, scratch=tmp_path).codec == "aac"


def test_sound_that_nobody_has_a_decoder_for_is_refused(tmp_path: Path) -> None:
    path = write_encoded(tmp_path / "a.mkv", "aac", noise(2.0))
    whole = path.read_bytes()
    assert whole.count(b"A_AAC") == 1
    path.write_bytes(whole.replace(b"A_AAC", b"A_XYZ"))
    with pytest.raises(NotAudio, match="cannot be decoded"):
        inspect(path, max_seconds=60.0, scratch=tmp_path)


class Broken:
    """A container that ends with an error of the operating system's, as libav has it for damage and for broken disks alike."""

    def __init__(self, name: str) -> None:
        self.name = name

    def demux(self, _: AudioStream) -> Iterator["av.Packet[AudioStream]"]:
        raise av.error.OSError(errno.EIO, "Input/output error")


def test_what_the_operating_system_cannot_read_either_is_the_disks_fault(tmp_path: Path) -> None:
    stream = cast("AudioStream", None)
    (tmp_path / "whole").write_bytes(b"as good as any")
    assert list(packets(cast("InputContainer", Broken(str(tmp_path / "whole"))), stream)) == []
    # Linux reads the memory of a process at address 0 as it reads a broken disk.
    with pytest.raises(OSError, match="Input/output") as fault:
        list(packets(cast("InputContainer", Broken("/proc/self/mem")), stream))
    assert not isinstance(fault.value, av.FFmpegError)


async def test_a_damaged_upload_fails_at_once_and_says_what_it_is(desk: Desk, tmp_path: Path) -> None:
    path = write_encoded(tmp_path / "a.m4a", "aac", noise(10.0))
    content = bytearray(path.read_bytes())
    content[2_000 : len(content) * 2 // 3] = random.Random(1).randbytes(len(content) * 2 // 3 - 2_000)
    path.write_bytes(content)
    recording = await desk.note(path)
    state = await probing.probe(
        desk.db,
        desk.storage,
        recording_id=recording.id,
        work=desk.work,
        max_seconds=3600.0,
        then="transcribe_recording",
    )
    assert state == RecordingState.FAILED
    seen = await desk.now()
    assert (seen.error_code, seen.state) == ("truncated_audio", RecordingState.FAILED)
    assert (seen.error or "").startswith("the file holds ")


def _write_vorbis(path: Path) -> None:
    with av.open(str(path), "w") as container:
        options = {"strict": "experimental"}
        stream = container.add_stream("vorbis", rate=44_100, layout="stereo", options=options)
        frame = AudioFrame.from_ndarray(np.full((2, 44_100), 0.1, np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _ogg_checksum(page: bytes) -> int:
    """RFC 3533, section 6: a CRC with the polynomial 0x04c11db7, nothing reflected, over the page with 0 in its place."""
    found = 0
    for byte in page:
        found ^= byte << 24
        for _ in range(8):
            found = (found << 1 ^ 0x04C11DB7 if found & 0x80000000 else found << 1) & 0xFFFFFFFF
    return found


def test_an_ogg_file_whose_end_lies_before_its_last_packet_is_as_long_as_it_sounds(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    _write_vorbis(path)
    content = path.read_bytes()
    at = content.rfind(b"OggS")
    page = (
        content[at : at + 6] + (100).to_bytes(8, "little") + content[at + 14 : at + 22] + bytes(4) + content[at + 26 :]
    )
    page = page[:22] + _ogg_checksum(page).to_bytes(4, "little") + page[26:]
    path.write_bytes(content[:at] + page)
    with av.open(str(path)) as container:
        longest = max(packet.duration or 0 for packet in container.demux(container.streams.audio[0]))
    assert longest > 2**31, "libav tells such lengths no more"
    assert inspect(path, max_seconds=60.0, scratch=tmp_path).seconds == pytest.approx(1.0, abs=0.1)
