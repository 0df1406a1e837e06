"""From the settings to an engine and a summarizer, and what is loaded when."""

import subprocess
import sys

import pytest

from backend.config import Config, load
from backend.core.errors import PermanentError
from backend.environment import ConfigError
from backend.recordings.speech.openai import open_engine
from backend.recordings.summaries import open_summarizer
from backend.recordings.summaries.extractive import ExtractiveSummarizer
from backend.recordings.summaries.openai import OpenAISummarizer


def settings(**changed: str) -> Config:
    return load(changed)


def test_the_engine_says_who_it_is() -> None:
    engine = open_engine(settings(OPENAI_API_KEY="sk-1", OPENAI_TRANSCRIPTION_MODEL="whisper-1"))
    assert (engine.backend, engine.model) == ("openai", "whisper-1")


def test_the_model_by_default_is_openais_latest() -> None:
    assert open_engine(settings(OPENAI_API_KEY="sk-1")).model == "gpt-transcribe"


def test_without_a_key_the_engine_does_not_open() -> None:
    with pytest.raises(PermanentError, match="OPENAI_API_KEY is not set"):
        open_engine(settings())


def test_a_key_alone_sends_no_transcript_to_a_text_model() -> None:
    assert isinstance(open_summarizer(settings(OPENAI_API_KEY="sk-1")), ExtractiveSummarizer)


def test_a_text_model_writes_the_summaries() -> None:
    assert isinstance(open_summarizer(settings(OPENAI_API_KEY="sk-1", OPENAI_TEXT_MODEL="m")), OpenAISummarizer)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_BASE_URL", "api.openai.com"),
        ("OPENAI_TIMEOUT_SECONDS", "0"),
        ("OPENAI_PRICE_PER_MINUTE", "cheap"),
        ("OPENAI_PRICE_PER_MINUTE", "-1"),
        ("OPENAI_PRICE_PER_MILLION_INPUT_TOKENS", "nan"),
        ("OPENAI_API_KEY", "sk-1\tx"),
    ],
)
def test_malformed_settings_stop_the_start(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        settings(**{name: value})


def test_a_wrong_key_is_not_in_the_complaint() -> None:
    with pytest.raises(ConfigError) as caught:
        settings(OPENAI_API_KEY="sk-very secret")
    assert "very" not in str(caught.value)


def loaded_by(statement: str) -> set[str]:
    """Top-level modules of a fresh process after `statement`."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_protocols_load_no_library() -> None:
    heavy = {"openai", "numpy", "av", "pydub", "sentencex", "py3langid", "stopwordsiso"}
    loaded = loaded_by("import backend.recordings.summaries, backend.recordings.openai_refused")
    assert loaded & heavy == set()


def test_the_openai_package_is_loaded_once_an_engine_opens() -> None:
    assert "openai" not in loaded_by("import backend.recordings.speech.openai, backend.recordings.summaries.openai")
