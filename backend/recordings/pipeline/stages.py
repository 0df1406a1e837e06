"""The stages, in their order. Each one's result is a checkpoint; decoded sound is files, made again where they are missing."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backend.recordings.models import Stage
from backend.recordings.options import TranscribeOptions
from backend.recordings.pipeline import parties, values
from backend.recordings.pipeline.checkpoints import Checkpoints, Kept
from backend.recordings.pipeline.result import Observe, Result
from backend.recordings.pipeline.tools import Tools
from backend.recordings.sound import decoding as audio
from backend.recordings.sound.decoding import DecodedAudio
from backend.recordings.speech.base import HeardPart, Part, Segment, SpeechEngine, Tick, Transcript, Turn
from backend.recordings.speech.voice_activity import Run
from backend.recordings.summaries.base import Summary

# A change of what a stage gives for the same file makes older checkpoints worthless.
_VERSION = 1
_ENDS = 65_536


def run(
    path: Path,
    tools: Tools,
    *,
    options: TranscribeOptions,
    channel_speakers: Sequence[str] = (),
    work: Path,
    checkpoints: Checkpoints,
    observe: Observe,
) -> Result:
    """Transcribe a file; blocking, as long as a third of it or more. Goes on from `checkpoints`.

    `work` is a folder for decoded sound, 115 MB an hour and channel, which the caller removes in the end. `channel_speakers` names
    the parties by channel and is used where a channel holds one party.

    Raises UnreadableAudio, what the engine raises, OSError of the disk, and whatever `observe` raises to stop it.
    """
    with _alone(tools, observe):
        return _Run(path, tools, options, tuple(channel_speakers), work, checkpoints, observe).result()


@contextmanager
def _alone(tools: Tools, observe: Observe) -> Iterator[None]:
    # A task that was stopped may leave its thread at work for a moment; the next one waits for it.
    while not tools.busy.acquire(timeout=0.5):
        observe(Stage.PROBE, 0.0)
    try:
        yield
    finally:
        tools.busy.release()


class _Run:
    def __init__(
        self,
        path: Path,
        tools: Tools,
        options: TranscribeOptions,
        names: tuple[str, ...],
        work: Path,
        checkpoints: Checkpoints,
        observe: Observe,
    ) -> None:
        self._path, self._tools, self._options, self._names = path, tools, options, names
        self._work, self._checkpoints, self._observe = work, checkpoints, observe
        self._sound = _way(_VERSION, _identity(path))

    def result(self) -> Result:
        sound = self._decoded()
        runs = self._speech(sound)
        self._observe(Stage.WORDS, 0.0)
        engine = self._tools.engine(self._options.backend)
        spoken = _way(
            self._sound,
            engine.backend,
            engine.model,
            self._options.language or self._tools.language,
            self._options.hints,
        )
        parts = engine.parts(runs, sound.duration_seconds, isolated=len(sound.channels) > 1)
        heard = self._words(engine, Kept(self._checkpoints, spoken), sound, runs, parts)
        asked = self._options.model_dump(include={"diarization", "speakers", "min_speakers", "max_speakers"})
        told = _way(spoken, asked, self._names)
        segments, diarizer = self._parties(
            Kept(self._checkpoints, told), sound, runs, _joined(engine, sound, parts, heard)
        )
        transcript = Transcript(
            segments=tuple(sorted(segments, key=lambda piece: (piece.start, piece.end))),
            language=_language(parts, heard),
            duration_seconds=round(sound.duration_seconds, 3),
            channels=sound.source_channels,
            backend=engine.backend,
            model=engine.model,
        )
        usage = _usage(heard)
        speakers = parties.spoken(transcript.segments)
        return Result(
            transcript=transcript,
            codec=sound.codec,
            speakers=speakers,
            samples=self._samples(sound, transcript),
            summary=self._summary(Kept(self._checkpoints, told), transcript, [label for label, _ in speakers]),
            diarizer=diarizer,
            usage=usage,
            cost=engine.cost(usage, sum(part.end - part.start for part in parts)),
        )

    def _tick(self, stage: Stage, start: float = 0.0, end: float = 1.0) -> Tick:
        return lambda share: self._observe(stage, start + (end - start) * share)

    def _decoded(self) -> DecodedAudio:
        kept = Kept(self._checkpoints, self._sound)
        self._observe(Stage.PROBE, 0.0)
        known = kept.load(Stage.DECODE)
        found = audio.reopened(self._work, known) if known is not None else None
        if found is None:
            found = audio.decode(
                self._path, self._work, max_seconds=self._tools.max_seconds, tick=self._tick(Stage.DECODE)
            )
            kept.save(Stage.DECODE, found.as_json())
            found = audio.reopened(self._work, found.as_json()) or found
        return found

    def _speech(self, sound: DecodedAudio) -> list[list[Run]]:
        kept, several = Kept(self._checkpoints, self._sound), len(sound.channels)
        runs: list[list[Run]] = []
        for number, channel in enumerate(sound.channels):
            known = kept.load(Stage.SPEECH, number)
            if known is None:
                tick = self._tick(Stage.SPEECH, number / several, (number + 1) / several)
                tick(0.0)
                known = values.runs_json(self._tools.voice().runs(channel, isolated=several > 1, tick=tick))
                kept.save(Stage.SPEECH, known, number)
            runs.append(values.runs_of(known))
        return runs

    def _words(
        self, engine: SpeechEngine, kept: Kept, sound: DecodedAudio, runs: list[list[Run]], parts: list[Part]
    ) -> list[HeardPart]:
        """Part 0 of the stage is the language, the others are the engine's."""
        known = [values.heard_of(part, kept.load(Stage.WORDS, number)) for number, part in enumerate(parts, 1)]
        if None not in known:
            return [heard for heard in known if heard is not None]
        language = self._spoken(engine, kept, sound, runs)
        total, done = sum(part.end - part.start for part in parts), 0.0
        heard: list[HeardPart] = []
        for number, (part, before) in enumerate(zip(parts, known, strict=True), 1):
            tick = self._tick(Stage.WORDS, done / total, (done + part.end - part.start) / total)
            tick(0.0)
            done += part.end - part.start
            found = before or engine.hear(
                sound.channels[part.channel],
                part,
                runs[part.channel],
                language=language,
                hints=self._options.hints,
                tick=tick,
            )
            if before is None:
                kept.save(Stage.WORDS, values.heard_json(part, found), number)
            heard.append(found)
        return heard

    def _spoken(self, engine: SpeechEngine, kept: Kept, sound: DecodedAudio, runs: list[list[Run]]) -> str | None:
        given = self._options.language or self._tools.language
        if given:
            return given
        known = kept.load(Stage.WORDS)
        if known is None:
            known = {"language": engine.language(sound.channels, runs, self._tick(Stage.WORDS, 0.0, 0.0))}
            kept.save(Stage.WORDS, known)
        language: str | None = known["language"]
        return language

    def _parties(
        self, kept: Kept, sound: DecodedAudio, runs: list[list[Run]], heard: list[list[Segment]]
    ) -> tuple[list[Segment], str | None]:
        self._observe(Stage.SPEAKERS, 0.0)
        several = len(sound.channels) > 1
        names = [parties.named(number, self._names, several=several) for number in sound.numbers]
        if several or names[0] is not None or not self._options.diarization or not heard[0]:
            pieces = zip(heard, sound.numbers, names, strict=True)
            return [each for said, at, who in pieces for each in parties.by_channel(said, at, who, split=several)], None
        diarizer = self._tools.diarizer()
        told = self._turns(kept, sound, runs[0])
        return parties.by_voice(heard[0], sound.numbers[0], told), diarizer.model

    def _turns(self, kept: Kept, sound: DecodedAudio, runs: list[Run]) -> list[Turn]:
        diarizer = self._tools.diarizer()
        known: dict[str, Any] | None = kept.load(Stage.SPEAKERS)
        if known is None or known["model"] != diarizer.model:
            count = parties.count(self._options, self._names)
            turns = diarizer.turns(sound.channels[0], runs, count, self._tick(Stage.SPEAKERS))
            known = {"model": diarizer.model, "turns": values.turns_json(turns)}
            kept.save(Stage.SPEAKERS, known)
        return values.turns_of(known["turns"])

    def _samples(self, sound: DecodedAudio, transcript: Transcript) -> dict[str, Path]:
        """A clip of each voice, cut anew each time: that takes a moment."""
        if self._tools.voice_samples is None:
            return {}
        found: dict[str, Path] = {}
        for number, channel in zip(sound.numbers, sound.channels, strict=True):
            said = [piece for piece in transcript.segments if piece.channel == number and piece.speaker is not None]
            labels = list(dict.fromkeys(piece.speaker for piece in said))
            turns = parties.stretches(said, labels)
            self._observe(Stage.SPEAKERS, 1.0)
            folder = self._work / "voices" / str(number or 0)
            folder.mkdir(parents=True, exist_ok=True)
            clips = self._tools.voice_samples(channel, turns, folder) if turns else {}
            found |= {str(labels[speaker]): path for speaker, path in clips.items()}
        return found

    def _summary(self, kept: Kept, transcript: Transcript, names: list[str]) -> Summary | None:
        if not self._options.summary or not transcript.segments:
            return None
        known = kept.load(Stage.SUMMARY)
        if known is None:
            self._observe(Stage.SUMMARY, 0.0)
            written = self._tools.summarizer().summarize(
                transcript, self._options.language, names=names, tick=self._tick(Stage.SUMMARY)
            )
            known = values.summary_json(written)
            kept.save(Stage.SUMMARY, known)
        return values.summary_of(known)


