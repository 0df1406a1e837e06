"""Who said what: full-text search, by the index, in what one may read."""

import asyncio
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from backend.recordings.languages import SEARCH_CONFIGS, search_config
from backend.recordings.repository import transcripts
from backend.recordings.repository.transcripts import TranscriptRepository, Viewer
from tests.factories.recordings import at
from tests.fixtures.people import Person
from tests.recordings.reading.conftest import Library

SPOKEN = "Speaker 1"


def talk(*sentences: str) -> list[tuple[float, float, str | None, str]]:
    return [(index * 2.0, index * 2.0 + 1.5, SPOKEN, sentence) for index, sentence in enumerate(sentences)]


async def hits(person: Person, query: str, **more: Any) -> list[dict[str, Any]]:
    answer = await person.client.get("/api/recordings/search", params={"q": query, **more})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def texts(person: Person, query: str) -> list[str]:
    return ["".join(part["text"] for part in hit["snippet"]) for hit in await hits(person, query)]


async def test_a_hit_says_where_and_when_and_marks_what_matches(library: Library) -> None:
    note = await library.note(title="Renewal")
    await library.owner.client.put(at(note, "/speakers/Speaker 2"), json={"name": "María"})
    (hit,) = await hits(library.owner, "runs")
    assert hit["snippet"] == [
        {"text": "Hello, I am calling about my ", "match": False},
        {"text": "running", "match": True},
        {"text": " policies.", "match": False},
    ]
    said = {"number": 1, "start": 2.5, "end": 4.0, "speaker": "Speaker 2", "name": "María", "title": "Renewal"}
    assert {name: hit[name] for name in said} == said
    assert hit["recording_id"] == str(note.id)


async def test_all_words_a_phrase_either_and_without(library: Library) -> None:
    one, two, three = "The red car is old", "The car is red and fast", "A red bicycle"
    await library.note(talk=talk(one, two, three))
    olga = library.owner
    assert await texts(olga, "car red") == [one, two]
    assert await texts(olga, '"red car"') == [one]
    assert await texts(olga, "bicycle or fast") == [two, three]
    assert await texts(olga, "red -car") == [three]
    assert await texts(olga, "CARS") == [one, two]
    assert await texts(olga, "aeroplane") == []


async def test_words_are_found_by_their_stems_in_the_recordings_own_language(library: Library) -> None:
    await library.note(talk=talk("Die Versicherungen sind teuer"), language="de")
    await library.note(talk=talk("Las pólizas están vencidas"), language="es")
    await library.note(talk=talk("保険 の 更新"), language="ja")
    olga = library.owner
    assert await texts(olga, "Versicherung") == ["Die Versicherungen sind teuer"]
    assert await texts(olga, "póliza") == ["Las pólizas están vencidas"]
    assert await texts(olga, "更新") == ["保険 の 更新"]


async def test_no_syntax_is_a_mistake(library: Library) -> None:
    await library.note()
    odd = ["'", '"', '"unclosed', "-", "--", "& | ! ( ) : *", "a:*", "foo & | bar", "\\", "%", "<script>", "or or or"]
    odd += ["the", "😀", "a" * 300, "' or 1=1 --", "-car", "((((", "!!x", "NOT", "\u202eabc", "a\tb"]
    for query in odd:
        await hits(library.owner, query)


async def test_what_is_no_query_is_refused(library: Library) -> None:
    for query in ("", " ", "\t\n", "a\x00b", "a" * 301, "\x1b"):
        answer = await library.owner.client.get("/api/recordings/search", params={"q": query})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), query


async def test_an_edit_is_found_and_what_it_replaced_is_not(library: Library) -> None:
    note = await library.note(talk=talk("I want a zebra"))
    await library.owner.client.put(at(note, "/segments/0"), json={"version": 1, "text": "I want a Zafira"})
    assert await texts(library.owner, "zebra") == []
    assert await texts(library.owner, "zafira") == ["I want a Zafira"]


async def test_only_what_one_may_read_is_found(library: Library) -> None:
    private = await library.note(talk=talk("plum"))
    shared = await library.note(talk=talk("plum"), shared_role="operator")
    teams = await library.note(talk=talk("plum"), owner_id=None)
    people = library.people
    viewer, operator, admin = await people.viewer(), await people.operator(), await people.admin()
    expected = (
        (library.owner, (private, shared, teams)),
        (viewer, (teams,)),
        (operator, (shared, teams)),
        (admin, (shared, teams)),
    )
    for person, notes in expected:
        assert {hit["recording_id"] for hit in await hits(person, "plum")} == {str(note.id) for note in notes}
    assert await hits(viewer, "plum", recording_id=str(private.id)) == []


async def test_markup_comes_as_text_in_pieces(library: Library) -> None:
    await library.note(talk=talk("He said <b>plum</b> & \x01pear\x02 twice"))
    (hit,) = await hits(library.owner, "plum pear")
    assert [part["text"] for part in hit["snippet"] if part["match"]] == ["plum", "pear"]
    assert set(hit["snippet"][0]) == {"text", "match"}


