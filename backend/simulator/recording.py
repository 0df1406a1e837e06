"""Recording files: the clip as it is, its beginning, or both sides mixed into one channel."""

import shutil
from pathlib import Path
from typing import Any

import av

_RATE = 48_000


def write_recording(clip: Path, target: Path, seconds: float | None, *, two_channels: bool) -> None:
    """Write the first `seconds` of the clip, None for all of it; the file appears under its name only when whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial.ogg")
    if not two_channels:
        _mix(clip, partial, seconds)
    elif seconds is None:
        shutil.copyfile(clip, partial)
    else:
        _cut(clip, partial, seconds)
    partial.replace(target)


def duration_of(path: Path) -> float:
    with av.open(str(path)) as container:
        return float((container.duration or 0) / av.time_base)


def _cut(clip: Path, target: Path, seconds: float) -> None:
    """Packets are copied, not encoded again; at least one is kept."""
    with av.open(str(clip)) as source, av.open(str(target), "w", format="ogg") as sink:
        stream = source.streams.audio[0]
        copy = sink.add_stream_from_template(stream)
        for index, packet in enumerate(source.demux(stream)):
            if packet.pts is None or (index and float(packet.pts * packet.time_base) >= seconds):
                break
            packet.stream = copy
            sink.mux(packet)


def _mix(clip: Path, target: Path, seconds: float | None) -> None:
    resampler = av.AudioResampler("s16", "mono", _RATE, frame_size=960)
    with av.open(str(clip)) as source, av.open(str(target), "w", format="ogg") as sink:
        stream: Any = sink.add_stream("libopus", rate=_RATE, layout="mono")
        for frame in source.decode(audio=0):
            if seconds is not None and frame.time is not None and frame.time >= seconds:
                break
            for piece in resampler.resample(frame):
                sink.mux(stream.encode(piece))
        for piece in resampler.resample(None):
            sink.mux(stream.encode(piece))
        sink.mux(stream.encode(None))