def _joined(
    engine: SpeechEngine, sound: DecodedAudio, parts: Sequence[Part], heard: Sequence[HeardPart]
) -> list[list[Segment]]:
    """Segments by channel."""
    pairs = list(zip(parts, heard, strict=True))
    result = []
    for channel in range(len(sound.channels)):
        own = [(part, found) for part, found in pairs if part.channel == channel]
        result.append(engine.joined([part for part, _ in own], [found for _, found in own]))
    return result


def _language(parts: Sequence[Part], heard: Sequence[HeardPart]) -> str | None:
    """The one that is spoken longest."""
    spoken: Counter[str] = Counter()
    for part, found in zip(parts, heard, strict=True):
        if found.language:
            spoken[found.language] += round(1000 * (part.end - part.start))
    return spoken.most_common(1)[0][0] if spoken else None


def _usage(heard: Sequence[HeardPart]) -> dict[str, float]:
    total: dict[str, float] = {}
    for found in heard:
        for name, amount in found.usage.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def _way(*how: Any) -> str:
    return hashlib.sha256(json.dumps(how).encode()).hexdigest()[:16]


def _identity(path: Path) -> str:
    """Of the content, by its length and both ends: the same on every machine, and fast for a file of gigabytes."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_ENDS))
        file.seek(max(0, size - _ENDS))
        digest.update(file.read(_ENDS))
    return digest.hexdigest()
