"""Every format that people upload and every way in which a file is of no use, as real files."""

import io
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from backend.recordings.sound.decoding import decoded
from backend.recordings.sound.inspecting import inspect
from backend.recordings.sound.unreadable import (
    AudioTooLong,
    DrmAudio,
    EmptyAudio,
    EncryptedAudio,
    NoAudioStream,
    NotAudio,
    SilentAudio,
    TruncatedAudio,
    UnreadableAudio,
)
from tests.recordings.sounds import (
    JFK,
    Sound,
    cut_short,
    noise,
    silence,
    tone,
    write_encoded,
    write_silent_film,
    write_wav,
)

# A second of a tone, a second of another: what comes out must hold both, in their order.
TONES = np.concatenate([tone(1.0, pitch=440.0), tone(1.0, pitch=880.0)])


def _pitch(samples: Sound) -> float:
    spectrum = np.abs(np.fft.rfft(samples.astype(np.float64)))
    return float(np.argmax(spectrum) * 16_000 / len(samples))


def write_film(path: Path, *, sound: str = "aac") -> Path:
    """Two seconds of video with sound."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        stream = cast("AudioStream", container.add_stream(sound, rate=48_000, layout="mono"))
        for _ in range(20):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(picture.encode(None))
        frame = AudioFrame.from_ndarray(TONES.reshape(1, -1), format="s16p", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


FORMATS: dict[str, Callable[[Path], Path]] = {
    "a.wav": lambda path: write_wav(path, TONES),
    "eight-bit-mu-law.wav": lambda path: write_encoded(path, "pcm_mulaw", TONES, rate=8_000),
    "a.mp3": lambda path: write_encoded(path, "libmp3lame", TONES),
    "a.m4a": lambda path: write_encoded(path, "aac", TONES),
    "a.aac": lambda path: write_encoded(path, "aac", TONES),
    "a.ogg": lambda path: write_encoded(path, "libopus", TONES),
    "a.flac": lambda path: write_encoded(path, "flac", TONES),
    "a.webm": lambda path: write_encoded(path, "libopus", TONES),
    "a.mka": lambda path: write_encoded(path, "libopus", TONES),
    "a.amr": lambda path: write_encoded(path, "libopencore_amrnb", TONES, rate=8_000),
    "a.3gp": lambda path: write_encoded(path, "libopencore_amrnb", TONES, rate=8_000),
    "a.aiff": lambda path: write_encoded(path, "pcm_s16be", TONES, rate=16_000),
    "film.mp4": write_film,
    "film.mov": write_film,
    "film.mkv": lambda path: write_film(path, sound="libopus"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_sound_that_went_in(tmp_path: Path, name: str) -> None:
    path = FORMATS[name](tmp_path / name)
    seen = inspect(path, max_seconds=60, scratch=tmp_path)
    assert seen.seconds == pytest.approx(2.0, abs=0.15)
    with decoded(path) as audio:
        assert audio.duration_seconds == pytest.approx(2.0, abs=0.15)
        (heard,) = audio.channels
        assert _pitch(heard[4_000:12_000]) == pytest.approx(440, abs=4)
        assert _pitch(heard[20_000:28_000]) == pytest.approx(880, abs=4)


def _empty(path: Path) -> Path:
    path.touch()
    return path


def _text(path: Path) -> Path:
    path.write_text("Dear diary, nothing was said today.\n" * 20)
    return path


def _picture(path: Path) -> Path:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    return path


def _encrypted_archive(path: Path) -> Path:
    """As an archiver with a password writes it: the flag of the entry says so."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("call.wav", b"secret")
    content = bytearray(packed.getvalue())
    content[6] |= 1
    path.write_bytes(content)
    return path


def _openssl(path: Path) -> Path:
    path.write_bytes(b"Salted__" + np.random.default_rng(1).bytes(4_000))
    return path


def _protected(path: Path) -> Path:
    """An MP4 file whose sample entry says that its sound is protected."""
    plain = write_encoded(path.with_suffix(".m4a"), "aac", noise(3.0))
    path.write_bytes(plain.read_bytes().replace(b"mp4a", b"drms"))
    return path


def _audible(path: Path) -> Path:
    plain = write_encoded(path.with_suffix(".m4a"), "aac", noise(3.0))
    content = plain.read_bytes()
    path.write_bytes(content[:8] + b"aax " + content[12:].replace(b"mp4a", b"aavd"))
    return path


def _without_end(name: str, codec: str) -> Callable[[Path], Path]:
    return lambda path: cut_short(write_encoded(path.with_name(name), codec, noise(20.0)), path)


def _headers_only(path: Path) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"")
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], type[UnreadableAudio]]] = {
    "empty": (_empty, EmptyAudio),
    "a header and nothing else": (_headers_only, EmptyAudio),
    "text": (_text, NotAudio),
    "a picture": (_picture, NotAudio),
    "an encrypted archive": (_encrypted_archive, EncryptedAudio),
    "encrypted by openssl": (_openssl, EncryptedAudio),
    "bought music": (_protected, DrmAudio),
    "an audio book": (_audible, DrmAudio),
    "a film without sound": (lambda path: write_silent_film(path.with_suffix(".mp4")), NoAudioStream),
    "a cut WAV": (lambda path: cut_short(write_wav(path, noise(20.0)), path), TruncatedAudio),
    "a cut FLAC": (lambda path: cut_short(JFK, path), TruncatedAudio),
    "a cut M4A": (_without_end("whole.m4a", "aac"), TruncatedAudio),
    "digital silence": (lambda path: write_wav(path, silence(3.0), silence(3.0)), SilentAudio),
    "a silent MP3": (lambda path: write_encoded(path.with_suffix(".mp3"), "libmp3lame", silence(3.0)), SilentAudio),
    "too long": (lambda path: write_wav(path, noise(31.0)), AudioTooLong),
    "an MP3 that is too long": (
        lambda path: write_encoded(path.with_suffix(".mp3"), "libmp3lame", noise(31.0)),
        AudioTooLong,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_of_no_use_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    make, expected = REFUSED[name]
    path = make(tmp_path / "upload")
    with pytest.raises(UnreadableAudio) as first:
        inspect(path, max_seconds=30, scratch=tmp_path)
    with pytest.raises(UnreadableAudio) as whole, decoded(path, max_seconds=30):
        pass
    assert (type(first.value), type(whole.value)) == (expected, expected)
    assert str(first.value)


def test_every_reason_has_a_code_of_its_own() -> None:
    kinds = UnreadableAudio.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds) == 8


def test_a_look_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", TONES)
    inspect(path, max_seconds=60, scratch=tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_tenth_of_a_second_is_a_recording(tmp_path: Path) -> None:
    seen = inspect(write_wav(tmp_path / "a.wav", noise(0.1)), max_seconds=60, scratch=tmp_path)
    assert seen.seconds == pytest.approx(0.1)


def test_a_long_file_is_measured_without_being_decoded(tmp_path: Path) -> None:
    path = write_encoded(tmp_path / "a.mp3", "libmp3lame", np.tile(noise(10.0), 30), rate=16_000)
    seen = inspect(path, max_seconds=1_000, scratch=tmp_path / "is not needed")
    assert (seen.codec, seen.channels) == ("mp3", 1)
    assert seen.seconds == pytest.approx(300, abs=0.5)
