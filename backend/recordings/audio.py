"""Probe and decode recordings as a stream with PyAV.

Memory stays bounded, no program is started and no file but the one named is opened.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container.input import InputContainer

from backend.core.errors import PermanentError
from backend.recordings.channels import ChannelKind, channel_kind, mix
from backend.recordings.speech.samples import SAMPLE_RATE, Samples

MAX_SECONDS = 4 * 3600.0

# Demuxers that read one file and nothing else: a playlist (HLS, concat, DASH) could name files and hosts of its own.
_FORMATS = "aac,ac3,aiff,amr,au,caf,flac,matroska,webm,mov,mp4,m4a,3gp,mp3,ogg,w64,wav"


class UnreadableAudio(PermanentError):
    """The file cannot be transcribed, now or later; each subclass says why."""


class EmptyAudio(UnreadableAudio):
    """No bytes, or a container without a single sample."""


class NotAudio(UnreadableAudio):
    """Not a media file, or one of a kind that is not accepted."""


class NoAudioStream(UnreadableAudio):
    """A media file without sound."""


class TruncatedAudio(UnreadableAudio):
    """The file ends before what its header promises, or is damaged beyond that point."""


class AudioTooLong(UnreadableAudio):
    """Longer than the limit."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What the header says; `duration_seconds` is None where it does not say."""

    codec: str
    sample_rate: int
    channels: int
    duration_seconds: float | None


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """Samples mapped from temporary files. `channels` are those worth hearing, `numbers` their numbers in the file.

    A mix of several channels has the number None.
    """

    channels: tuple[Samples, ...]
    numbers: tuple[int | None, ...]
    kind: ChannelKind
    source_channels: int
    duration_seconds: float


def probe(path: Path) -> Probe:
    """Read the header. Raises UnreadableAudio."""
    with _opened(path) as (container, stream):
        return _probe(container, stream)


@contextmanager
def decoded(path: Path, *, max_seconds: float = MAX_SECONDS, folder: Path | None = None) -> Iterator[DecodedAudio]:
    """Decode to 16 kHz, each of one or two channels for itself (more are mixed), below `folder` until the block ends.

    Raises UnreadableAudio. Needs 115 MB of temporary space per hour and channel.
    """
    with TemporaryDirectory(prefix="beatline-audio-", dir=folder, ignore_cleanup_errors=True) as scratch:
        with _opened(path) as (container, stream):
            header = _probe(container, stream)
            files = _decode(container, stream, Path(scratch), max_seconds)
        channels = tuple(_mapped(file) for file in files)
        duration = len(channels[0]) / SAMPLE_RATE
        promised = header.duration_seconds
        if promised is not None and duration < 0.98 * promised - 1.0:
            raise TruncatedAudio(f"{path.name} holds {duration:.1f} s of the {promised:.1f} s that its header promises")
        yield _chosen(channels, header.channels, duration, Path(scratch))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, AudioStream]]:
    if path.stat().st_size == 0:
        raise EmptyAudio(f"{path.name} is empty")
    try:
        # An absolute path, so that a name such as `http:x` is not taken for a protocol.
        container = av.open(
            str(path.absolute()), "r", options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"}, timeout=60
        )
    except (av.FFmpegError, ValueError) as fault:
        raise NotAudio(f"{path.name} is not a recording that can be read: {_reason(fault)}") from fault
    with container:
        stream = next(iter(container.streams.audio), None)
        if stream is None:
            raise NoAudioStream(f"{path.name} has no audio stream")
        if not stream.rate or not stream.channels:
            raise NotAudio(f"{path.name}: its audio stream has no sample rate or no channels")
        yield container, stream


def _reason(fault: Exception) -> str:
    return getattr(fault, "strerror", None) or str(fault)


def _probe(container: InputContainer, stream: AudioStream) -> Probe:
    return Probe(
        codec=stream.codec_context.name,
        sample_rate=stream.rate,
        channels=stream.channels,
        duration_seconds=_promised_seconds(container, stream),
    )


def _promised_seconds(container: InputContainer, stream: AudioStream) -> float | None:
    """The header's length. None for formats in which libav guesses it from the bit rate."""
    if container.format.name in {"mp3", "aac", "amr", "ac3"}:
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Decoded frames; damaged packets are passed over, a damaged container ends the stream."""
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.InvalidDataError:
                continue
    except (av.InvalidDataError, av.EOFError):
        return


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
        self._resampler = None

    def _resample(self, frame: AudioFrame | None) -> None:
        for piece in self._resampler.resample(frame) if self._resampler else ():
            planes = piece.to_ndarray()
            self.samples += planes.shape[1]
            for file, plane in zip(self.files, planes, strict=True):
                file.write(plane.astype("<i2", copy=False).tobytes())


def _decode(container: InputContainer, stream: AudioStream, scratch: Path, max_seconds: float) -> list[Path]:
    paths = [scratch / f"{number}.s16" for number in range(2 if stream.channels == 2 else 1)]
    with ExitStack() as stack:
        writer = _Writer([stack.enter_context(path.open("wb")) for path in paths])
        for frame in _frames(container, stream):
            writer.write(frame)
            if writer.samples > max_seconds * SAMPLE_RATE:
                raise AudioTooLong(f"longer than {max_seconds:.0f} s")
        writer.finish()
        if not writer.samples:
            raise EmptyAudio("the recording holds no sound that can be decoded")
    return paths


def _mapped(path: Path) -> Samples:
    return np.memmap(path, dtype="<i2", mode="r")


def _chosen(channels: tuple[Samples, ...], source_channels: int, duration: float, scratch: Path) -> DecodedAudio:
    """Which channels to hear: both of a split pair, the living one of a half-dead pair, else one for all."""
    kind, numbers = channel_kind(channels)
    if source_channels > 2:
        kind = ChannelKind.DOWNMIX
    heard = channels
    if len(channels) > 1 and numbers == (None,):
        heard = (_mapped(mix(channels, scratch / "mix.s16")),)
    elif len(channels) > 1:
        heard = tuple(channels[number] for number in numbers if number is not None)
    return DecodedAudio(heard, numbers, kind, source_channels, duration)
