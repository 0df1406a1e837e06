"""Full-text search over what was said, in recordings that whoever asks may read."""

import base64
import binascii
import json
import re
from datetime import UTC, datetime
from uuid import UUID

from backend.core.db import Session
from backend.core.errors import Invalid, Unavailable
from backend.core.principal import Principal
from backend.recordings import access
from backend.recordings.repository.transcripts import (
    MATCH_ENDS,
    MATCH_STARTS,
    SEARCH_SECONDS,
    Place,
    TooSlow,
    TranscriptRepository,
)
from backend.recordings.schemas import SearchHit, SearchPage, SnippetPart

_MARKS = re.compile(f"[{MATCH_STARTS}{MATCH_ENDS}]")


async def search(
    session: Session,
    query: str,
    principal: Principal,
    *,
    only: UUID | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> SearchPage:
    """Segments that match, the newest recording's first; `only`: within one recording.

    The syntax is that of PostgreSQL's websearch_to_tsquery: words (all of them, in any order), "a phrase", `or`, -without. Anything
    else is taken as words; nothing is a mistake. Words are compared by their stems in the language of the recording. Unavailable
    (503, `search_too_slow`) where it takes longer than SEARCH_SECONDS.
    """
    place = _place(cursor)
    try:
        rows = await TranscriptRepository(session).search(
            access.viewer(principal), query, only=only, after=place, limit=limit + 1
        )
    except TooSlow as fault:
        raise Unavailable(
            f"q: the search took longer than {SEARCH_SECONDS} s; add a rarer word, or search in one recording",
            code="search_too_slow",
            retry_after=10,
        ) from fault
    hits = [
        SearchHit(
            recording_id=row["recording_id"],
            title=row["title"],
            filename=row["filename"],
            recorded_at=row["created_at"],
            number=row["number"],
            start=row["start_ms"] / 1000,
            end=row["end_ms"] / 1000,
            speaker=row["speaker"],
            name=row["name"],
            snippet=_parts(row["snippet"]),
        )
        for row in rows[:limit]
    ]
    return SearchPage(items=hits, next_cursor=_cursor(hits[-1]) if len(rows) > limit else None)


def _parts(snippet: str) -> list[SnippetPart]:
    """Marks alternate: what stands between the first and the second matches, and so on."""
    parts = [SnippetPart(text=text, match=index % 2 == 1) for index, text in enumerate(_MARKS.split(snippet))]
    return [part for part in parts if part.text]


def _cursor(hit: SearchHit) -> str:
    place = [hit.recorded_at.isoformat(), str(hit.recording_id), hit.number]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _place(cursor: str | None) -> Place | None:
    """`Invalid` (422) for a cursor that this service did not make."""
    if cursor is None:
        return None
    try:
        at, recording_id, number = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        place = Place(datetime.fromisoformat(at).astimezone(UTC), UUID(recording_id), int(number))
    except (binascii.Error, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as fault:
        raise Invalid("cursor: not one that this API gave; leave it out to start from the newest") from fault
    if not 0 <= place.number < 2**31:
        raise Invalid("cursor: not one that this API gave; leave it out to start from the newest")
    return place
