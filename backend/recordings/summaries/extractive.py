"""A summary out of the transcript's own sentences: no model, no service, the same text gives the same summary."""

from collections.abc import Sequence

from backend.recordings.speech.base import Tick, Transcript
from backend.recordings.summaries.action_items import action_items
from backend.recordings.summaries.base import MAX_ITEMS, MAX_TITLE, Summary, no_tick, shortened
from backend.recordings.summaries.ranking import ranked
from backend.recordings.summaries.sentences import Sentence, sentences_of

_SENTENCES = 5
# A ranking compares each sentence with each other one: 2,000 of them are 32 MB, of a talk of three hours.
_MOST_RANKED = 2000


class ExtractiveSummarizer:
    """The most central sentences in their order, the best as the title, and what sounds like a task.

    It names no speaker: people rename them later.
    """

    def summarize(
        self,
        transcript: Transcript,
        language: str | None = None,
        *,
        names: Sequence[str] = (),  # noqa: ARG002 - protocol
        tick: Tick = no_tick,
        note: str | None = None,
    ) -> Summary:
        """`note` says why it is not the text model's."""
        tick(0.0)
        code = language or transcript.language
        sentences = sentences_of(transcript, code)
        chosen = _chosen(sentences, code)
        tick(1.0)
        return Summary(
            title=_title(chosen),
            summary=" ".join(sentence.text for sentence in sorted(chosen, key=lambda sentence: sentence.number)),
            action_items=tuple(action_items(sentences, code)[:MAX_ITEMS]),
            backend="extractive",
            note=note,
        )


def _chosen(sentences: Sequence[Sentence], language: str | None) -> list[Sentence]:
    """Best first."""
    worth = [sentence for sentence in sentences if len(sentence.words) >= 3] or list(sentences)
    step = -(-len(worth) // _MOST_RANKED) or 1
    worth = worth[::step]
    order = ranked([sentence.words for sentence in worth], language)
    return [worth[number] for number in order[:_SENTENCES]]


def _title(chosen: Sequence[Sentence]) -> str:
    if not chosen:
        return ""
    best = next((sentence.text for sentence in chosen if not sentence.text.endswith(("?", "？", "؟"))), chosen[0].text)
    return shortened(best, MAX_TITLE).rstrip(" .,;:!?。，！？।")
