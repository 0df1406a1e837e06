"""Probe and decode recordings as a stream with PyAV.

Memory stays bounded, no program is started and no file but the one named is opened.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.packet import Packet

from backend.core.durations import span
from backend.recordings.sound.containers import PROTECTED, wave_seconds, why_not
from backend.recordings.sound.unreadable import (
    AudioTooLong,
    DrmAudio,
    EmptyAudio,
    NoAudioStream,
    NotAudio,
    SilentAudio,
    cut_short,
    too_long,
)
from backend.recordings.speech.base import Tick
from backend.recordings.speech.channels import ChannelKind, channel_kind, frame_levels, mix
from backend.recordings.speech.samples import SAMPLE_RATE, Samples

MAX_SECONDS = 4 * 3600.0

# dBFS: no 20 ms louder than this is a microphone that is off; the faintest line noise is louder.
_SILENT_DB = -70.0
_UNDER_WAY = ".decoding-"
# Hz. The slowest telephone's is 8,000; at 1 Hz a file of 50 KB becomes 15 hours.
_LOWEST_RATE = 1_000

# Demuxers that read one file and nothing else: a playlist (HLS, concat, DASH) could name files and hosts of its own.
_FORMATS = "aac,ac3,aiff,amr,au,caf,flac,matroska,webm,mov,mp4,m4a,3gp,mp3,ogg,w64,wav"


@dataclass(frozen=True, slots=True)
class Probe:
    """What the header says; `duration_seconds` is None where it does not say."""

    codec: str
    sample_rate: int
    channels: int
    duration_seconds: float | None


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """Samples mapped from `files`. `channels` are those worth hearing, `numbers` their numbers in the file.

    A mix of several channels has the number None. `samples` is the length of each.
    """

    channels: tuple[Samples, ...]
    files: tuple[str, ...]
    numbers: tuple[int | None, ...]
    kind: ChannelKind
    codec: str
    source_channels: int
    samples: int

    @property
    def duration_seconds(self) -> float:
        return self.samples / SAMPLE_RATE

    def as_json(self) -> dict[str, Any]:
        """All but the samples, for `reopened`."""
        return {
            "files": list(self.files),
            "numbers": list(self.numbers),
            "kind": self.kind.value,
            "codec": self.codec,
            "source_channels": self.source_channels,
            "samples": self.samples,
        }


def probe(path: Path) -> Probe:
    """Read the header. Raises UnreadableAudio."""
    with opened(path) as (container, stream):
        return described(container, stream)


def decode(path: Path, folder: Path, *, max_seconds: float, tick: Tick) -> DecodedAudio:
    """Decode to 16 kHz, each of one or two channels for itself (more are mixed), into files of `folder`, replacing what was there.

    The files appear when all of them are whole. Needs 115 MB per hour and channel. Raises UnreadableAudio.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_UNDER_WAY}*"):
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=_UNDER_WAY, dir=folder, ignore_cleanup_errors=True) as scratch:
        header, files = _decoded(path, Path(scratch), max_seconds, tick)
        channels = tuple(_mapped(file) for file in files)
        audio = _chosen(channels, header.channels, header.codec, Path(scratch))
        _check_whole(header, audio.duration_seconds)
        _check_sound(channels, tick)
        for name in audio.files:
            (Path(scratch) / name).replace(folder / name)
    return audio


def reopened(folder: Path, known: dict[str, Any]) -> DecodedAudio | None:
    """What `DecodedAudio.as_json` told about, from the files in `folder`; None unless all of them are there, and whole."""
    audio = DecodedAudio(
        channels=(),
        files=tuple(known["files"]),
        numbers=tuple(known["numbers"]),
        kind=ChannelKind(known["kind"]),
        codec=known["codec"],
        source_channels=known["source_channels"],
        samples=known["samples"],
    )
    try:
        channels = tuple(_mapped(folder / name) for name in audio.files)
    except (OSError, ValueError):
        return None
    if any(len(channel) != audio.samples for channel in channels):
        return None
    return replace(audio, channels=channels)


