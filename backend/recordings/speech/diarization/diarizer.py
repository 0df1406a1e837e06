"""Opens the diarizer that the settings name."""

from backend.config import Config
from backend.recordings.speech.base import Diarizer
from backend.recordings.speech.diarization.voices import VoiceModel
from backend.recordings.speech.diarization.windows import WindowDiarizer


def open_diarizer(config: Config) -> Diarizer:
    """The diarizer with its weights loaded: once per process, never before a fork. Raises WeightsMissing."""
    return WindowDiarizer(VoiceModel(_device(config.recordings.speech.device)))


def _device(setting: str) -> str:
    import torch

    if setting == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return setting
