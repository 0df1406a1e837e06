"""An upload that is there as a whole becomes a recording, or one that its owner had already; then what lies around is removed."""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID

from backend.core.clock import utc_now
from backend.core.db import Database, Session
from backend.core.errors import AppError, TransientError, Unavailable
from backend.core.queue import enqueue
from backend.core.storage import Blob, Storage, read_all
from backend.quotas import service as quotas
from backend.recording_settings import Uploads
from backend.recordings import service
from backend.recordings.models import Recording, RecordingKind, RecordingState, Upload
from backend.recordings.repository.uploads import NOTHING_CAME, UploadRepository
from backend.recordings.sound import signatures
from backend.recordings.uploads.incoming import kept_alive

log = logging.getLogger(__name__)

# The message of a new recording is on its way; the sweep looks after one that nobody has taken by then.
_FIRST_SWEEP = timedelta(seconds=60)
# Whoever joins pieces says so that often; one that has said nothing for so long was killed.
_JOINING, _BEAT_SECONDS = timedelta(minutes=2), 20.0
# How long a request waits for one that joins the same pieces.
_PATIENCE_SECONDS, _LOOK_SECONDS = 5.0, 0.1


class Expired(AppError):
    status, code = 410, "upload_expired"


class Missing(TransientError):
    """A blob that is to be there is not, perhaps since somebody else was faster."""


@dataclass(frozen=True, slots=True)
class Intake:
    """Where uploads go."""

    db: Database
    storage: Storage
    limits: Uploads

    @property
    def lasting(self) -> timedelta:
        """How long a resumable upload may rest."""
        return timedelta(hours=self.limits.unfinished_hours)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`duplicate`: the owner had a recording of the same content, which is this one; `other_options`: with other options."""

    recording: Recording
    duplicate: bool
    other_options: bool = False


def pieces_of(upload_id: UUID) -> str:
    """The folder of its pieces in the storage."""
    return f"uploads/{upload_id}"


async def accept(intake: Intake, upload: Upload, blob: Blob) -> Outcome:
    """Make `blob` the upload's recording, in one transaction with its reservation and its task. Twice is once.

    Where its owner has one of the same content: that one, which costs nothing; one that failed or was cancelled starts again.
    Invalid (422) for a checksum that differs, QuotaExceeded (429), Expired (410); Missing.
    """
    if (promised := upload.progress.get("sha256")) and promised != blob.sha256:
        raise signatures.refused("checksum_mismatch", f"the SHA-256 of what came is {blob.sha256}; send it again")
    head = await _head(intake, blob.key)
    signatures.check(head)
    seconds = min(signatures.seconds(head, blob.size_bytes), intake.limits.max_seconds)
    try:
        async with intake.db.transaction() as session:
            outcome = await _recorded(session, upload.id, blob, seconds)
    except Expired:
        # Deleted meanwhile: no row will lead to it any more.
        await _rid_of(intake, blob.key)
        raise
    if outcome.recording.blob_key != blob.key:
        await _rid_of(intake, blob.key)
    return outcome


async def accept_pieces(intake: Intake, upload: Upload) -> Outcome:
    """The same for what lies in pieces. Invalid means that the upload is gone.

    Pieces are joined once, whatever comes of the blob afterwards, and by one at a time; whoever else comes waits for it, then is
    told Unavailable (503).
    """
    try:
        whole = await _whole(intake, upload)
        if isinstance(whole, Outcome):
            return whole
        outcome = await accept(intake, upload, whole)
    except Missing:
        done = await _outcome(intake, upload.id)
        if done is None:
            raise
        return done
    except (Expired, signatures.Refused):
        await drop(intake, upload)
        raise
    await _clear(intake, upload.id)
    return outcome


async def discard(intake: Intake, upload_id: UUID) -> bool:
    """Delete an upload with all that came of it, blobs first. False for one that is a recording by now, or gone."""
    async with intake.db.transaction() as session:
        uploads = UploadRepository(session)
        upload = await uploads.find(upload_id) if await uploads.expire(upload_id) else None
    if upload is None:
        return False
    if await _clear(intake, upload_id) and await _remove(intake, upload.blob_key):
        await forget(intake, upload_id)
    return True


async def drop(intake: Intake, upload: Upload) -> None:
    """Delete one that came to nothing: also its blob where somebody has deleted the upload while that was written."""
    if await discard(intake, upload.id):
        return
    async with intake.db.transaction() as session:
        uploads = UploadRepository(session)
        kept = await uploads.find(upload.id) is not None or await uploads.holds(upload.owner_id, upload.blob_key)
    if not kept:
        await _rid_of(intake, upload.blob_key)


async def forget(intake: Intake, upload_id: UUID) -> None:
    async with intake.db.transaction() as session:
        await UploadRepository(session).remove(upload_id)


async def sweep(intake: Intake, *, batch: int = 200) -> dict[str, int]:
    """What nobody has gone on with: those that came as a whole are `completed`, those that have expired `removed`.

    `tidied` are half files of writers that were killed. A storage that is away leaves the rest to the next sweep.
    """
    async with intake.db.transaction() as session:
        uploads = UploadRepository(session)
        whole = await uploads.received(timedelta(minutes=5), intake.lasting, batch)
    completed = [upload_id for upload_id in whole if await _finished(intake, upload_id)]
    async with intake.db.transaction() as session:
        expired = await UploadRepository(session).expired(batch)
    removed = [upload.id for upload in expired if await _removed(intake, upload)]
    tidied = await intake.storage.tidy(max(intake.lasting, timedelta(days=1)))
    return {"completed": len(completed), "removed": len(removed), "tidied": tidied}


async def _whole(intake: Intake, upload: Upload) -> Outcome | Blob:
    """What has become of an upload, or the blob of its joined pieces. Expired (410), Unavailable (503), Missing."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        async with intake.db.transaction() as session:
            uploads = UploadRepository(session)
            now = await uploads.find(upload.id)
            if (known := await _known(uploads, now)) is not None:
                return known
            if now is None or now.expires_at <= utc_now():
                raise Expired(f"upload {upload.id} has expired")
            if "joined" in now.progress:
                return Blob(key=now.blob_key, **now.progress["joined"])
            mine = await uploads.begin_joining(upload.id, _JOINING)
        if mine:
            return await _joined(intake, now)
        if time.monotonic() > end:
            raise Unavailable("this upload is just being put together", code="joining", retry_after=5)
        await asyncio.sleep(_LOOK_SECONDS)


