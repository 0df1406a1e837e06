"""One recording and lists of them: how far it is, how it was made, for how long it is kept; and a call's words after an edit."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from backend.core.clock import utc_now
from backend.quotas import service as quotas
from tests.factories.calls import add_call
from tests.factories.recordings import at
from tests.fixtures.people import People
from tests.fixtures.product import Start
from tests.recordings.reading.conftest import Library


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def test_a_recording_says_how_it_was_made_and_what_it_is_about(library: Library) -> None:
    note = await library.note(codec="opus")
    body = (await library.owner.client.get(at(note))).json()
    assert (body["state"], body["duration_seconds"], body["codec"], body["owner"]) == ("ready", 8.0, "opus", "olga")
    made = {"language": "en", "backend": "local", "model": "tiny", "diarizer": "campplus", "cost_usd": None}
    assert {name: body["transcript"][name] for name in made} == made
    assert [(each["label"], each["spoken_seconds"], each["has_sample"]) for each in body["speakers"]] == [
        ("Speaker 1", 5.5, True),
        ("Speaker 2", 1.5, True),
    ]
    assert body["summary"] == {
        "title": "A talk",
        "summary": "They talk.",
        "action_items": ["Call back"],
        "backend": "extractive",
        "model": None,
        "note": None,
    }


async def test_a_worker_of_whom_nothing_is_heard_promises_no_time(library: Library) -> None:
    working = {"state": "transcribing", "stage": "words", "percent": 42, "seconds_left": 75}
    for left, stalled in ((timedelta(seconds=65), False), (timedelta(seconds=55), True), (-timedelta(hours=1), True)):
        note = await library.note(**working, claimed_until=utc_now() + left)
        body = (await library.owner.client.get(at(note))).json()
        expected = (stalled, None if stalled else 75, 42)
        assert (body["stalled"], body["seconds_left"], body["percent"]) == expected, left


async def test_a_recording_that_is_worked_on_says_how_far_it_is(library: Library) -> None:
    note = await library.note(state="transcribing", stage="words", percent=42, seconds_left=75)
    body = (await library.owner.client.get(at(note))).json()
    shown = {"state": "transcribing", "stage": "words", "percent": 42, "seconds_left": 75, "cancelling": False}
    assert {name: body[name] for name in shown} == shown
    assert (body["transcript"], body["speakers"], body["summary"]) == (None, [], None)


async def test_lists_are_paged_and_filtered(library: Library) -> None:
    notes = [await library.note(age=timedelta(hours=number), storage=None) for number in range(5)]
    call = await library.note(owner_id=None, kind="call", storage=None, age=timedelta(days=9))
    failed = await library.note(state="failed", error="it broke", storage=None, age=timedelta(days=8))
    client = library.owner.client

    async def listed(**params: Any) -> list[str]:
        ids, cursor = list[str](), None
        while True:
            given = params | ({"cursor": cursor} if cursor else {})
            page = (await client.get("/api/recordings", params=given)).json()
            ids += [item["id"] for item in page["items"]]
            if (cursor := page["next_cursor"]) is None:
                return ids

    assert await listed(limit=2) == [str(each.id) for each in (*notes, failed, call)]
    assert await listed(kind="call") == [str(call.id)]
    assert await listed(state="failed") == [str(failed.id)]
    assert (await client.get("/api/recordings?state=lost")).status_code == 422
    assert (await client.get("/api/recordings?cursor=x")).status_code == 422


async def test_an_open_recording_is_cancelled_and_a_final_one_is_not(library: Library) -> None:
    client = library.owner.client
    waiting, done = await library.note(state="fetched"), await library.note()
    for _ in range(2):
        answer = await client.post(at(waiting, "/cancel"))
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    refused = await client.post(at(done, "/cancel"))
    assert (refused.status_code, refused.json()["code"]) == (409, "final")
    held = await library.note(state="transcribing", claimed_until=utc_now() + timedelta(minutes=1))
    assert (await client.post(at(held, "/cancel"))).json()["cancelling"] is True


async def test_a_failed_recording_is_tried_again_on_todays_quota_and_a_ready_one_is_not(library: Library) -> None:
    client, admin = library.owner.client, await library.people.admin()
    failed, done = await library.note(state="failed", error="it broke"), await library.note()
    answer = await admin.client.post(at(failed, "/retry"))
    assert (answer.status_code, answer.json()["state"], answer.json()["error"]) == (202, "fetched", None)
    async with library.db.transaction() as session:
        assert (await quotas.standing(session, library.owner.id)).reserved_ms == 8_000
    for one in (failed, done):
        refused = await client.post(at(one, "/retry"))
        assert (refused.status_code, refused.json()["code"]) == (409, "not_failed")


async def test_an_owner_keeps_notes_for_less_than_the_setting_and_an_admin_allows_more(
    start: Start, stack: AsyncExitStack
) -> None:
    people = People(await start(NOTES_RETENTION_DAYS="30", CALLS_RETENTION_DAYS="90"), stack)
    library = Library(people, await people.viewer("olga"))
    url, client = "/api/recordings/retention", library.owner.client
    assert (await client.get(url)).json() == [
        {"kind": "call", "days": 90, "own": False, "setting": 90, "due_now": 0},
        {"kind": "note", "days": 30, "own": False, "setting": 30, "due_now": 0},
    ]
    note = await library.note(age=timedelta(days=10), storage=None)
    created = (await client.get(at(note))).json()
    assert created["kept_until"][:10] == f"{utc_now() + timedelta(days=20):%Y-%m-%d}"
    # What it would delete is said at once.
    assert (await client.put(url, json={"days": 7})).json()["due_now"] == 1
    for longer in (31, 0):
        refused = await client.put(url, json={"days": longer})
        assert (refused.status_code, refused.json()["needed_role"]) == (403, "admin")
    admin = await library.people.admin()
    theirs = f"{url}/users/{library.owner.id}"
    assert (await admin.client.put(theirs, json={"days": 0})).json()["days"] == 0
    assert (await client.get(at(note))).json()["kept_until"] is None
    assert [each["own"] for each in (await admin.client.get(theirs)).json()] == [False, True]
    assert (await client.put(url, json={"days": None})).json()["days"] == 30
    refused = await client.put(url, json={"kind": "call", "days": 1})
    assert (refused.status_code, refused.json()["code"]) == (422, "kind")


@pytest.mark.parametrize("days", [-1, 3651, "x", 1.5])
async def test_days_that_make_no_sense_are_refused(library: Library, days: object) -> None:
    assert (await library.owner.client.put("/api/recordings/retention", json={"days": days})).status_code == 422


async def test_retention_of_nobody_is_not_found(library: Library) -> None:
    admin, url = await library.people.admin(), f"/api/recordings/retention/users/{UUID(int=0)}"
    assert (await admin.client.get(url)).status_code == 404
    assert (await admin.client.put(url, json={"days": 3})).status_code == 404


async def test_a_calls_page_shows_what_people_have_corrected_and_whom_they_have_named(library: Library) -> None:
    call = await add_call(library.db, recording_state="ready")
    talk = [(0.0, 1.0, "agent", "Good morning."), (1.2, 2.0, "customer", "Wrong number."), (2.0, 3.0, "agent", "Uh.")]
    recording = await library.note(owner_id=None, kind="call", subject_id=call, talk=talk)
    operator = (await library.people.operator()).client
    await operator.put(at(recording, "/segments/0"), json={"version": 1, "text": "Good evening."})
    await operator.put(at(recording, "/segments/2"), json={"version": 1, "text": ""})
    await operator.put(at(recording, "/speakers/customer"), json={"name": "Mrs. Rao"})
    shown = (await operator.get(f"/api/calls/{call}")).json()["transcript"]["segments"]
    assert shown == [
        {"start": 0.0, "end": 1.0, "speaker": "agent", "name": "agent", "text": "Good evening."},
        {"start": 1.2, "end": 2.0, "speaker": "customer", "name": "Mrs. Rao", "text": "Wrong number."},
    ]
    listed = (await operator.get("/api/scheduler/scheduled-calls")).json()["items"]
    assert [each["first_line"] for each in listed] == ["Good evening."]
    assert (await operator.delete(at(recording))).status_code == 200
    after = (await operator.get(f"/api/calls/{call}")).json()
    assert (after["recording_state"], after["transcript"]) == ("deleted", None)
