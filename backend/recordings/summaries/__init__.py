"""Title, summary and action items of a transcript; `open_summarizer` says who writes them."""

from backend.config import Config
from backend.recordings.summaries.base import Summarizer, Summary

__all__ = ["Summarizer", "Summary", "open_summarizer"]


def open_summarizer(config: Config) -> Summarizer:
    """The text model where one is set, with the extractive way to fall back on; else that alone. Opens no connection."""
    from backend.recordings.summaries.extractive import ExtractiveSummarizer
    from backend.recordings.summaries.openai import OpenAISummarizer

    service = config.recordings.openai
    return OpenAISummarizer(service) if service.text_model else ExtractiveSummarizer()
