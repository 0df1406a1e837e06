"""Uploads: received as a stream, in one request or resumed at will, and made a recording once.

An upload is a row before its first byte comes, and its row goes last, so that whatever a killed process leaves can be found.
Pieces of a resumable upload lie below `uploads/<id>/`; no two writers share one, and only the one whose piece continues the upload
gets it into the row. So two clients, two requests or two processes at once cannot mix their bytes.
"""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from backend.core.clock import utc_now
from backend.core.db import Database, Session
from backend.core.errors import Conflict, Invalid, NotFound, TooLarge, TooMany
from backend.core.principal import Principal
from backend.core.storage import StorageFull
from backend.quotas import service as quotas
from backend.recordings import access
from backend.recordings.fetching import blob_key
from backend.recordings.library import reading
from backend.recordings.models import RecordingKind, Upload
from backend.recordings.repository.transcripts import TranscriptRepository
from backend.recordings.repository.uploads import UploadRepository
from backend.recordings.schemas import RecordingRead
from backend.recordings.sound import signatures
from backend.recordings.uploads.accepting import (
    Expired,
    Intake,
    Outcome,
    accept,
    accept_pieces,
    discard,
    drop,
    forget,
    pieces_of,
)
from backend.recordings.uploads.incoming import Feed, Mismatch, kept_alive, looked_at, too_large
from backend.recordings.uploads.wishes import Wish

MAX_UNFINISHED = 20
CHECKSUMS = ("sha256", "sha1", "md5")
# A piece is what is lost when this process is killed: 64 MB, or what came in 10 seconds.
_PIECE, _PIECE_SECONDS = 64_000_000, 10.0
# They stand in the row, which is written with each: as many parts of 1 MB are 10 GB.
_MOST_PIECES = 10_000
# An upload in one request that has said nothing for so long is of a process that was killed.
_ALIVE, _BEAT_SECONDS = timedelta(minutes=15), 60.0
# Left free for everybody else.
_SPARE = 64_000_000


@dataclass(frozen=True, slots=True)
class Checksum:
    """Of one part of a resumable upload; `algorithm` is one of CHECKSUMS."""

    algorithm: str
    digest: bytes


async def begin(intake: Intake, principal: Principal, wish: Wish, *, size: int) -> Upload:
    """A resumable upload of `size` bytes, on which nothing has been sent yet.

    Invalid (422) for nothing at all, TooLarge (413), TooMany (429) where 20 are unfinished, QuotaExceeded (429) where today's quota
    is used up and it cannot be what its owner has already, StorageFull where there is no room for it.
    """
    sizes = range(size, size + 1)
    # It lies there twice while its pieces are joined.
    return await _begun(
        intake, principal, wish, size=size, sizes=sizes, room=size * 2, lasting=intake.lasting, once=False
    )


async def receive(
    intake: Intake,
    principal: Principal,
    wish: Wish,
    chunks: AsyncIterable[bytes],
    *,
    size: int | None = None,
    sizes: range | None = None,
    afterwards: Callable[[], Wish] | None = None,
) -> Outcome:
    """An upload in one request. `size` is what the request says, if it does, `sizes` those that it may have; `afterwards` tells
    what is known by then.

    Errors as `begin`, `looked_at` and `accept`; whatever goes wrong, nothing of it stays.
    """
    bound = intake.limits.max_bytes if size is None else size
    sizes = sizes if size is None else range(size, size + 1)
    upload = await _begun(intake, principal, wish, size=bound, sizes=sizes, room=size or 0, lasting=_ALIVE, once=True)
    try:
        came = kept_alive(
            looked_at(chunks, intake.limits.max_bytes), partial(_prolong, intake, upload.id), _BEAT_SECONDS
        )
        blob = await intake.storage.write(upload.blob_key, came)
        if afterwards is not None:
            upload = await _described(intake, upload, afterwards())
        outcome = await accept(intake, upload, blob)
    except BaseException:
        await drop(intake, upload)
        raise
    await forget(intake, upload.id)
    return outcome


