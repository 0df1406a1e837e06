import errno
import subprocess
import sys
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

from backend.core.errors import PermanentError
from backend.recordings.sound.decoding import decode, decoded, probe, reopened
from backend.recordings.sound.unreadable import (
    AudioTooLong,
    EmptyAudio,
    NoAudioStream,
    NotAudio,
    TruncatedAudio,
    UnreadableAudio,
)
from backend.recordings.speech.base import Cancelled
from backend.recordings.speech.channels import ChannelKind
from tests.recordings.sounds import (
    AUSTEN,
    CALL,
    JFK,
    cut_short,
    noise,
    silence,
    tone,
    write_encoded,
    write_silent_film,
    write_wav,
)


def test_the_header_says_codec_rate_channels_and_length() -> None:
    header = probe(CALL)
    assert (header.codec, header.sample_rate, header.channels) == ("pcm_mulaw", 8000, 2)
    assert header.duration_seconds == pytest.approx(58.2, abs=0.01)


def test_a_two_channel_call_decodes_to_two_channels_of_16_khz() -> None:
    with decoded(CALL) as audio:
        assert audio.kind is ChannelKind.SPLIT
        assert audio.numbers == (0, 1)
        assert audio.source_channels == 2
        assert [len(channel) for channel in audio.channels] == [931_200, 931_200]
        assert audio.duration_seconds == pytest.approx(58.2)
        agent, customer = audio.channels
        # The agent opens the call and then listens for half a minute.
        assert np.abs(agent[:90_000]).max() > 10_000
        assert np.abs(agent[180_000:700_000]).max() < 1_000
        assert np.abs(customer[180_000:700_000]).max() > 10_000


def test_samples_at_16_khz_come_through_unchanged(tmp_path: Path) -> None:
    original = noise(1.0)
    with decoded(write_wav(tmp_path / "same.wav", original)) as audio:
        np.testing.assert_array_equal(audio.channels[0], original)


def test_mu_law_decodes_to_what_libav_itself_makes_of_it() -> None:
    with av.open(str(CALL)) as container:
        expected = np.concatenate([frame.to_ndarray().reshape(-1, 2) for frame in container.decode(audio=0)])
    with decoded(CALL) as audio:
        # Twice the rate: power is kept, up to the filter's edges.
        power = np.mean(np.square(audio.channels[0].astype(float)))
    assert power == pytest.approx(np.mean(np.square(expected[:, 0].astype(float))), rel=0.01)


@pytest.mark.parametrize(("name", "codec"), [("call.ogg", "libopus"), ("call.m4a", "aac"), ("call.flac", "flac")])
def test_containers_that_recorders_write_keep_their_channels_apart(tmp_path: Path, name: str, codec: str) -> None:
    left = np.concatenate([tone(1.0), silence(1.0)])
    right = np.concatenate([silence(1.0), tone(1.0, pitch=700)])
    with decoded(write_encoded(tmp_path / name, codec, left, right)) as audio:
        assert audio.kind is ChannelKind.SPLIT
        assert audio.duration_seconds == pytest.approx(2.0, abs=0.1)
        first, second = (np.abs(channel[4_000:12_000]).max() for channel in audio.channels)
        assert second < 300
        assert first > 5_000


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    disguised = tmp_path / "recording.txt"
    disguised.write_bytes(AUSTEN.read_bytes())
    with decoded(disguised) as audio:
        assert audio.duration_seconds == pytest.approx(2.99, abs=0.01)


def test_nothing_stays_behind(tmp_path: Path) -> None:
    with decoded(AUSTEN, folder=tmp_path):
        assert list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="stopped"), decoded(AUSTEN, folder=tmp_path):
        raise RuntimeError("stopped")
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    long = write_wav(tmp_path / "long.wav", *[np.tile(noise(10.0), 60)] * 2)
    tracemalloc.start()
    try:
        with decoded(long) as audio:
            assert audio.duration_seconds == 600.0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 600 s of two channels are 38 MB.
    assert peak < 25_000_000


def test_one_sample_is_a_recording(tmp_path: Path) -> None:
    with decoded(write_wav(tmp_path / "one.wav", np.array([9000], np.int16))) as audio:
        assert audio.kind is ChannelKind.MONO


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    with pytest.raises(EmptyAudio, match="the file is empty"), decoded(tmp_path / "empty.wav"):
        pass