async def test_pages_go_on_where_the_last_one_ended(library: Library) -> None:
    old = await library.note(talk=talk(*(["plum"] * 5)), age=timedelta(days=2))
    new = await library.note(talk=talk(*(["plum"] * 4)))
    seen, cursor = list[tuple[str, int]](), None
    while True:
        params: dict[str, Any] = {"q": "plum", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await library.owner.client.get("/api/recordings/search", params=params)).json()
        seen += [(hit["recording_id"], hit["number"]) for hit in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == [(str(new.id), number) for number in range(4)] + [(str(old.id), number) for number in range(5)]


async def test_a_cursor_that_nobody_gave_is_refused(library: Library) -> None:
    for cursor in ("x", "", "bm90IGpzb24", "WzEsMiwzXQ", "W10", "e30", "MQ", "😀"):
        answer = await library.owner.client.get("/api/recordings/search", params={"q": "plum", "cursor": cursor})
        assert answer.status_code == 422, cursor


async def test_of_a_long_segment_the_passages_that_match_are_shown(library: Library) -> None:
    long = f"{'filler ' * 200} the plum pudding {'stuffing ' * 200}"
    await library.note(talk=talk(long))
    (hit,) = await hits(library.owner, "plum")
    shown = "".join(part["text"] for part in hit["snippet"])
    assert "plum pudding" in shown
    assert len(shown) < 400


async def test_the_index_answers_and_not_every_row(library: Library) -> None:
    note = await library.note(talk=talk("plum"))
    async with library.db.transaction() as session:
        connection = await session.connection()
        many = """insert into transcript_segments (recording_id, number, start_ms, end_ms, text, version, config)
            select :id, n, n, n, 'word' || n || ' and more words', 1, 'english' from generate_series(1, 20000) n"""
        await connection.execute(text(many), {"id": note.id})
        # As autovacuum does.
        await connection.execute(text("select gin_clean_pending_list('ix_transcript_segments_search')"))
        await connection.execute(text("analyze transcript_segments"))
        values = {
            "query": "word777",
            "stems": "word777",
            "me": library.owner.id,
            "roles": [],
            "only": None,
        }
        values |= {
            "at": None,
            "id": None,
            "number": None,
            "limit": 50,
            "marks": "",
            "short": 300,
            "whole": "",
            "fragments": "",
        }
        explain = text(f"explain (analyze, timing off, summary off) {transcripts.SEARCH}")
        plan = (await connection.execute(explain, values)).scalars().all()
    (once,) = [line for line in plan if "ix_transcript_segments_search" in line]
    assert "loops=1)" in once, "\n".join(plan)
    assert not any("Seq Scan on transcript_segments" in line for line in plan), "\n".join(plan)
    (hit,) = await hits(library.owner, "word777")
    assert hit["number"] == 777


async def test_a_search_that_takes_too_long_is_given_up_and_says_so(library: Library) -> None:
    await library.note(talk=talk("plum"))
    async with library.db.transaction() as session:
        await (await session.connection()).execute(text("lock table transcript_segments in access exclusive mode"))
        answer = await library.owner.client.get("/api/recordings/search", params={"q": "plum"})
    assert (answer.status_code, answer.json()["code"]) == (503, "search_too_slow")
    assert "add a rarer word" in answer.json()["detail"]
    (_,) = await hits(library.owner, "plum")


async def test_a_search_whose_first_plan_takes_too_long_is_made_again_by_the_index(library: Library) -> None:
    await library.note(talk=talk("plum"))
    async with library.db.transaction() as session:
        await (await session.connection()).execute(text("lock table transcript_segments in access exclusive mode"))
        search = asyncio.create_task(hits(library.owner, "plum"))
        # Longer than the first plan is given, shorter than both.
        await asyncio.sleep(1.5)
        assert not search.done()
    (_,) = await search


async def test_the_planner_never_forgets_the_words(library: Library) -> None:
    """PostgreSQL may take a prepared statement's generic plan from its sixth execution on."""
    await library.note(talk=talk("plum"))
    viewer = Viewer(user_id=library.owner.id, roles=(), admin=False)
    plans = """select sum(custom_plans) as custom, sum(generic_plans) as generic from pg_prepared_statements
        where statement like '%ts_headline%' and statement not like '%pg_prepared_statements%'"""
    async with library.db.transaction() as session:
        for _ in range(7):
            (_row,) = await TranscriptRepository(session).search(viewer, "plum", only=None, after=None, limit=5)
        made = (await (await session.connection()).execute(text(plans))).one()
    assert (made.custom, made.generic) == (7, 0)


async def test_postgresql_knows_every_configuration(library: Library) -> None:
    async with library.db.transaction() as session:
        connection = await session.connection()
        known = set((await connection.execute(text("select cfgname from pg_ts_config"))).scalars())
    assert set(SEARCH_CONFIGS) <= known
    assert (search_config("de"), search_config("zh"), search_config(None)) == ("german", "simple", "simple")


async def test_who_searches_too_often_waits_alone_and_a_stranger_is_a_stranger_still(library: Library) -> None:
    owner, other = library.owner, await library.people.viewer("otto")
    answers = [await owner.client.get("/api/recordings/search", params={"q": "policies"}) for _ in range(61)]
    assert [answer.status_code for answer in answers[-2:]] == [200, 429]
    assert answers[-1].json()["code"] == "rate_limited"
    assert await hits(other, "policies") == []
    stranger = await owner.client.get("/api/recordings/search", params={"q": "policies"}, headers={"Authorization": ""})
    assert stranger.status_code == 401
