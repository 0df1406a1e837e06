"""What every summarizer takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backend.recordings.speech.base import Tick, Transcript

# What is stored and shown; longer ones are cut or refused.
MAX_TITLE, MAX_SUMMARY, MAX_ITEM, MAX_ITEMS = 100, 3000, 300, 20


@dataclass(frozen=True, slots=True)
class Summary:
    """Plain text, in the language of the transcript. `backend` (openai or extractive) and `model` say who wrote it.

    `note`: why it is extractive where openai was asked for. `usage` as the service counts; `cost` is US dollars, None where nothing
    was paid or no price is set.
    """

    title: str
    summary: str
    action_items: tuple[str, ...]
    backend: str
    model: str | None = None
    note: str | None = None
    cost: float | None = None
    usage: dict[str, float] = field(default_factory=dict)


def no_tick(done: float) -> None:
    """For whoever never stops the work."""


class Summarizer(Protocol):
    """Writes title, summary and action items of a transcript. Blocking."""

    def summarize(
        self, transcript: Transcript, language: str | None = None, *, names: Sequence[str] = (), tick: Tick = no_tick
    ) -> Summary:
        """`language` overrides the transcript's. Raises nothing but what `tick` raises: what fails becomes extractive, with a note.

        `names`: the speakers' labels in the transcript, for a model to call them so.
        """
        ...


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters, cut between words where there is a space in the second half."""
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    cut = head.rfind(" ")
    return (head[:cut] if cut > limit // 2 else head).rstrip() + "…"