@contextmanager
def decoded(path: Path, *, max_seconds: float = MAX_SECONDS, folder: Path | None = None) -> Iterator[DecodedAudio]:
    """The same, for as long as the block runs."""
    with TemporaryDirectory(prefix="beatline-audio-", dir=folder, ignore_cleanup_errors=True) as scratch:
        yield decode(path, Path(scratch), max_seconds=max_seconds, tick=lambda _: None)


def _decoded(path: Path, scratch: Path, max_seconds: float, tick: Tick) -> tuple[Probe, list[Path]]:
    with opened(path) as (container, stream):
        header = described(container, stream)
        if header.duration_seconds is not None and header.duration_seconds > max_seconds:
            raise too_long(header.duration_seconds, max_seconds)
        expected = header.duration_seconds or _guessed_seconds(container)
        return header, _decode(container, stream, scratch, max_seconds, _Progress(tick, expected))


def _check_whole(header: Probe, duration: float) -> None:
    promised = header.duration_seconds
    if promised is not None and duration < 0.98 * promised - 1.0:
        raise cut_short(duration, promised)


def _check_sound(channels: Sequence[Samples], tick: Tick) -> None:
    tick(1.0)
    if all(frame_levels(channel).max() <= _SILENT_DB for channel in channels):
        raise SilentAudio("the file holds digital silence and nothing else")


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, AudioStream]]:
    if path.stat().st_size == 0:
        raise EmptyAudio("the file is empty")
    try:
        # An absolute path, so that a name such as `http:x` is not taken for a protocol.
        container = av.open(
            str(path.absolute()), "r", options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"}, timeout=60
        )
    except (av.FFmpegError, ValueError) as fault:
        raise why_not(path, _reason(fault)) from fault
    with container:
        streams = container.streams.audio
        if not streams:
            raise NoAudioStream("the file has no audio stream")
        # Where libav knows no decoder, there is none of its contexts either.
        stream = next((each for each in streams if each.codec_context is not None), None)
        if stream is None:
            raise NotAudio("the file's sound is of a kind that cannot be decoded")
        if _is_protected(stream):
            raise DrmAudio("the file is protected against copying and can be played by its seller's programs alone")
        if not stream.rate or not stream.channels:
            raise NotAudio("the file's audio stream has no sample rate or no channels")
        if stream.rate < _LOWEST_RATE:
            raise NotAudio(f"the file has {stream.rate} samples a second, too few to be sound")
        yield container, stream


def _is_protected(stream: AudioStream) -> bool:
    try:
        return stream.codec_context.codec_tag in PROTECTED
    except UnicodeDecodeError:
        # A damaged one.
        return False


def _reason(fault: Exception) -> str:
    return getattr(fault, "strerror", None) or str(fault)


def described(container: InputContainer, stream: AudioStream) -> Probe:
    return Probe(
        codec=stream.codec_context.codec.canonical_name,
        sample_rate=stream.rate,
        channels=stream.channels,
        duration_seconds=_promised_seconds(container, stream),
    )


