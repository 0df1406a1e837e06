"""Links that open one recording to whoever has them, until they expire or are revoked. Their tokens are nowhere stored."""

import hashlib
import secrets
from dataclasses import replace
from datetime import timedelta
from pathlib import PurePath
from uuid import UUID

from backend.core.clock import utc_now
from backend.core.db import Session
from backend.core.errors import AppError, Conflict, NotFound
from backend.core.principal import Principal
from backend.recordings import access
from backend.recordings.library import reading
from backend.recordings.library.exporting import Document
from backend.recordings.library.reading import Sound
from backend.recordings.models import Recording, ShareLink
from backend.recordings.repository.shares import ShareRepository
from backend.recordings.schemas import ShareCreate, SharedRead, SharedSegment, ShareMade, ShareRead

MOST_OPEN, MOST_OVER = 50, 100
_BYTES = 32


class Gone(AppError):
    """The link was good once; whoever has it may know."""

    status, code = 410, "gone"


async def share(session: Session, recording_id: UUID, wish: ShareCreate, principal: Principal) -> ShareMade:
    """A new link; its token is told this once. Whoever may change a recording may share it."""
    await access.changeable(session, recording_id, principal)
    shares = ShareRepository(session)
    if await shares.count_open(recording_id) >= MOST_OPEN:
        raise Conflict(f"recording {recording_id} has {MOST_OPEN} open links; revoke one", code="too_many_links")
    token, now = secrets.token_urlsafe(_BYTES), utc_now()
    link = ShareLink(
        recording_id=recording_id,
        token_hash=_hashed(token),
        with_audio=wish.with_audio,
        created_by=principal.name,
        created_at=now,
        expires_at=now + timedelta(hours=wish.hours),
    )
    await shares.add(link)
    return ShareMade(**_read(link).model_dump(), token=token, url=f"/api/shared/{token}")


async def list_shares(session: Session, recording_id: UUID, principal: Principal) -> list[ShareRead]:
    """A recording's links, newest first, of those that are over the last MOST_OVER; for whoever may make them."""
    await access.changeable(session, recording_id, principal)
    listed = await ShareRepository(session).listed(recording_id, over=MOST_OVER)
    return [_read(link, is_closed=is_closed) for link, is_closed in listed]


async def revoke(session: Session, recording_id: UUID, share_id: UUID, principal: Principal) -> ShareRead:
    """It opens nothing from here on. Twice is once."""
    await access.changeable(session, recording_id, principal)
    link = await ShareRepository(session).revoke(recording_id, share_id)
    if link is None:
        raise NotFound(f"recording {recording_id} has no link {share_id}")
    return _read(link)


async def open_link(session: Session, token: str, *, counted: bool = True) -> tuple[ShareLink, Recording]:
    """What a token opens. NotFound (404) for one that opens nothing; Gone (410) for one that is over.

    `counted`: as a use of the link.
    """
    found = await ShareRepository(session).opened(_hashed(token))
    if found is None:
        raise NotFound("this link opens nothing: it is wrong, or its recording was deleted")
    link, recording, is_closed = found
    # Whoever has left takes their links along; why is nobody's business out there.
    if link.revoked_at is not None or is_closed:
        raise Gone("this link was revoked; ask for a new one", code="share_revoked")
    if link.expires_at <= utc_now():
        raise Gone("this link has expired; ask for a new one", code="share_expired")
    if counted:
        await ShareRepository(session).count_use(link.id)
    return link, recording


async def read_shared(session: Session, token: str) -> SharedRead:
    """The page of a link. Also while there is no transcript yet: then it has no segments."""
    link, recording = await open_link(session, token)
    content = await reading.content_of(session, recording)
    segments = [
        SharedSegment(number=each.number, start=each.start, end=each.end, name=each.name, text=each.text)
        for each in await reading.segments_of(session, recording.id)
        if each.text
    ]
    return SharedRead(
        title=recording.title,
        recorded_at=recording.created_at,
        duration_seconds=recording.duration_ms / 1000 if recording.duration_ms is not None else None,
        language=content.transcript.language if content.transcript else None,
        expires_at=link.expires_at,
        with_audio=link.with_audio and recording.blob_key is not None,
        has_transcript=content.transcript is not None,
        speakers=[speaker.name for speaker in content.speakers],
        # Why it is the one it is, is for the house.
        summary=content.summary.model_copy(update={"note": None}) if content.summary else None,
        segments=segments,
    )


async def shared_document(session: Session, token: str) -> Document:
    """For an export. NotFound (404) also where there is no transcript (yet)."""
    _, recording = await open_link(session, token)
    return await reading.document_of(session, recording)


async def shared_sound(session: Session, token: str, *, counted: bool) -> Sound:
    """NotFound (404, `no_audio`) for a link that is for reading alone."""
    link, recording = await open_link(session, token, counted=counted)
    if not link.with_audio:
        raise NotFound("this link opens the words, not the sound", code="no_audio")
    sound = reading.sound_of(recording)
    # The uploaded file's name was never shared.
    return replace(sound, name=(recording.title or "recording") + PurePath(sound.key).suffix)


def _read(link: ShareLink, *, is_closed: bool = False) -> ShareRead:
    is_open = link.revoked_at is None and link.expires_at > utc_now() and not is_closed
    return ShareRead(**link.model_dump(exclude={"recording_id", "token_hash"}), is_open=is_open)


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
