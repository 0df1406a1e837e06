"""Word to the owner of a recording: it is ready, or will not be. What was said in it is no part of that."""

from datetime import timedelta
from uuid import UUID

from backend.core.db import Session
from backend.core.errors import NotFound
from backend.notifications import service as notifications
from backend.recordings.repository import RecordingRepository
from backend.recordings.repository.recordings import Outcome

# Whoever has just uploaded it still looks at its page, which shows that it is ready.
_LOOKED_AT = timedelta(minutes=1)
_LONGEST_NAME, _LONGEST_ERROR = 120, 500


async def tell(session: Session, recording_id: UUID, *, pages: str) -> None:
    """Note it for the owner, once for each end; of a recording whose last state was just written.

    Nobody is told of the team's, nor of one that is ready within a minute of its upload. `pages` is where people find the pages.
    """
    outcome = await RecordingRepository(session).outcome(recording_id, _LOOKED_AT)
    if outcome is None or outcome.owner_id is None or (outcome.ready and outcome.fresh):
        return
    try:
        await notifications.notify(
            session,
            to_user_id=outcome.owner_id,
            template="recording_ended",
            context=_context(outcome) | {"link": f"{pages}/ops/recordings/{recording_id}"},
            # Each claim and each new start raises the attempts, so that no two ends have the same.
            dedup_key=f"recording:{recording_id}:{outcome.attempts}",
            actor="worker",
        )
    except NotFound as fault:
        if fault.problem != "unknown_user":
            raise
        # The account was closed meanwhile.


def _context(outcome: Outcome) -> dict[str, str]:
    return {
        "name": _line(outcome.name or "", _LONGEST_NAME) or f"recording of {outcome.created_at:%Y-%m-%d}",
        "end": "ready" if outcome.ready else "kept" if outcome.kept else "failed",
        "minutes": _minutes((outcome.duration_ms or 0) / 1000),
        "error": _line(outcome.error or "", _LONGEST_ERROR).rstrip("."),
    }


def _line(text: str, longest: int) -> str:
    """A part of a subject: one line that can be printed."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _minutes(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