async def find(intake: Intake, upload_id: UUID, principal: Principal, *, resumable: bool = False) -> Upload:
    """NotFound (404) for one that is not there or is somebody else's, with `resumable` also for one in one request; Expired."""
    async with intake.db.transaction() as session:
        upload = await UploadRepository(session).find(upload_id)
    if upload is None or upload.owner_id != principal.user_id or (resumable and "once" in upload.progress):
        raise NotFound(f"there is no upload {upload_id}")
    if upload.expires_at <= utc_now():
        raise Expired(f"upload {upload_id} has expired")
    return upload


async def unfinished(intake: Intake, principal: Principal) -> Sequence[Upload]:
    """The principal's, the oldest first."""
    async with intake.db.transaction() as session:
        return await UploadRepository(session).list_unfinished(principal.user_id)


async def append(
    intake: Intake, upload: Upload, offset: int, chunks: AsyncIterable[bytes], *, checksum: Checksum | None = None
) -> Upload:
    """Go on with an upload at `offset`; what it is then.

    What has come counts also where the sender goes away: it is kept, then ClientGone is raised. A part with a checksum is kept
    whole or not at all. Conflict (409) where the upload ends elsewhere, also by then; TooLarge (413) for more than it is to have;
    Mismatch (460); Refused (422), by which the upload is gone; Invalid (422) for more than 10,000 parts.
    """
    if offset != upload.offset_bytes or upload.recording_id is not None:
        raise _elsewhere(upload.id, upload.offset_bytes)
    feed = Feed(aiter(_bounded(chunks, upload.size_bytes - offset)))
    while not feed.ended:
        try:
            upload = await _piece(intake, upload, feed, checksum)
        except signatures.Refused:
            await discard(intake, upload.id)
            raise
    if feed.gone is not None:
        raise feed.gone
    return upload


async def complete(intake: Intake, upload: Upload) -> Outcome | None:
    """Make a resumable upload that is there as a whole a recording; None for one that is not. Twice is once.

    Errors as `accept`. By Invalid the upload is gone; after QuotaExceeded it waits, until it expires.
    """
    if upload.recording_id is None and upload.offset_bytes < upload.size_bytes:
        return None
    return await accept_pieces(intake, upload)


async def read_recording(db: Database, outcome: Outcome, principal: Principal) -> RecordingRead:
    """What came of an upload, for whoever sent it. NotFound (404) once it is deleted."""
    async with db.transaction() as session:
        recording, granted = await access.known(session, outcome.recording.id, principal)
        return reading.facts_of(recording, await TranscriptRepository(session).owner(recording), granted)


async def abandon(intake: Intake, upload: Upload) -> None:
    """Conflict (409) for one that is a recording by now."""
    if not await discard(intake, upload.id):
        raise Conflict(f"upload {upload.id} is complete: delete its recording", code="complete")


async def _begun(
    intake: Intake,
    principal: Principal,
    wish: Wish,
    *,
    size: int,
    sizes: range | None,
    room: int,
    lasting: timedelta,
    once: bool,
) -> Upload:
    if size > intake.limits.max_bytes:
        raise too_large(intake.limits.max_bytes)
    if size == 0:
        signatures.check(b"")
    left = await intake.storage.room()
    if left is not None and room + _SPARE > left:
        raise StorageFull(f"there is no room for {size / 1_000_000:g} MB more")
    upload_id = uuid4()
    upload = Upload(
        id=upload_id,
        owner_id=principal.user_id,
        created_by=principal.name,
        size_bytes=size,
        blob_key=blob_key(RecordingKind.NOTE, upload_id, utc_now(), wish.filename or ""),
        expires_at=utc_now(),
        **_columns(wish, once=once),
    )
    async with intake.db.transaction() as session:
        uploads = UploadRepository(session)
        await uploads.lock(f"owner {principal.user_id}")
        if await uploads.unfinished(principal.user_id) >= MAX_UNFINISHED:
            why = f"{MAX_UNFINISHED} uploads are unfinished: end one, or delete it"
            raise TooMany(why, code="too_many_uploads", retry_after=60)
        await _check_quota(session, principal, wish.sha256, sizes)
        return await uploads.add(upload, lasting)