def test_a_container_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableAudio), decoded(write_wav(tmp_path / "none.wav", silence(0))):
        pass


@pytest.mark.parametrize(
    "content",
    [
        b"hello " * 100,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9.0,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '/etc/hostname'\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
    ],
    ids=["text", "HLS playlist", "concat list", "SDP"],
)
def test_what_is_no_recording_or_names_other_sources_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    with pytest.raises(NotAudio), decoded(path):
        pass


def test_a_video_without_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoAudioStream), decoded(write_silent_film(tmp_path / "film.mp4")):
        pass


@pytest.mark.parametrize("source", [CALL, JFK], ids=["wav", "flac"])
def test_a_file_shorter_than_its_header_promises_is_refused(tmp_path: Path, source: Path) -> None:
    short = cut_short(source, tmp_path / source.name)
    with pytest.raises(TruncatedAudio, match="promises"), decoded(short):
        pass


def test_what_was_written_of_an_interrupted_ogg_is_kept(tmp_path: Path) -> None:
    whole = write_encoded(tmp_path / "whole.ogg", "libopus", noise(20.0))
    with decoded(cut_short(whole, tmp_path / "short.ogg")) as audio:
        assert 5 < audio.duration_seconds < 15


def test_a_truncated_mp3_gives_what_is_there_or_a_clear_error(tmp_path: Path) -> None:
    whole = write_encoded(tmp_path / "whole.mp3", "libmp3lame", noise(20.0))
    with decoded(cut_short(whole, tmp_path / "short.mp3")) as audio:
        assert 5 < audio.duration_seconds < 15


def test_damage_in_the_middle_loses_only_the_damaged_part(tmp_path: Path) -> None:
    content = bytearray(JFK.read_bytes())
    content[100_000:103_000] = bytes(3_000)
    (tmp_path / "damaged.flac").write_bytes(content)
    with decoded(tmp_path / "damaged.flac") as audio:
        assert audio.duration_seconds == pytest.approx(11.0, abs=0.5)


def test_a_recording_over_the_limit_is_refused() -> None:
    with pytest.raises(AudioTooLong, match="11 s long, over the limit of 5 s"), decoded(JFK, max_seconds=5):
        pass


def test_a_stop_while_decoding_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(_: float) -> None:
        assert list(tmp_path.iterdir())
        raise Cancelled

    with pytest.raises(Cancelled):
        decode(JFK, tmp_path, max_seconds=60, tick=stop)
    assert list(tmp_path.iterdir()) == []


_FULL = """
import resource, sys
from pathlib import Path
from backend.recordings.sound.decoding import decode
# As if the disk were full after 100 kB.
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    decode(Path(sys.argv[1]), Path(sys.argv[2]), max_seconds=60, tick=lambda _: None)
except OSError as fault:
    print(type(fault).__name__, fault.errno)
"""


def test_a_full_disk_is_an_error_of_the_system_and_leaves_nothing_behind(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", _FULL, str(JFK), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (answer.stdout, answer.returncode) == (f"OSError {errno.EFBIG}\n", 0), answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_decoded_sound_is_opened_again_only_where_it_is_whole(tmp_path: Path) -> None:
    made = decode(CALL, tmp_path, max_seconds=60, tick=lambda _: None)
    again = reopened(tmp_path, made.as_json())
    assert again is not None
    assert (again.numbers, again.kind, again.duration_seconds) == (made.numbers, made.kind, made.duration_seconds)
    np.testing.assert_array_equal(again.channels[1], made.channels[1])
    with (tmp_path / made.files[1]).open("ab") as file:
        file.truncate(1_000)
    assert reopened(tmp_path, made.as_json()) is None


def test_each_refusal_is_permanent() -> None:
    assert issubclass(UnreadableAudio, PermanentError)


def test_a_sample_rate_that_no_sound_has_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "slow.wav", noise(0.1), rate=999)
    with pytest.raises(NotAudio, match="999"):
        probe(path)
    assert probe(write_wav(tmp_path / "low.wav", noise(0.1), rate=1000)).sample_rate == 1000
