"""The SQL of reading recordings: who sees which, what was said, by whom, and what people have made of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, and_, func, or_, text, union, update
from sqlalchemy import false as nothing
from sqlalchemy import true as always
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, select

from backend.accounts.models import User
from backend.core.db import Session
from backend.core.paging import Position, newest_first
from backend.recordings.languages import SEARCH_CONFIGS
from backend.recordings.models import Recording, SegmentRow, SegmentVersion, SpeakerRow, SummaryRow, TranscriptRow

# Marks in ts_headline's answer; texts lose these two characters before.
MATCH_STARTS, MATCH_ENDS = "\x01", "\x02"
_MARKED = f'StartSel="{MATCH_STARTS}", StopSel="{MATCH_ENDS}"'
_WHOLE = f"{_MARKED}, HighlightAll=true"
_FRAGMENTS = f'{_MARKED}, MaxFragments=2, MaxWords=30, MinWords=12, FragmentDelimiter=" … "'
# One of the API's few connections is not for one person's search for long.
SEARCH_SECONDS = 5
# Of these, for the plan that the planner likes best.
_FIRST_SECONDS = 0.5
# query_canceled, which a statement_timeout raises.
_CANCELED = "57014"
# Characters; of what is longer two passages are shown.
_SHORT = 300

# The words' stems depend on the language. One query of all languages' stems finds candidates by the index; then each row's own
# language decides. It is made first, so that the planner knows how rare its words are; which it knows of a custom plan alone:
# the generic one, which PostgreSQL may take for a prepared statement's sixth execution, can read every segment there is. Of rare
# words it knows only that they are not among the thousand commonest; at the usual cost of a page it would pass the index by.
_PLAN = """
select set_config('plan_cache_mode', 'force_custom_plan', true), set_config('random_page_cost', '1.1', true),
    set_config('statement_timeout', :longest, true)
"""
# The planner takes words to be spread evenly: common ones it looks for from the newest recording on. Where only old ones have them
# that reads nearly all there is; without nested loops it reads what the index names, and sorts it.
_PLAN_BY_INDEX = "select set_config('enable_nestloop', 'off', true), set_config('statement_timeout', :longest, true)"
_STEMS = """
select string_agg(distinct '(' || cast(stems as text) || ')', ' | ') from (
    select websearch_to_tsquery(config, :query) as stems from unnest(cast(:configs as regconfig[])) config
) asked where numnode(stems) > 0
"""
SEARCH = """
with found as (
    select s.recording_id, s.number, s.start_ms, s.end_ms, s.speaker, s.config, s.text, r.title, r.filename, r.created_at
    from transcript_segments s
    join recordings r on r.id = s.recording_id
    where s.search @@ cast(:stems as tsquery)
    -- A `case`, since of a query that differs by row the planner expects one in two hundred, and would read and sort them all.
    and case when s.search @@ websearch_to_tsquery(s.config, :query) then true else false end
    and (r.owner_id is null or r.owner_id = :me or r.shared_role = any(cast(:roles as text[])))
    and (cast(:only as uuid) is null or r.id = :only)
    and (
        cast(:at as timestamptz) is null or (r.created_at, r.id) < (:at, :id) or (r.id = :id and s.number > :number)
    )
    order by r.created_at desc, r.id desc, s.number
    limit :limit
)
select found.recording_id, found.number, found.start_ms, found.end_ms, found.speaker, found.title, found.filename,
    found.created_at, coalesce(p.name, found.speaker) as name,
    ts_headline(
        found.config, translate(found.text, :marks, ''), websearch_to_tsquery(found.config, :query),
        case when length(found.text) <= :short then :whole else :fragments end
    ) as snippet
