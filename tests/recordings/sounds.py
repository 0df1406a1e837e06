"""Sounds and files for the tests."""

import wave
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from numpy.typing import NDArray

AUDIO = Path(__file__).parent.parent / "fixtures" / "audio"
CALL, JFK, AUSTEN = AUDIO / "call_two_channel.wav", AUDIO / "speech_jfk.flac", AUDIO / "read_austen_2.wav"

RATE = 16_000
Sound = NDArray[np.int16]


def silence(seconds: float) -> Sound:
    return np.zeros(int(seconds * RATE), dtype=np.int16)


def tone(seconds: float, *, level: float = 0.3, pitch: float = 440.0) -> Sound:
    at = np.arange(int(seconds * RATE)) / RATE
    return (32767 * level * np.sin(2 * np.pi * pitch * at)).astype(np.int16)


def noise(seconds: float, *, level: float = 0.1, seed: int = 1) -> Sound:
    samples = np.random.default_rng(seed).normal(0.0, 32767 * level, int(seconds * RATE))
    return np.clip(samples, -32768, 32767).astype(np.int16)


def write_wav(path: Path, *channels: Sound, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.stack(channels, axis=1).astype("<i2").tobytes())
    return path


def write_encoded(path: Path, codec: str, *channels: Sound, rate: int = 48_000) -> Path:
    """Encode with libav; the container follows from the file's name."""
    layout = "stereo" if len(channels) == 2 else "mono"
    with av.open(str(path), "w") as container:
        stream = cast("AudioStream", container.add_stream(codec, rate=rate, layout=layout))
        for start in range(0, len(channels[0]), RATE):
            piece = np.stack([channel[start : start + RATE] for channel in channels])
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="s16p", layout=layout)
            frame.sample_rate = RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_silent_film(path: Path) -> Path:
    """A video without an audio stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def cut_short(source: Path, target: Path, share: float = 0.5) -> Path:
    """The first part of a file's bytes, as a broken upload leaves them."""
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target
