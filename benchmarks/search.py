"""Full-text search over 1,000,000 segments of 10,000 recordings, beside `ilike '%word%'` over the same rows.

`beatline`: TranscriptRepository.search as the API calls it, a page of 51 with marked passages. `ilike`: the same rights, order and
page in one statement over `transcript_segments.text`, without stems and passages. Each search is run `--times` times by both in
turn; the other side's turns end early after `--patience` seconds.

The words of each language are made of syllables and drawn by Zipf's law without the ten commonest (stop words); five languages,
200 owners, two recordings in five of the team, one in twenty of the others shared. Segments lie on the disk in the order in which
they were made. Hardest for a plan that goes through the newest first: `word of long ago`, which the oldest tenth alone has, and
`two words never in one` segment. PostgreSQL has its usual settings; the system has most of the rows in memory.

Exit code 1 when a word of the language `simple` is not found in the same segments by both, or a search is given up as too slow.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, product
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import RowMapping, text
from sqlalchemy.exc import DBAPIError

from backend import models
from backend.core.db import Base, Database
from backend.recordings.repository.transcripts import Place, TooSlow, TranscriptRepository, Viewer
from devstack.servers import embedded_postgres
from devstack.unprivileged import discard_home

__all__ = ["models"]

_PAGE = 51
_OWNERS = 200
_VOCABULARY = 20_000
_STOP_WORDS = 10
# The share of the recordings, and the letters that the language's words begin with: no word is one of two languages.
_LANGUAGES = {
    "english": (0.5, "bcdf"),
    "simple": (0.2, "ghjk"),
    "german": (0.1, "lmnp"),
    "spanish": (0.1, "qrst"),
    "turkish": (0.1, "vwxz"),
}
_CONSONANTS, _VOWELS = "bcdfghjklmnpqrstvwxz", "aiou"
_LONG_AGO, _NEVER_IN_ONE = "yrkblt", ("yfxtrt", "ytngqz")

_USERS = """
insert into users (id, username, role, password_hash)
select gen_random_uuid(), 'user' || n, 'operator', 'none' from generate_series(1, $1) n
"""
_RECORDINGS = """
insert into recordings (id, kind, subject_id, owner_id, shared_role, title, filename, state, source_path, channel_speakers,
    next_attempt_at, attempts, created_at, updated_at)
select id, 'note', id, case when n % 5 >= 2 then owners[1 + n % cardinality(owners)] end,
    case when n % 20 = 4 then 'viewer' end, 'Recording ' || n, n || '.ogg', 'ready', n || '.ogg', '[]', now(), 1,
    now() - ($1 - n) * interval '5 minutes', now()