from found left join recording_speakers p on p.recording_id = found.recording_id and p.label = found.speaker
order by found.created_at desc, found.recording_id desc, found.number
"""


class TooSlow(Exception):
    """The words are in too much of what was said."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks. `roles`: those that a recording may be shared with for them to read it."""

    user_id: UUID | None
    roles: tuple[str, ...]
    admin: bool

    @property
    def groups(self) -> list[ColumnElement[bool]]:
        """Recordings that exist for them."""
        if self.admin:
            return [always()]
        return [or_(col(Recording.owner_id).is_(None), col(Recording.shared_role).in_(self.roles)), self.owns]

    @property
    def owns(self) -> ColumnElement[bool]:
        # `= null` would become `is null`: the team's.
        return col(Recording.owner_id) == self.user_id if self.user_id is not None else nothing()


@dataclass(frozen=True, slots=True)
class Place:
    """A segment in the order of a search."""

    at: datetime
    recording_id: UUID
    number: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Of a transcript, without its words."""

    row: TranscriptRow
    segments: int
    edited: int


class TranscriptRepository:
    """Inside the session's transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def find(self, recording_id: UUID, *, lock: bool = False) -> Recording | None:
        query = select(Recording).where(Recording.id == recording_id)
        if lock:
            query = query.with_for_update(key_share=True)
        return (await self.session.exec(query, execution_options={"populate_existing": True})).first()

    async def subject(self, kind: str, subject_id: UUID) -> Recording | None:
        query = select(Recording).where(Recording.kind == kind, Recording.subject_id == subject_id)
        return (await self.session.exec(query)).first()

    async def owner(self, recording: Recording) -> str | None:
        """The owner's user name."""
        query = select(User.username).where(User.id == recording.owner_id)
        return (await self.session.exec(query)).first() if recording.owner_id is not None else None

    async def listed(
        self,
        viewer: Viewer,
        *,
        states: Collection[str] | None,
        kind: str | None,
        mine: bool,
        before: Position | None,
        limit: int,
    ) -> list[tuple[Recording, str | None]]:
        """With their owners' user names, newest first."""
        at, key = col(Recording.created_at), col(Recording.id)
        wanted: list[ColumnElement[bool]] = [col(Recording.state).in_(states)] if states is not None else []
        if kind is not None:
            wanted.append(col(Recording.kind) == kind)
        # Each group has an index in this order; by an OR of them PostgreSQL would read everybody's.
        groups = [
            newest_first(select(key).where(group, *wanted), at, key, before).limit(limit).subquery()
            for group in ([viewer.owns] if mine else viewer.groups)
        ]
        query = (
            select(Recording, User.username)
            .outerjoin(User, col(User.id) == col(Recording.owner_id))
            .where(key.in_(union(*(select(group.c.id) for group in groups))))
            .order_by(at.desc(), key.desc())
            .limit(limit)
        )
        return [(row[0], row[1]) for row in (await self.session.exec(query)).all()]

    async def facts(self, recording_id: UUID) -> Facts | None:
        """None where there is no transcript."""
        columns = ("language", "backend", "model", "diarizer", "cost_usd", "created_at")
        query = select(*(getattr(TranscriptRow, name) for name in columns)).where(
            TranscriptRow.recording_id == recording_id
        )
        found = (await self.session.exec(query)).first()
        if found is None:
            return None
        counted = select(func.count(), func.count().filter(col(SegmentRow.version) > 1)).where(
            SegmentRow.recording_id == recording_id
        )
        segments, edited = (await self.session.exec(counted)).one()
        row = TranscriptRow(recording_id=recording_id, text="", **dict(zip(columns, found, strict=True)))
        return Facts(row, segments, edited)

    async def heard(self, recording_id: UUID) -> list[dict[str, Any]]:
        """The machine's segments with their words, as they were heard."""
        query = select(TranscriptRow.segments).where(TranscriptRow.recording_id == recording_id)
        return list((await self.session.exec(query)).first() or ())

    async def segments(self, recording_id: UUID, *, after: int = -1, limit: int | None = None) -> list[SegmentRow]:
        """By number, those behind `after`."""
        query = (
            select(SegmentRow)
            .where(SegmentRow.recording_id == recording_id, SegmentRow.number > after)
            .order_by(col(SegmentRow.number))
            .limit(limit)
        )
        return list((await self.session.exec(query, execution_options={"populate_existing": True})).all())

    async def segment(self, recording_id: UUID, number: int, *, lock: bool = False) -> SegmentRow | None:
        query = select(SegmentRow).where(SegmentRow.recording_id == recording_id, SegmentRow.number == number)
        if lock:
            query = query.with_for_update()
        return (await self.session.exec(query, execution_options={"populate_existing": True})).first()

    async def versions(self, recording_id: UUID, number: int, *, before: int, limit: int) -> list[SegmentVersion]:
        """Those below `before`, newest first; the segment's own is not among them."""
        query = (
            select(SegmentVersion)
            .where(SegmentVersion.recording_id == recording_id, SegmentVersion.number == number)
            .where(SegmentVersion.version < before)
            .order_by(col(SegmentVersion.version).desc())
            .limit(limit)
        )
        return list((await self.session.exec(query)).all())

    async def made_at(self, recording_id: UUID) -> datetime | None:
        """When the machine wrote the transcript."""
        query = select(TranscriptRow.created_at).where(TranscriptRow.recording_id == recording_id)
        return (await self.session.exec(query)).first()

    async def speakers(self, recording_id: UUID) -> list[SpeakerRow]:
        query = (
            select(SpeakerRow)
            .where(SpeakerRow.recording_id == recording_id)
            .order_by(col(SpeakerRow.position), col(SpeakerRow.label))
        )
        return list((await self.session.exec(query, execution_options={"populate_existing": True})).all())

    async def speaker(self, recording_id: UUID, label: str) -> SpeakerRow | None:
        query = select(SpeakerRow).where(SpeakerRow.recording_id == recording_id, SpeakerRow.label == label)
        return (await self.session.exec(query)).first()

    async def move_speech(self, recording_id: UUID, change: dict[str, int]) -> None:
        """Add to what speakers have spoken, milliseconds by label."""
        for label, milliseconds in change.items():
            await self.session.exec(
                update(SpeakerRow)
                .where(and_(col(SpeakerRow.recording_id) == recording_id, col(SpeakerRow.label) == label))
                .values(spoken_ms=func.greatest(0, col(SpeakerRow.spoken_ms) + milliseconds))
            )

    async def summary(self, recording_id: UUID) -> SummaryRow | None:
        query = select(SummaryRow).where(SummaryRow.recording_id == recording_id)
        return (await self.session.exec(query)).first()

    async def search(
        self, viewer: Viewer, query: str, *, only: UUID | None, after: Place | None, limit: int
    ) -> Sequence[RowMapping]:
        """Segments of recordings that `viewer` may read, the newest recording's first; `only`: of one recording.

        TooSlow after SEARCH_SECONDS; the transaction is of no more use then.
        """
        connection = await self.session.connection()
        stems = (await connection.execute(text(_STEMS), {"query": query, "configs": list(SEARCH_CONFIGS)})).scalar_one()
        if stems is None:
            # Words that every language passes over, or none.
            return []
        values = {
            "query": query,
            "stems": stems,
            "me": viewer.user_id,
            "roles": list(viewer.roles),
            "only": only,
            "at": after.at if after else None,
            "id": after.recording_id if after else None,
            "number": after.number if after else None,
            "limit": limit,
            "marks": MATCH_STARTS + MATCH_ENDS,
            "short": _SHORT,
            "whole": _WHOLE,
            "fragments": _FRAGMENTS,
        }
        await connection.execute(text(_PLAN), {"longest": _milliseconds(_FIRST_SECONDS)})
        try:
            async with connection.begin_nested():
                return (await connection.execute(text(SEARCH), values)).mappings().all()
        except DBAPIError as fault:
            _expect_canceled(fault)
        await connection.execute(text(_PLAN_BY_INDEX), {"longest": _milliseconds(SEARCH_SECONDS - _FIRST_SECONDS)})
        try:
            return (await connection.execute(text(SEARCH), values)).mappings().all()
        except DBAPIError as fault:
            _expect_canceled(fault)
            raise TooSlow from fault


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"


def _expect_canceled(fault: DBAPIError) -> None:
    if getattr(fault.orig, "sqlstate", None) != _CANCELED:
        raise fault