def _promised_seconds(container: InputContainer, stream: AudioStream) -> float | None:
    """The header's length. None for formats in which libav guesses it from the bit rate."""
    kind = container.format.name
    if kind in {"mp3", "aac", "amr", "ac3"}:
        return None
    promised = wave_seconds(Path(container.name)) if kind == "wav" else None
    if promised is not None:
        return promised
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _guessed_seconds(container: InputContainer) -> float | None:
    return container.duration / av.time_base if container.duration else None


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Decoded frames; damaged packets are passed over."""
    for packet in packets(container, stream):
        try:
            yield from packet.decode()
        except av.FFmpegError:
            # Whatever its name: damaged AAC is "not permitted", damaged AMR "not implemented", damaged AC-3 "unknown".
            continue


def packets(container: InputContainer, stream: AudioStream) -> Iterator["Packet[AudioStream]"]:
    """Those of a stream, in their order; a damaged container ends them. OSError where it is the disk that cannot be read."""
    try:
        yield from container.demux(stream)
    except av.FFmpegError as fault:
        if isinstance(fault, OSError):
            _check_disk(Path(container.name))


def _check_disk(path: Path) -> None:
    """libav has errors of the operating system for damage, too: the operating system itself must say whether it reads the file."""
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass


class _Writer:
    """Resamples frames and appends each channel to a file of its own."""

    def __init__(self, files: list[IO[bytes]]) -> None:
        self.files = files
        self.samples = 0
        self._resampler: AudioResampler | None = None
        self._shape: tuple[str, str, int] | None = None

    def write(self, frame: AudioFrame) -> None:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if shape != self._shape:
            # A resampler refuses frames of another shape; chained streams have them.
            self.finish()
            layout = "mono" if len(self.files) == 1 else "stereo"
            self._resampler = AudioResampler(format="s16p", layout=layout, rate=SAMPLE_RATE)
            self._shape = shape
        frame.pts = None
        self._resample(frame)

    def finish(self) -> None:
        self._resample(None)
        self._resampler, self._shape = None, None

    def _resample(self, frame: AudioFrame | None) -> None:
        for piece in self._resampled(frame):
            planes = piece.to_ndarray()
            self.samples += planes.shape[1]
            for file, plane in zip(self.files, planes, strict=True):
                file.write(plane.astype("<i2", copy=False).tobytes())

    def _resampled(self, frame: AudioFrame | None) -> Sequence[AudioFrame]:
        try:
            return self._resampler.resample(frame) if self._resampler else ()
        except av.FFmpegError:
            # A damaged frame may be of a shape that no sound has; what follows begins anew.
            self._resampler, self._shape = None, None
            return ()


class _Progress:
    """Tells how much of `expected` seconds (None: nobody knows) is decoded, about twice a second."""

    def __init__(self, tick: Tick, expected: float | None) -> None:
        self._tick, self._expected = tick, expected
        self._told = 0.0

    def at(self, samples: int) -> None:
        now = time.monotonic()
        if now - self._told >= 0.5:
            self._told = now
            self._tick(min(1.0, samples / SAMPLE_RATE / self._expected) if self._expected else 0.0)


def _decode(
    container: InputContainer, stream: AudioStream, scratch: Path, max_seconds: float, progress: _Progress
) -> list[Path]:
    paths = [scratch / f"{number}.s16" for number in range(2 if stream.channels == 2 else 1)]
    with ExitStack() as stack:
        writer = _Writer([stack.enter_context(path.open("wb")) for path in paths])
        for frame in _frames(container, stream):
            writer.write(frame)
            progress.at(writer.samples)
            if writer.samples > max_seconds * SAMPLE_RATE:
                raise AudioTooLong(f"the file is longer than the limit of {span(max_seconds)}")
        writer.finish()
        if not writer.samples:
            raise EmptyAudio("the file holds no sound that can be decoded")
    return paths


def _mapped(path: Path) -> Samples:
    return np.memmap(path, dtype="<i2", mode="r")


def _chosen(channels: tuple[Samples, ...], source_channels: int, codec: str, scratch: Path) -> DecodedAudio:
    """Which channels to hear: both of a split pair, the living one of a half-dead pair, else one for all."""
    kind, numbers = channel_kind(channels)
    if source_channels > 2:
        kind = ChannelKind.DOWNMIX
    heard, files = channels, tuple(f"{number}.s16" for number in range(len(channels)))
    if len(channels) > 1 and numbers == (None,):
        heard, files = (_mapped(mix(channels, scratch / "mix.s16")),), ("mix.s16",)
    elif len(channels) > 1:
        kept = [number for number in numbers if number is not None]
        heard, files = tuple(channels[number] for number in kept), tuple(files[number] for number in kept)
    return DecodedAudio(heard, files, numbers, kind, codec, source_channels, len(channels[0]))
