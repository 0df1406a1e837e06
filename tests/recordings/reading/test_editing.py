"""Correcting what was heard and naming who spoke: versions are kept, and two people at once never overwrite each other."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlmodel import select

from backend.audit.models import OperationEntry
from backend.audit.service import sweep
from backend.recordings.models import Recording
from tests.factories.recordings import TALK, at
from tests.fixtures.people import Person
from tests.fixtures.product import eventually
from tests.recordings.reading.conftest import Library

HEARD = TALK[0][3]
JSON = {"Content-Type": "application/json"}


async def edit(person: Person, note: Recording, number: int = 0, **body: Any) -> httpx.Response:
    return await person.client.put(at(note, f"/segments/{number}"), json=body)


async def test_an_edit_is_what_is_read_and_what_was_heard_is_kept(library: Library) -> None:
    note, olga = await library.note(), library.owner
    first = await edit(olga, note, version=1, text="  Good morning,\n this is   the office. ")
    assert (first.status_code, first.json()["text"]) == (200, "Good morning, this is the office.")
    assert (first.json()["version"], first.json()["updated_by"]) == (2, "olga")
    await edit(olga, note, version=2, text="Good morning.", speaker="Speaker 2")
    versions = (await olga.client.get(at(note, "/segments/0/versions"))).json()
    assert [(each["version"], each["text"], each["speaker"], each["written_by"]) for each in versions] == [
        (3, "Good morning.", "Speaker 2", "olga"),
        (2, "Good morning, this is the office.", "Speaker 1", "olga"),
        (1, HEARD, "Speaker 1", None),
    ]
    assert [each["written_at"] for each in versions] == sorted((each["written_at"] for each in versions), reverse=True)
    assert (await olga.client.get(at(note))).json()["transcript"]["edited"] == 1


async def test_many_versions_are_read_in_pages(library: Library) -> None:
    note, client = await library.note(), library.owner.client
    for version in range(1, 6):
        await edit(library.owner, note, version=version, text=f"The {version}.")
    path = at(note, "/segments/0/versions")
    pages = [{"limit": 4}, {"limit": 4, "before": 3}, {"before": 2}]
    seen = [[each["version"] for each in (await client.get(path, params=page)).json()] for page in pages]
    assert seen == [[6, 5, 4, 3], [2, 1], [1]]
    assert (await client.get(path, params={"limit": 1})).json()[0]["text"] == "The 5."
    assert (await client.get(path, params={"limit": 0})).status_code == 422


async def test_the_same_text_again_is_no_new_version(library: Library) -> None:
    note = await library.note()
    assert (await edit(library.owner, note, version=1, text=HEARD)).json()["version"] == 1
    assert (await edit(library.owner, note, version=1, speaker="Speaker 1")).json()["version"] == 1


async def test_of_two_editors_at_once_one_is_told_what_the_other_wrote(library: Library) -> None:
    note = await library.note(owner_id=None)
    editors = [await library.people.operator(name) for name in ("otto", "oleg", "oona", "omar")]
    answers = await asyncio.gather(
        *(edit(person, note, version=1, text=f"{person.user.username} was here") for person in editors)
    )
    won = [answer for answer in answers if answer.status_code == 200]
    lost = [answer for answer in answers if answer.status_code == 409]
    assert (len(won), len(lost)) == (1, 3)
    for answer in lost:
        assert answer.json()["code"] == "version"
        assert answer.json()["segment"] == won[0].json()
    assert len((await editors[0].client.get(at(note, "/segments/0/versions"))).json()) == 2


@pytest.mark.parametrize("state", ["registered", "fetched", "transcribing", "failed", "cancelled"])
async def test_nothing_is_edited_while_it_is_transcribed_again(library: Library, state: str) -> None:
    note = await library.note()
    async with library.db.transaction() as session:
        connection = await session.connection()
        await connection.execute(text("update recordings set state = :state"), {"state": state})
    edited = await edit(library.owner, note, version=1, text="Too late")
    named = await library.owner.client.put(at(note, "/speakers/Speaker 1"), json={"name": "Anna"})
    assert {(each.status_code, each.json()["code"]) for each in (edited, named)} == {(409, "not_ready")}


async def test_who_spoke_may_be_corrected_and_the_time_goes_with_it(library: Library) -> None:
    note = await library.note()

    async def spoken() -> dict[str, float]:
        return {
            each["label"]: each["spoken_seconds"]
            for each in (await library.owner.client.get(at(note, "/speakers"))).json()
        }

    assert await spoken() == {"Speaker 1": 5.5, "Speaker 2": 1.5}
    await edit(library.owner, note, version=1, speaker="Speaker 2")
    assert await spoken() == {"Speaker 1": 3.5, "Speaker 2": 3.5}
    nobody = await edit(library.owner, note, version=2, speaker=None)
    assert (nobody.json()["speaker"], nobody.json()["name"]) == (None, None)
    assert await spoken() == {"Speaker 1": 3.5, "Speaker 2": 1.5}
    unknown = await edit(library.owner, note, version=3, speaker="Speaker 9")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "speaker")
    assert "Speaker 1, Speaker 2" in unknown.json()["detail"]


async def test_a_speaker_is_named_once_for_the_whole_recording(library: Library) -> None:
    note, other = await library.note(), await library.note()
    client = library.owner.client
    named = await client.put(at(note, "/speakers/Speaker 1"), json={"name": "  Anna\tMüller "})
    assert named.json() | {"spoken_seconds": 0, "has_sample": 0} == {
        "label": "Speaker 1",
        "name": "Anna Müller",
        "named": True,
        "spoken_seconds": 0,
        "has_sample": 0,
    }
    names = [each["name"] for each in (await client.get(at(note, "/segments"))).json()]
    assert names == ["Anna Müller", "Speaker 2", "Anna Müller"]
    assert {each["name"] for each in (await client.get(at(other, "/speakers"))).json()} == {"Speaker 1", "Speaker 2"}
    for nothing in (None, "", "   ", "Speaker 1"):
        await client.put(at(note, "/speakers/Speaker 1"), json={"name": "Anna"})
        back = (await client.put(at(note, "/speakers/Speaker 1"), json={"name": nothing})).json()
        assert (back["name"], back["named"]) == ("Speaker 1", False)
    assert (await client.put(at(note, "/speakers/Nobody"), json={"name": "x"})).status_code == 404


@pytest.mark.parametrize("wrong", ["a\x00b", "a\ud800b", "a\x1bb", "x" * 10_001])
async def test_what_cannot_be_stored_or_shown_is_refused(library: Library, wrong: str) -> None:
    note, client = await library.note(), library.owner.client
    wishes = (("PUT", "/segments/0", {"version": 1, "text": wrong}), ("PUT", "/speakers/Speaker 1", {"name": wrong}))
    for method, path, body in (*wishes, ("PATCH", "", {"title": wrong})):
        # As ASCII: httpx would encode half a surrogate pair.
        answer = await client.request(method, at(note, path), content=json.dumps(body), headers=JSON)
        assert answer.status_code == 422, (path, answer.text)
    assert (await client.get(at(note, "/segments"))).json()[0]["text"] == HEARD


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"version": 1},
        {"text": "x"},
        {"version": 0, "text": "x"},
        {"version": 1, "text": None},
        {"version": 1, "txt": "x"},
    ],
)
async def test_a_wish_without_a_version_or_with_a_slip_is_refused(library: Library, body: dict[str, Any]) -> None:
    note = await library.note()
    assert (await edit(library.owner, note, **body)).status_code == 422


async def test_a_segment_that_there_is_not_is_not_found(library: Library) -> None:
    note = await library.note()
    for number in (3, 2**31 - 1):
        assert (await edit(library.owner, note, number, version=1, text="x")).status_code == 404
        assert (await library.owner.client.get(at(note, f"/segments/{number}/versions"))).status_code == 404
    assert (await edit(library.owner, note, 2**31, version=1, text="x")).status_code == 422


async def test_markup_is_text_like_any_other(library: Library) -> None:
    note = await library.note()
    markup = "<script>alert(1)</script> & 'quotes' -- ; drop table recordings"
    assert (await edit(library.owner, note, version=1, text=markup)).json()["text"] == markup


async def test_the_title_is_the_owners_to_change_and_to_take_away(library: Library) -> None:
    note, client = await library.note(), library.owner.client
    assert (await client.patch(at(note), json={"title": "My talk"})).json()["title"] == "My talk"
    assert (await client.patch(at(note), json={})).json()["title"] == "My talk"
    assert (await client.patch(at(note), json={"title": ""})).json()["title"] is None


async def test_the_log_of_operations_has_who_edited_what_and_no_word_of_it(library: Library) -> None:
    note, client = await library.note(), library.owner.client
    await client.put(at(note, "/segments/0"), json={"version": 1, "text": "My secret is plum"})
    await client.put(at(note, "/speakers/Speaker 1"), json={"name": "plum"})
    await client.patch(at(note), json={"title": "plum", "shared_role": "admin"})
    logged = await operations(library, 3)
    assert {row.actor for row in logged} == {"olga"}
    assert "plum" not in str([row.request for row in logged])
    shared = next(row for row in logged if row.method == "PATCH")
    assert shared.request["body"] == {"title": "[redacted]", "shared_role": "admin"}
    assert all(str(note.id) in row.path for row in logged)


async def operations(library: Library, count: int) -> list[OperationEntry]:
    """What is logged, once there are so many."""

    async def found() -> list[OperationEntry]:
        await sweep(library.db)
        async with library.db.transaction() as session:
            rows = list((await session.exec(select(OperationEntry))).all())
        return rows if len(rows) >= count else []

    rows = await eventually(found)
    assert isinstance(rows, list)
    return rows
