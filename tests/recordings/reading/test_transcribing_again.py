"""POST /api/recordings/{id}/transcribe: who may, when, and what it says where it may not."""

import asyncio
from typing import Any

import httpx

from backend.recordings.models import Recording
from tests.factories.recordings import at
from tests.fixtures.people import Person
from tests.recordings.reading.conftest import Library
from tests.recordings.reading.test_editing import operations


async def ask(person: Person, note: Recording, **wish: Any) -> httpx.Response:
    return await person.client.post(at(note, "/transcribe"), json=wish)


async def read(person: Person, note: Recording) -> dict[str, Any]:
    found: dict[str, Any] = (await person.client.get(at(note))).json()
    return found


def probes(library: Library, note: Recording) -> int:
    return library.people.product.sent.named("probe_recording").count({"recording_id": str(note.id)})


async def test_the_owner_has_it_transcribed_with_other_options(library: Library) -> None:
    note, olga = await library.note(options={"language": "en", "hints": "Rao"}), library.owner
    answer = await ask(olga, note, language="fr", speakers=2, summary=False)
    assert (answer.status_code, answer.json()["state"], answer.json()["error"]) == (202, "fetched", None)
    now = await read(olga, note)
    # What is left out has its default, as in an upload; what was heard before is there until it is done.
    assert now["options"] == {"language": "fr", "speakers": 2, "summary": False}
    assert now["transcript"]["segments"] == 3
    assert probes(library, note) == 1
    quota = (await olga.client.get("/api/quotas/me")).json()
    assert (quota["reserved_seconds"], quota["reserved_files"]) == (8.0, 1)
    listed = (await olga.client.get("/api/recordings/search", params={"q": "policies"})).json()["items"]
    assert len(listed) == 2


async def test_no_options_at_all_are_the_usual_ones(library: Library) -> None:
    note = await library.note(options={"language": "fr"}, state="failed", error="the service was away")
    answer = await library.owner.client.post(at(note, "/transcribe"))
    assert (answer.status_code, answer.json()["state"], answer.json()["error"]) == (202, "fetched", None)
    assert (await read(library.owner, note))["options"] == {}


async def test_the_same_again_while_it_is_under_way_changes_nothing(library: Library) -> None:
    note, olga = await library.note(), library.owner
    answers = await asyncio.gather(*(ask(olga, note, language="de") for _ in range(5)))
    assert [answer.status_code for answer in answers] == [202] * 5
    assert probes(library, note) == 1
    assert (await olga.client.get("/api/quotas/me")).json()["reserved_files"] == 1
    other = await ask(olga, note, language="fr")
    assert (other.status_code, other.json()["code"]) == (409, "under_way")


async def test_what_people_have_changed_is_not_lost_unless_they_say_so(library: Library) -> None:
    note, olga = await library.note(), library.owner
    await olga.client.put(at(note, "/segments/0"), json={"version": 1, "text": "Corrected."})
    await olga.client.put(at(note, "/segments/2"), json={"version": 1, "text": "Corrected, too."})
    await olga.client.put(at(note, "/speakers/Speaker 1"), json={"name": "Ms Rao"})
    refused = await ask(olga, note, language="de")
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["edited"], problem["named"]) == (409, "edited", 2, 1)
    assert "2 edited segments and 1 named speaker would be lost" in problem["detail"]
    assert (await read(olga, note))["state"] == "ready"
    assert (await ask(olga, note, language="de", discard_edits=True)).status_code == 202
    assert (await read(olga, note))["options"] == {"language": "de"}


async def test_a_name_alone_is_kept_too(library: Library) -> None:
    note, olga = await library.note(), library.owner
    await olga.client.put(at(note, "/speakers/Speaker 1"), json={"name": "Ms Rao"})
    refused = await ask(olga, note)
    assert (refused.status_code, refused.json()["detail"].partition(" would")[0]) == (409, "1 named speaker")
    await olga.client.put(at(note, "/speakers/Speaker 1"), json={"name": None})
    assert (await ask(olga, note)).status_code == 202


async def test_while_it_is_under_way_nobody_edits_and_it_can_be_cancelled(library: Library) -> None:
    note, olga = await library.note(), library.owner
    await ask(olga, note)
    edit = await olga.client.put(at(note, "/segments/0"), json={"version": 1, "text": "Corrected."})
    assert (edit.status_code, edit.json()["code"]) == (409, "not_ready")
    cancelled = await olga.client.post(at(note, "/cancel"))
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "ready")
    assert (await read(olga, note))["transcript"]["segments"] == 3
    quota = (await olga.client.get("/api/quotas/me")).json()
    assert (quota["reserved_seconds"], quota["used_files"]) == (0.0, 0)


async def test_sound_that_is_gone_cannot_be_heard_again(library: Library) -> None:
    note, never = await library.note(), await library.note(blob_key=None, state="failed")
    for path in library.folder.rglob(f"{note.id}.ogg"):
        path.unlink()
    for each in (note, never):
        answer = await ask(library.owner, each)
        assert (answer.status_code, answer.json()["code"]) == (409, "no_audio")
    assert (await read(library.owner, note))["state"] == "ready"


async def test_a_quota_that_is_used_up_refuses_it(library: Library) -> None:
    note, ada = await library.note(), await library.people.admin()
    await ada.client.put(f"/api/quotas/{library.owner.id}", json={"files_per_day": 0})
    answer = await ask(library.owner, note)
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert (await read(library.owner, note))["state"] == "ready"
    assert probes(library, note) == 0


async def test_wrong_options_are_refused_by_name(library: Library) -> None:
    note = await library.note()
    for wish, named in (
        ({"speakers": 99}, "speakers"),
        ({"speakers": 2, "max_speakers": 3}, "max_speakers"),
        ({"langauge": "en"}, "langauge"),
        ({"backend": "else"}, "backend"),
    ):
        answer = await ask(library.owner, note, **wish)
        assert (answer.status_code, named in answer.text) == (422, True), wish
    assert (await read(library.owner, note))["state"] == "ready"


async def test_somebody_elses_is_their_own_affair(library: Library) -> None:
    private, shared = await library.note(), await library.note(shared_role="viewer")
    vera, otto, ada = (
        await library.people.viewer(),
        await library.people.operator(),
        await library.people.admin(),
    )
    codes = {
        name: [(await ask(person, note)).status_code for note in (private, shared)]
        for name, person in (("vera", vera), ("otto", otto), ("ada", ada))
    }
    assert codes == {"vera": [404, 403], "otto": [404, 403], "ada": [403, 403]}
    assert [(await read(library.owner, note))["state"] for note in (private, shared)] == ["ready", "ready"]


async def test_the_teams_is_for_operators(library: Library) -> None:
    note = await library.note(owner_id=None)
    vera, otto = await library.people.viewer(), await library.people.operator()
    refused = await ask(vera, note)
    assert (refused.status_code, refused.json()["code"]) == (403, "role_needed")
    assert (await ask(otto, note, language="hi")).status_code == 202


async def test_the_log_of_operations_has_who_asked_and_not_the_names_to_expect(library: Library) -> None:
    note = await library.note()
    await ask(library.owner, note, language="de", hints="plum jam")
    (logged,) = await operations(library, 1)
    assert (logged.actor, logged.path) == ("olga", at(note, "/transcribe"))
    assert logged.request["body"] == {"language": "de", "hints": "[redacted]"}