from (select n, gen_random_uuid() as id, $2::uuid[] as owners from generate_series(0, $1 - 1) n) made
"""
_SPEAKERS = """
insert into recording_speakers (recording_id, label, position, spoken_ms)
select id, 'Speaker ' || k, k, 1000 from recordings cross join generate_series(1, 2) k
"""
_INDEX = "create index ix_transcript_segments_search on transcript_segments using gin (search)"
_ILIKE = """
select s.recording_id, s.number, s.text, r.title, r.filename, r.created_at
from transcript_segments s join recordings r on r.id = s.recording_id
where {words}
and (r.owner_id is null or r.owner_id = :me or r.shared_role = any(cast(:roles as text[])))
and (cast(:only as uuid) is null or r.id = :only)
and (cast(:at as timestamptz) is null or (r.created_at, r.id) < (:at, :id) or (r.id = :id and s.number > :number))
order by r.created_at desc, r.id desc, s.number
limit :limit
"""
_CUSTOM_PLANS = "select set_config('plan_cache_mode', 'force_custom_plan', true)"
_CANCELED = "57014"


@dataclass(frozen=True, slots=True)
class Search:
    """The same question in both ways; `ilike`: a condition on `s.text`."""

    name: str
    query: str
    ilike: str
    only: bool = False
    second_page: bool = False
    compared: bool = False


@dataclass(slots=True)
class Side:
    """How long each turn took, seconds, and what the last one found."""

    took: list[float] = field(default_factory=list)
    found: list[tuple[UUID, int]] | None = None

    async def turn(self, ask: Callable[[], Awaitable[Sequence[RowMapping] | None]]) -> None:
        began = time.perf_counter()
        rows = await ask()
        self.took.append(time.perf_counter() - began)
        self.found = None if rows is None else [(row["recording_id"], row["number"]) for row in rows]

    def __str__(self) -> str:
        over = ">" if self.found is None else " "
        return f"{over}{statistics.median(self.took) * 1000:>9,.0f} {max(self.took) * 1000:>9,.0f} {len(self.took):>3}"


class Speech:
    """What is said in whole recordings, the oldest first; the same for the same numbers."""

    def __init__(self, recordings: int, segments: int) -> None:
        self._random = random.Random(1)
        self._recordings, self._each = recordings, max(1, segments // recordings)
        syllables = ["".join(pair) for pair in product(_CONSONANTS, _VOWELS)]
        self.words: dict[str, list[str]] = {}
        for language, (_, letters) in _LANGUAGES.items():
            first = ["".join(pair) for pair in product(letters, _VOWELS)]
            possible = ["".join(parts) for parts in product(first, syllables, syllables)]
            self.words[language] = self._random.sample(possible, _VOCABULARY)
        self._weights = list(accumulate(1 / (rank + _STOP_WORDS) for rank in range(1, _VOCABULARY + 1)))

    def rows(self, ids: list[UUID]) -> Iterator[str]:
        """Lines for COPY."""
        languages, shares = list(_LANGUAGES), [share for share, _ in _LANGUAGES.values()]
        for position, key in enumerate(ids):
            (language,) = self._random.choices(languages, shares)
            for number in range(self._each):
                said = self._random.choices(
                    self.words[language], cum_weights=self._weights, k=self._random.randint(6, 18)
                )
                chance = self._random.random()
                if chance < 0.1:
                    said.append(_NEVER_IN_ONE[number % 2])
                elif chance < 0.2 and position < self._recordings / 10:
                    said.append(_LONG_AGO)
                start = number * 5_000
                yield f"{key}\t{number}\t{start}\t{start + 4_000}\tSpeaker {1 + number % 2}\t{' '.join(said)}\t0.9\t1\t{language}\n"

    def searches(self) -> list[Search]:
        common, second, middling, rare = (self.words["english"][rank] for rank in (0, 1, 100, _VOCABULARY - 1))
        plain = {"common": 0, "middling": 100, "rare": _VOCABULARY - 1}

        def has(word: str) -> str:
            return f"s.text ilike '%{word}%'"

        def both(one: str, other: str) -> str:
            return f"{has(one)} and {has(other)}"

        return [
            Search("rare word", rare, has(rare)),
            Search("middling word", middling, has(middling)),
            Search("common word", common, has(common)),
            Search("phrase of two common words", f'"{common} {second}"', has(f"{common} {second}")),
            Search("rare or middling", f"{rare} or {middling}", f"({has(rare)} or {has(middling)})"),
            Search("middling -common", f"{middling} -{common}", f"{has(middling)} and not {has(common)}"),
            Search("common word, one recording", common, has(common), only=True),
            Search("middling word, second page", middling, has(middling), second_page=True),
            Search("common word, second page", common, has(common), second_page=True),
            Search("word of long ago", _LONG_AGO, has(_LONG_AGO)),
            Search("two words never in one", " ".join(_NEVER_IN_ONE), both(*_NEVER_IN_ONE)),
            *(
                Search(f"{name} word of `simple`", word, has(word), second_page=page, compared=True)
                for name, rank in plain.items()
                for word in [self.words["simple"][rank]]
                for page in (False, True)
            ),
        ]


async def load(url: str, recordings: int, speech: Speech) -> int:
    """How many segments there are then."""
    db = Database(url, send=lambda *_: None)
    async with db.engine.begin() as begun:
        await begun.run_sync(Base.metadata.create_all)
    await db.close()
    connection = await asyncpg.connect(url, command_timeout=3_600)
    try:
        await connection.execute(_USERS, _OWNERS)
        owners = [row["id"] for row in await connection.fetch("select id from users order by username")]
        await connection.execute(_RECORDINGS, recordings, owners)
        ids = [row["id"] for row in await connection.fetch("select id from recordings order by created_at")]
        await connection.execute("drop index ix_transcript_segments_search")
        # No look at the recording of each segment, which is one of `ids`.
        await connection.execute("set session_replication_role = replica")
        await connection.execute("set maintenance_work_mem = '512MB'")
        columns = ("recording_id", "number", "start_ms", "end_ms", "speaker", "text", "confidence", "version", "config")
        await connection.copy_to_table("transcript_segments", source=_blocks(speech.rows(ids)), columns=columns)
        await connection.execute(_SPEAKERS)
        # As the index of long ago: nothing waits in its list of what is new.
        await connection.execute(_INDEX)
        await connection.execute("vacuum analyze")
        return int(await connection.fetchval("select count(*) from transcript_segments"))
    finally:
        await connection.close()


async def _blocks(lines: Iterator[str]) -> AsyncIterator[bytes]:
    block: list[str] = []
    for line in lines:
        block.append(line)
        if len(block) == 1_000:
            yield "".join(block).encode()
            block.clear()
    yield "".join(block).encode()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both ways of one viewer, who owns some recordings and reads the team's and the shared ones."""

    db: Database
    viewer: Viewer
    # A recording of theirs.
    own: UUID
    patience: float

    async def beatline(self, search: Search, after: Place | None) -> Sequence[RowMapping] | None:
        try:
            async with self.db.transaction() as session:
                return await TranscriptRepository(session).search(
                    self.viewer, search.query, only=self.own if search.only else None, after=after, limit=_PAGE
                )
        except TooSlow:
            return None

    async def ilike(self, search: Search, after: Place | None) -> Sequence[RowMapping] | None:
        values: dict[str, Any] = {
            "me": self.viewer.user_id,
            "roles": list(self.viewer.roles),
            "only": self.own if search.only else None,
            "at": after.at if after else None,
            "id": after.recording_id if after else None,
            "number": after.number if after else None,
            "limit": _PAGE,
        }
        async with self.db.transaction() as session:
            connection = await session.connection()
            await connection.execute(text(f"{_CUSTOM_PLANS}, set_config('statement_timeout', '55s', true)"))
            try:
                found = await connection.execute(text(_ILIKE.format(words=search.ilike)), values)
            except DBAPIError as fault:
                if getattr(fault.orig, "sqlstate", None) != _CANCELED:
                    raise
                return None
            return found.mappings().all()

    async def after(self, search: Search) -> Place | None:
        """Where the second page begins."""
        if not search.second_page:
            return None
        first = await self.ilike(search, None)
        if not first:
            return None
        last = first[min(_PAGE - 1, len(first)) - 1]
        return Place(last["created_at"], last["recording_id"], last["number"])

    async def of(self, search: Search, times: int) -> tuple[Side, Side]:
        ours, other = Side(), Side()
        after = await self.after(search)
        for _ in range(times):
            await ours.turn(lambda: self.beatline(search, after))
            if sum(other.took) < self.patience:
                await other.turn(lambda: self.ilike(search, after))
        return ours, other


