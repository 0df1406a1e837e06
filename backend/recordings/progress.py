"""What part of the work on a recording each stage is."""

from backend.recordings.models import Stage

# Shares of the processor time of a local transcription, measured on the samples. Whoever skips a stage jumps.
WEIGHTS = {
    Stage.FETCH: 0.01,
    Stage.PROBE: 0.01,
    Stage.DECODE: 0.04,
    Stage.SPEECH: 0.05,
    Stage.WORDS: 0.72,
    Stage.SPEAKERS: 0.13,
    Stage.SUMMARY: 0.03,
    Stage.STORE: 0.01,
}
START = dict(zip(WEIGHTS, (sum(list(WEIGHTS.values())[:at]) for at in range(len(WEIGHTS))), strict=True))


def heard(percent: int | None) -> float:
    """How much of a recording's words is there, 0 to 1, where the work as a whole is at `percent`."""
    return min(1.0, max(0.0, ((percent or 0) / 100 - START[Stage.WORDS]) / WEIGHTS[Stage.WORDS]))
