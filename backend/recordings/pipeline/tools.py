"""The models and services of the pipeline: each is loaded when it is first needed, and then kept."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from backend.config import Config
from backend.recordings.speech.base import Diarizer, SpeechEngine, Turn
from backend.recordings.speech.diarization.diarizer import open_diarizer
from backend.recordings.speech.local import Device, LocalSpeechEngine
from backend.recordings.speech.openai import open_engine
from backend.recordings.speech.samples import Samples
from backend.recordings.speech.voice_activity import VoiceActivity
from backend.recordings.summaries import open_summarizer
from backend.recordings.summaries.base import Summarizer
from backend.recordings.voice_samples import voice_samples

T = TypeVar("T")
# Samples and turns of one channel -> a short clip of each speaker's voice in a folder.
VoiceSamples = Callable[[Samples, Sequence[Turn], Path], Mapping[int, Path]]


@dataclass
class Tools:
    """Of one process; they keep state while they work, so `busy` is for one recording at a time.

    `engines` by name, `backend` the name of the one to take where nobody asks for another. `language` is an ISO 639-1 code,
    empty to detect it. Loading raises WeightsMissing where this installation lacks a model.
    """

    engines: Mapping[str, Callable[[], SpeechEngine]]
    open_diarizer: Callable[[], Diarizer]
    open_summarizer: Callable[[], Summarizer]
    open_voice: Callable[[], VoiceActivity] = VoiceActivity
    voice_samples: VoiceSamples | None = None
    backend: str = "local"
    language: str = ""
    max_seconds: float = 4 * 3600.0
    busy: threading.Lock = field(default_factory=threading.Lock)
    _loaded: dict[str, Any] = field(default_factory=dict)
    _loading: threading.RLock = field(default_factory=threading.RLock)

    def engine(self, backend: str | None = None) -> SpeechEngine:
        name = backend or self.backend
        return self._once(f"engine {name}", self.engines[name])

    def diarizer(self) -> Diarizer:
        return self._once("diarizer", self.open_diarizer)

    def summarizer(self) -> Summarizer:
        return self._once("summarizer", self.open_summarizer)

    def voice(self) -> VoiceActivity:
        return self._once("voice", self.open_voice)

    def _once(self, name: str, load: Callable[[], T]) -> T:
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = load()
            loaded: T = self._loaded[name]
            return loaded


def open_tools(config: Config) -> Tools:
    """What the settings name. Nothing is loaded yet: never do that before a fork."""
    speech = config.recordings.speech
    return Tools(
        engines={"local": partial(_local, config), "openai": partial(open_engine, config)},
        open_diarizer=partial(open_diarizer, config),
        open_summarizer=partial(open_summarizer, config),
        voice_samples=voice_samples,
        backend=speech.backend,
        language=speech.language,
        max_seconds=config.recordings.uploads.max_seconds,
    )


def _local(config: Config) -> SpeechEngine:
    speech = config.recordings.speech
    return LocalSpeechEngine(
        threads=speech.threads,
        cache=config.cache_dir,
        model_dir=speech.model_dir,
        device=cast("Device", speech.device),
    )