async def _joined(intake: Intake, upload: Upload) -> Blob:
    pieces = read_all(intake.storage, upload.progress["pieces"])
    try:
        blob = await intake.storage.write(
            upload.blob_key, kept_alive(pieces, partial(_go_on_joining, intake, upload.id), _BEAT_SECONDS)
        )
        await _keep_joined(intake, upload.id, blob)
    except BaseException as fault:
        async with intake.db.transaction() as session:
            await UploadRepository(session).end_joining(upload.id)
        if isinstance(fault, FileNotFoundError):
            raise Missing(f"a piece of upload {upload.id} is gone: {fault.filename}") from fault
        raise
    await _clear(intake, upload.id)
    return blob


async def _keep_joined(intake: Intake, upload_id: UUID, blob: Blob) -> None:
    async with intake.db.transaction() as session:
        if not await UploadRepository(session).keep_joined(upload_id, blob.size_bytes, blob.sha256):
            raise Expired(f"upload {upload_id} has expired")


async def _go_on_joining(intake: Intake, upload_id: UUID) -> None:
    async with intake.db.transaction() as session:
        if not await UploadRepository(session).go_on_joining(upload_id, _JOINING):
            raise Expired(f"upload {upload_id} has expired")


async def _head(intake: Intake, key: str) -> bytes:
    try:
        return b"".join([chunk async for chunk in intake.storage.read(key, 0, signatures.HEAD)])
    except FileNotFoundError as fault:
        raise Missing(f"{key} is not in the storage") from fault


async def _finished(intake: Intake, upload_id: UUID) -> bool:
    async with intake.db.transaction() as session:
        upload = await UploadRepository(session).find(upload_id)
    try:
        return upload is not None and await accept_pieces(intake, upload) is not None
    except (AppError, TransientError) as fault:
        # A quota, for one: it waits on, until it expires.
        log.warning("upload %s is not completed: %s", upload_id, fault)
        return False


async def _removed(intake: Intake, upload: Upload) -> bool:
    """Remove the row of an expired upload, and its blobs but for the one that is a recording's."""
    async with intake.db.transaction() as session:
        found = await UploadRepository(session).find_recording(upload.recording_id or upload.id)
    if not await _clear(intake, upload.id):
        return False
    if (found is None or found.blob_key != upload.blob_key) and not await _remove(intake, upload.blob_key):
        return False
    await forget(intake, upload.id)
    return True


