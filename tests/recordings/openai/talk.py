"""Transcripts for summaries."""

from backend.recordings.speech.base import Segment, Transcript


def talk(*lines: tuple[str | None, str], language: str | None = "en") -> Transcript:
    """(speaker, text), three seconds each."""
    said = tuple(
        Segment(3.0 * number, 3.0 * number + 3.0, speaker, None, text, (), 0.9)
        for number, (speaker, text) in enumerate(lines)
    )
    return Transcript(said, language, 3.0 * len(lines), 1, "local", "base")


CALL = talk(
    ("agent", "Hello, this is Anna from Beatline. How are you?"),
    ("customer", "Good, thanks."),
    ("agent", "Your car insurance policy expires next Friday, and I am calling about the renewal of the policy."),
    ("customer", "Right. What does the renewal of the policy cost this year?"),
    (
        "agent",
        "The premium is 340 euros, ten less than last year. I'll send you the renewal papers by e-mail tomorrow.",
    ),
    ("customer", "Can you also check whether the policy covers my trailer? Can you hear me?"),
    ("agent", "Yes, I will check that and call you back on Monday. Nice weather today."),
    ("customer", "Great, I will be there."),
)
