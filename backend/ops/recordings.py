"""The pages of recordings: the list, what was said anywhere, one recording, deleting it."""

from pathlib import PurePath
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Form, Query, Request, Response
from pydantic import TypeAdapter, ValidationError

from backend.config import Config
from backend.core.db import Database, Session
from backend.core.errors import Forbidden
from backend.core.principal import Principal, Role
from backend.core.web import ConfigDep, DatabaseDep, SessionDep
from backend.ops.access import Viewer
from backend.ops.context import Frames, local, render
from backend.ops.flash import lead
from backend.ops.forms import of_validation
from backend.quotas import service as quotas
from backend.quotas.service import Standing
from backend.recordings.keeping import retention
from backend.recordings.library import reading, searching, sharing
from backend.recordings.models import RecordingKind, RecordingState
from backend.recordings.schemas import (
    RecordingDetail,
    RetentionRead,
    RetentionUpdate,
    SearchHit,
    SearchText,
    ShareMade,
    SpeakerRead,
)
from backend.recordings.sound.unreadable import (
    DrmAudio,
    EmptyAudio,
    EncryptedAudio,
    NoAudioStream,
    NotAudio,
    UnreadableAudio,
)

router = APIRouter(prefix="/recordings")

_ROWS = 50
# Of a longer transcript a page shows parts; an hour of talk has about 500 segments.
PART = 1_000
_COLOURS = 8
_FILMS = {".3gp", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"}
# What Chromium and Firefox play: https://developer.mozilla.org/docs/Web/Media/Guides/Formats
_PLAYED = {"aac", "flac", "mp3", "opus", "vorbis", "pcm_alaw", "pcm_mulaw"}
_PLAYED |= {"pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"}
_NOT_OPENED = {".aif", ".aifc", ".aiff", ".au", ".caf", ".snd", ".w64"}
# There is nothing to hear in it; the same attempt ends in the same way.
_SOUNDLESS = {kind.code for kind in (EmptyAudio, NotAudio, NoAudioStream, DrmAudio, EncryptedAudio)}
_HOPELESS = {kind.code for kind in UnreadableAudio.__subclasses__()}
_WORDS: TypeAdapter[str] = TypeAdapter(SearchText)
_OPEN = {RecordingState.REGISTERED, RecordingState.FETCHED, RecordingState.TRANSCRIBING}

# Whom an owner may share with, as people call them.
ROLES = {
    Role.VIEWER.value: "everybody with an account",
    Role.OPERATOR.value: "operators and admins",
    Role.ADMIN.value: "admins",
}
KEEP_DAYS = (7, 30, 90, 365, 1095)
SHARE_HOURS = {24: "a day", 168: "a week", 720: "30 days", 8760: "a year"}

# Of those that wait for a worker, too.
_UNDER_WAY = "open"
_VIEWS: tuple[tuple[str, dict[str, str]], ...] = (
    ("all", {}),
    ("mine", {"whose": "mine"}),
    ("notes", {"kind": "note"}),
    ("calls", {"kind": "call"}),
    ("under way", {"state": _UNDER_WAY}),
    ("failed", {"state": "failed"}),
)


@router.get("")
async def show_recordings(
    request: Request,
    session: SessionDep,
    config: ConfigDep,
    principal: Viewer,
    whose: str = "",
    kind: RecordingKind | None = None,
    state: RecordingState | Literal["open"] | None = None,
    cursor: str | None = None,
) -> Response:
    """Those that exist for who looks, newest first; refreshes itself while one on the first page is under way."""
    states = _OPEN if state == _UNDER_WAY else {state} if isinstance(state, RecordingState) else None
    page = await reading.list_recordings(
        session, principal, states=states, kind=kind, mine=whose == "mine", cursor=cursor, limit=_ROWS
    )
    of = {"whose": whose, "kind": kind.value if kind else "", "state": str(state) if state else ""}
    context = {
        "recordings": page.items,
        "next_cursor": page.next_cursor,
        "views": [view for view in _VIEWS if principal.user_id or view[0] != "mine"],
        "of": {name: value for name, value in of.items() if value},
        "standing": await own_standing(session, principal),
        "retention": await _own_retention(session, principal, config),
        "keep_days": KEEP_DAYS,
        "zone": config.timezone,
        "refresh": cursor is None and any(each.state in _OPEN for each in page.items),
    }
    return render(request, "recordings.html", context)


async def _own_retention(session: Session, principal: Principal, config: Config) -> RetentionRead | None:
    """For how long one's own notes are kept; None for the service key, which has none."""
    if principal.user_id is None:
        return None
    return await retention.read_retention(session, principal.user_id, RecordingKind.NOTE, config=config)


class _Unconfirmed(Exception):
    """So many notes would go, and nobody has said that they may."""

    def __init__(self, kept: RetentionRead) -> None:
        super().__init__(f"{kept.due_now} would go")
        self.kept = kept


@router.post("/keeping")
async def keep(
    request: Request,
    db: DatabaseDep,
    config: ConfigDep,
    principal: Viewer,
    days: Annotated[str, Form()] = "",
    confirmed: Annotated[bool, Form()] = False,
) -> Response:
    """For how long one's own notes are kept from now on; empty is what the installation says. Asks first where some would go."""
    if principal.user_id is None:
        raise Forbidden("the service key has no notes of its own", code="user_needed")
    try:
        wish = RetentionUpdate.model_validate({"days": days or None})
    except ValidationError as fault:
        return lead("/ops/recordings#keeping", f"Days: {_problem(fault)}", good=False)
    try:
        kept = await _kept(db, config, principal, wish, confirmed=confirmed)
    except _Unconfirmed as fault:
        context = {"kept": fault.kept, "days": days, "words": _for_days(fault.kept.days)}
        return render(request, "recordings_keeping.html", context)
    due = (
        f" {kept.due_now} of them {'goes' if kept.due_now == 1 else 'go'} with the next cleaning."
        if kept.due_now
        else ""
    )
    return lead("/ops/recordings#keeping", f"Your notes are kept {_for_days(kept.days)}.{due}")


async def _kept(
    db: Database, config: Config, principal: Principal, wish: RetentionUpdate, *, confirmed: bool
) -> RetentionRead:
    async with db.transaction() as session:
        owner_id = retention.own(principal)
        kept = await retention.set_retention(session, owner_id, wish, principal=principal, config=config)
        if kept.due_now and not confirmed:
            # Nothing is changed.
            raise _Unconfirmed(kept)
    return kept


def _for_days(days: int) -> str:
    return f"for {days} days" if days else "for ever"


async def own_standing(session: Session, principal: Principal) -> Standing | None:
    """None for the service key, which has no quota."""
    return await quotas.standing(session, principal.user_id) if principal.user_id else None


@router.get("/search")
async def search(
    request: Request,
    session: SessionDep,
    config: ConfigDep,
    principal: Viewer,
    q: Annotated[str, Query(max_length=1_000)] = "",
    cursor: str | None = None,
) -> Response:
    """Where something was said, by recording."""
    context: dict[str, Any] = {"q": q, "groups": [], "next_cursor": None, "fault": "", "zone": config.timezone}
    if q.strip():
        try:
            words = _WORDS.validate_python(q)
        except ValidationError as fault:
            return render(request, "recordings_search.html", context | {"fault": _problem(fault)}, status=422)
        found = await searching.search(session, words, principal, cursor=cursor, limit=_ROWS)
        context |= {"groups": _groups(found.items, config.timezone), "next_cursor": found.next_cursor}
    return render(request, "recordings_search.html", context)


def _problem(fault: ValidationError) -> str:
    return "; ".join(of_validation(fault).values())


def _groups(hits: list[SearchHit], zone: str) -> list[dict[str, Any]]:
    groups: dict[UUID, dict[str, Any]] = {}
    for hit in hits:
        at = local(hit.recorded_at, zone)
        group = groups.setdefault(
            hit.recording_id,
            {
                "id": hit.recording_id,
                "title": hit.title or hit.filename or f"Recording of {at}",
                "recorded_at": hit.recorded_at,
                "hits": [],
            },
        )
        group["hits"].append(hit.model_dump() | {"after": hit.number // PART * PART - 1})
    return list(groups.values())


@router.get("/{recording_id}")
async def show_recording(
    request: Request,
    session: SessionDep,
    config: ConfigDep,
    principal: Viewer,
    recording_id: UUID,
    t: Annotated[float | None, Query(ge=0, le=1_000_000)] = None,
    after: Annotated[int | None, Query(ge=-1, le=2**31 - 1)] = None,
) -> Response:
    """One recording: sound, summary, who said what, and what may be done about it; refreshes itself while it is under way.

    `t` is where its player stands, in seconds; `after` the segment behind which the shown part begins.
    """
    return await page_of(request, session, config, principal, recording_id, at=t, after=after)


async def page_of(
    request: Request,
    session: Session,
    config: Config,
    principal: Principal,
    recording_id: UUID,
    *,
    at: float | None = None,
    after: int | None = None,
    made: ShareMade | None = None,
) -> Response:
    """`made` is a new link, which this answer alone shows."""
    recording = await reading.read_recording(session, recording_id, principal, config=config)
    after = after if after is not None and after >= 0 else None
    segments = []
    if recording.may_read and recording.transcript:
        first = after if after is not None else -1
        segments = await reading.list_segments(session, recording_id, principal, after=first, limit=PART + 1)
    may_share = recording.may_change and recording.may_read
    context = {
        "recording": recording,
        "has_audio": has_audio(recording),
        "film": is_film(recording),
        "played": is_played(recording.codec, recording.filename),
        "soundless": recording.error_code in _SOUNDLESS,
        "hopeless": recording.error_code in _HOPELESS,
        "segments": segments[:PART],
        "after": after,
        "next_part": segments[PART - 1].number if len(segments) > PART else None,
        "places": places(recording.speakers),
        "spoken": sum(each.spoken_seconds for each in recording.speakers),
        "shares": await sharing.list_shares(session, recording_id, principal) if may_share else [],
        "made": made,
        "made_url": f"{request.base_url}shared/{made.token}" if made else "",
        "roles": ROLES,
        "share_hours": SHARE_HOURS,
        "at": at,
        "zone": config.timezone,
        "refresh": recording.state in _OPEN and made is None,
    }
    return render(request, "recording.html", context, frames=Frames.HOLDS)


def has_audio(recording: RecordingDetail) -> bool:
    """Whether its sound is in our storage, for the one who looks."""
    return recording.may_read and recording.size_bytes is not None


def is_film(recording: RecordingDetail) -> bool:
    """Whether there may be something to see; a .webm is a voice note more often than not."""
    return PurePath(recording.filename or "").suffix.lower() in _FILMS


def is_played(codec: str | None, name: str | None) -> bool:
    """Whether most browsers play sound of `codec` in a file of this name; what nobody has looked at yet is given a chance."""
    return (codec is None or codec in _PLAYED) and PurePath(name or "").suffix.lower() not in _NOT_OPENED


def places(speakers: list[SpeakerRead]) -> dict[str, int]:
    """The colour of each speaker."""
    return {each.label: number % _COLOURS for number, each in enumerate(speakers)}


@router.get("/{recording_id}/delete")
async def confirm_deletion(
    request: Request, session: SessionDep, config: ConfigDep, principal: Viewer, recording_id: UUID
) -> Response:
    """What is about to go; nothing is changed yet."""
    recording = await reading.read_recording(session, recording_id, principal, config=config)
    return render(request, "recording_delete.html", {"recording": recording, "zone": config.timezone})
