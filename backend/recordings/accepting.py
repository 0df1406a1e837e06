"""An upload that is there as a whole becomes a recording, or one that its owner had already; then what lies around is removed."""

import logging
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from backend.core.clock import utc_now
from backend.core.db import Database, Session
from backend.core.errors import AppError, TransientError
from backend.core.queue import enqueue
from backend.core.storage import Blob, Storage, join
from backend.quotas import service as quotas
from backend.recording_settings import Uploads
from backend.recordings import service, signatures
from backend.recordings.models import Recording, RecordingKind, RecordingState, Upload
from backend.recordings.repository.uploads import UploadRepository

log = logging.getLogger(__name__)

# The message of a new recording is on its way; the sweep looks after one that nobody has taken by then.
_FIRST_SWEEP = timedelta(seconds=60)
_NOTHING_CAME = (RecordingState.FAILED, RecordingState.CANCELLED)


class Expired(AppError):
    status, code = 410, "upload_expired"


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
    """`duplicate`: the owner had a recording of the same content, which is this one."""

    recording: Recording
    duplicate: bool


def pieces_of(upload_id: UUID) -> str:
    """The folder of its pieces in the storage."""
    return f"uploads/{upload_id}"


async def accept(intake: Intake, upload: Upload, blob: Blob) -> Outcome:
    """Make `blob` the upload's recording, in one transaction with its reservation and its task. Twice is once.

    Where its owner has one of the same content: that one, which costs nothing; one that failed or was cancelled starts again.
    Invalid (422) for a checksum that differs, QuotaExceeded (429), Expired (410).
    """
    if (promised := upload.progress.get("sha256")) and promised != blob.sha256:
        raise signatures.refused("checksum_mismatch", f"the SHA-256 of what came is {blob.sha256}; send it again")
    head = b"".join([chunk async for chunk in intake.storage.read(blob.key, 0, signatures.HEAD)])
    signatures.check(head)
    seconds = min(signatures.seconds(head, blob.size_bytes), intake.limits.max_seconds)
    try:
        async with intake.db.transaction() as session:
            outcome = await _recorded(session, upload.id, blob, seconds)
    except Expired:
        # Deleted meanwhile: no row will lead to it any more.
        await _remove(intake, blob.key)
        raise
    if outcome.recording.blob_key != blob.key:
        await _remove(intake, blob.key)
    return outcome


async def accept_pieces(intake: Intake, upload: Upload) -> Outcome:
    """The same for what lies in pieces. Invalid means that the upload is gone."""
    done = await _outcome(intake, upload.id)
    if done is not None:
        return done
    try:
        try:
            blob = await join(intake.storage, upload.progress["pieces"], upload.blob_key)
        except FileNotFoundError as fault:
            # Somebody else was faster, and has removed them.
            done = await _outcome(intake, upload.id)
            if done is None:
                raise TransientError(f"a piece of upload {upload.id} is gone: {fault.filename}") from fault
            return done
        outcome = await accept(intake, upload, blob)
    except signatures.Refused:
        await discard(intake, upload.id)
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
    return Outcome(recording, duplicate=recording.id != upload.id)


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
    if same.state not in _NOTHING_CAME:
        return Outcome(same, duplicate=True)
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


async def _remove(intake: Intake, key: str) -> bool:
    try:
        await intake.storage.delete(key)
    except TransientError as fault:
        log.warning("%s stays until the next sweep: %s", key, fault)
        return False
    return True