def _columns(wish: Wish, *, once: bool) -> dict[str, Any]:
    promised = {"sha256": wish.sha256} if wish.sha256 else {}
    return {
        "filename": wish.filename,
        "title": wish.title,
        "options": wish.options.model_dump(mode="json", exclude_defaults=True),
        "progress": promised | ({"once": True} if once else {}),
    }


async def _described(intake: Intake, upload: Upload, wish: Wish) -> Upload:
    async with intake.db.transaction() as session:
        found = await UploadRepository(session).describe(upload.id, _columns(wish, once=True))
    if found is None:
        raise Expired(f"upload {upload.id} has expired")
    return found


async def _check_quota(session: Session, principal: Principal, sha256: str | None, sizes: range | None) -> None:
    """Before anything is sent; the recording's own reservation decides. What may be there already costs nothing, so it may come."""
    try:
        await quotas.check_left(session, principal.user_id)
    except quotas.QuotaExceeded:
        owner_id = principal.user_id
        if owner_id is None or not await UploadRepository(session).may_have(owner_id, sha256, sizes):
            raise


async def _prolong(intake: Intake, upload_id: UUID) -> None:
    async with intake.db.transaction() as session:
        if not await UploadRepository(session).prolong(upload_id, _ALIVE):
            raise Expired(f"upload {upload_id} has expired")


async def _piece(intake: Intake, upload: Upload, feed: Feed, checksum: Checksum | None) -> Upload:
    """Store the next piece and write it into the row; the upload as it is then."""
    offset = upload.offset_bytes
    if len(upload.progress.get("pieces", ())) >= _MOST_PIECES:
        raise Invalid(f"{_MOST_PIECES} parts are the limit: begin again with larger ones", code="too_many_parts")
    key = f"{pieces_of(upload.id)}/{offset:015d}-{uuid4().hex[:12]}"
    chunks = feed.piece(None if checksum else _PIECE, _PIECE_SECONDS)
    if offset == 0:
        chunks = looked_at(chunks, upload.size_bytes, whole=False)
    digest = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None
    blob = await intake.storage.write(key, _digested(chunks, digest))
    advanced: Upload | None = None
    try:
        if feed.gone is not None and checksum is not None:
            return upload
        if checksum is not None and digest is not None and digest.digest() != checksum.digest:
            raise Mismatch(f"the {checksum.algorithm} of this part is {digest.hexdigest()}; send it again")
        if blob.size_bytes == 0:
            return upload
        async with intake.db.transaction() as session:
            uploads = UploadRepository(session)
            advanced = await uploads.advance(upload.id, offset, key, blob.size_bytes, intake.lasting)
            now = await uploads.find(upload.id)
        if advanced is None:
            raise _elsewhere(upload.id, now.offset_bytes if now else 0)
        return advanced
    finally:
        if advanced is None:
            await intake.storage.delete(key)


async def _digested(chunks: AsyncIterable[bytes], digest: "hashlib._Hash | None") -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if digest is not None:
            digest.update(chunk)
        yield chunk


async def _bounded(chunks: AsyncIterable[bytes], left: int) -> AsyncIterator[bytes]:
    """The same bytes. TooLarge (413) as soon as they are more than `left`; what came before counts."""
    async for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise TooLarge("this is more than Upload-Length said", code="longer_than_declared")
        yield chunk


def _elsewhere(upload_id: UUID, offset: int) -> Conflict:
    return Conflict(f"upload {upload_id} goes on at byte {offset}", code="offset_conflict", offset=offset)


__all__ = [
    "CHECKSUMS",
    "MAX_UNFINISHED",
    "Checksum",
    "Intake",
    "Outcome",
    "abandon",
    "append",
    "begin",
    "complete",
    "find",
    "read_recording",
    "receive",
    "unfinished",
]