async def measure(url: str, speech: Speech, times: int, patience: float) -> list[str]:
    """Prints the figures; what went wrong."""
    db, faults, ratios, medians, same = Database(url, send=lambda *_: None), [], [], [], 0
    try:
        async with db.engine.connect() as connection:
            me, own = (
                await connection.execute(
                    text(
                        "select owner_id, id from recordings where owner_id is not null order by created_at desc limit 1"
                    )
                )
            ).one()
        comparison = Comparison(db, Viewer(me, ("viewer", "operator"), admin=False), own, patience)
        print(
            f"{'ms':<28} {'beatline':>10} {'worst':>9} {'n':>3} {'ilike':>10} {'worst':>9} {'n':>3} {'ratio':>8} {'found':>6}"
        )
        searches = speech.searches()
        for search in searches:
            ours, other = await comparison.of(search, 1 if search.compared else times)
            if ours.found is None:
                faults.append(f"{search.name}: given up as too slow")
            if search.compared:
                same += ours.found == other.found and ours.found is not None
                continue
            medians.append(statistics.median(ours.took))
            ratios.append(statistics.median(other.took) / medians[-1])
            found = "" if ours.found is None else len(ours.found)
            print(f"{search.name:<28} {ours} {other} {ratios[-1]:>8.1f} {found:>6}", flush=True)
    finally:
        await db.close()
    compared = sum(search.compared for search in searches)
    print(
        f"\n{len(ratios)} searches: medians of {min(medians) * 1000:.0f} to {max(medians) * 1000:.0f} ms, ilike takes "
        f"{min(ratios):.1f} to {max(ratios):,.0f} times as long; the same segments on {same} of {compared} pages of plain words"
    )
    return faults if same == compared else [*faults, f"{compared - same} pages of plain words differ"]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=10_000)
    parser.add_argument("--segments", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--patience", type=float, default=20, help="seconds for the other side's turns of one search")
    parser.add_argument("--quick", action="store_true", help="a smoke run: 1,000 recordings, 50,000 segments, 3 times")
    wish = parser.parse_args(argv)
    recordings, segments, times = (1_000, 50_000, 3) if wish.quick else (wish.recordings, wish.segments, wish.times)
    state, speech = Path(tempfile.mkdtemp(prefix="beatline-search-")), Speech(recordings, segments)
    try:
        with embedded_postgres(state / "postgres") as postgres:
            began = time.perf_counter()
            loaded = asyncio.run(load(postgres.url, recordings, speech))
            took, busy = time.perf_counter() - began, os.getloadavg()[0]
            print(
                f"{loaded:,} segments of {recordings:,} recordings, loaded in {took:.0f} s; load {busy:.1f}\n",
                flush=True,
            )
            faults = asyncio.run(measure(postgres.url, speech, times, wish.patience))
    finally:
        discard_home(state / "postgres")
        shutil.rmtree(state, ignore_errors=True)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