async def _outcome(intake: Intake, upload_id: UUID) -> Outcome | None:
    async with intake.db.transaction() as session:
        uploads = UploadRepository(session)
        return await _known(uploads, await uploads.find(upload_id))


async def _known(uploads: UploadRepository, upload: Upload | None) -> Outcome | None:
    """What became of an upload. Expired (410) for one that is gone, or whose recording is."""
    if upload is None:
        raise Expired("this upload has expired, or was deleted")
    if upload.recording_id is None:
        return None
    recording = await uploads.find_recording(upload.recording_id)
    if recording is None:
        raise Expired(f"recording {upload.recording_id}, which upload {upload.id} became, is deleted")
    duplicate = recording.id != upload.id
    return Outcome(recording, duplicate, other_options=duplicate and recording.options != upload.options)


async def _recorded(session: Session, upload_id: UUID, blob: Blob, seconds: float) -> Outcome:
    uploads = UploadRepository(session)
    upload = await uploads.find_open(upload_id)
    if (known := await _known(uploads, upload)) is not None:
        return known
    assert upload is not None, "or it were not known"  # noqa: S101
    if upload.owner_id is None:
        # No index keeps the team's apart.
        await uploads.lock(f"team {blob.sha256}")
    recording = _recording(upload, blob)
    same = await uploads.same(None, blob.sha256) if upload.owner_id is None else None
    if same is None and await uploads.add_recording(recording):
        await quotas.reserve(session, user_id=recording.owner_id, key=recording.id, seconds=seconds)
        enqueue(session, service.PROBE_TASK, recording_id=str(recording.id))
        await uploads.complete(upload, recording.id)
        return Outcome(recording, duplicate=False)
    same = same or await uploads.same(upload.owner_id, blob.sha256)
    if same is None:
        raise TransientError("a recording of the same content was deleted at this moment")
    await uploads.complete(upload, same.id)
    if same.state not in NOTHING_CAME:
        # A crash may come before it is deleted, and the upload's row goes.
        await uploads.remove_file(blob.key)
        return Outcome(same, duplicate=True, other_options=same.options != upload.options)
    return await _again(session, uploads, same, recording)


async def _again(session: Session, uploads: UploadRepository, same: Recording, new: Recording) -> Outcome:
    if same.blob_key is not None:
        await uploads.remove_file(same.blob_key)
    await uploads.replace(
        same,
        other_options=same.options != new.options,
        blob_key=new.blob_key,
        filename=new.filename,
        title=new.title,
        options=new.options,
    )
    started = await service.retry(session, same.id)
    assert started is not None, "it is locked, and came to nothing"  # noqa: S101
    return Outcome(started, duplicate=True)


def _recording(upload: Upload, blob: Blob) -> Recording:
    return Recording(
        id=upload.id,
        kind=RecordingKind.NOTE,
        subject_id=upload.id,
        owner_id=upload.owner_id,
        title=upload.title,
        filename=upload.filename,
        options=upload.options,
        state=RecordingState.FETCHED,
        source_path="",
        blob_key=blob.key,
        sha256=blob.sha256,
        size_bytes=blob.size_bytes,
        next_attempt_at=utc_now() + _FIRST_SWEEP,
    )


async def _clear(intake: Intake, upload_id: UUID) -> bool:
    """Whether its pieces are gone; if not, the sweep tries again."""
    try:
        await intake.storage.clear(pieces_of(upload_id))
    except TransientError as fault:
        log.warning("pieces of upload %s stay until the next sweep: %s", upload_id, fault)
        return False
    return True


async def _rid_of(intake: Intake, key: str) -> None:
    """Delete a blob to which no row leads; one that cannot be deleted now is on the list of those that are to go."""
    removed = await _remove(intake, key)
    async with intake.db.transaction() as session:
        uploads = UploadRepository(session)
        await (uploads.file_gone(key) if removed else uploads.remove_file(key))


async def _remove(intake: Intake, key: str) -> bool:
    try:
        await intake.storage.delete(key)
    except TransientError as fault:
        log.warning("%s stays until the next sweep: %s", key, fault)
        return False
    return True
