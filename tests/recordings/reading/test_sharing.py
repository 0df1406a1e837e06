"""Links that open one recording to whoever has them, and nothing else."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlmodel import select

from backend.recordings.library.sharing import MOST_OPEN, MOST_OVER
from backend.recordings.models import Recording, ShareLink
from tests.factories.recordings import SOUND, at
from tests.recordings.reading.conftest import Library
from tests.recordings.reading.test_editing import operations


@pytest.fixture
async def stranger(library: Library) -> httpx.AsyncClient:
    return await library.people.client(None)


async def shared(library: Library, note: Recording, **wish: Any) -> dict[str, Any]:
    answer = await library.owner.client.post(at(note, "/shares"), json=wish)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def rows(library: Library) -> list[ShareLink]:
    async with library.db.transaction() as session:
        return list((await session.exec(select(ShareLink))).all())


async def test_a_link_shows_the_words_and_the_sound_and_nothing_about_people(
    library: Library, stranger: httpx.AsyncClient
) -> None:
    note = await library.note(title="Renewal")
    await library.owner.client.put(at(note, "/speakers/Speaker 1"), json={"name": "Anna"})
    await library.owner.client.put(at(note, "/segments/1"), json={"version": 1, "text": ""})
    link = await shared(library, note)
    answer = await stranger.get(link["url"])
    body = answer.json()
    assert (body["title"], body["language"], body["speakers"]) == ("Renewal", "en", ["Anna", "Speaker 2"])
    assert body["has_transcript"]
    assert [(each["number"], each["name"]) for each in body["segments"]] == [(0, "Anna"), (2, "Anna")]
    assert "olga" not in answer.text
    assert str(library.owner.id) not in answer.text
    assert {name: answer.headers[name] for name in ("Referrer-Policy", "X-Robots-Tag")} == {
        "Referrer-Policy": "no-referrer",
        "X-Robots-Tag": "noindex",
    }
    part = await stranger.get(f"{link['url']}/audio", headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, SOUND[:10])
    assert "filename*=UTF-8''Renewal." in part.headers["Content-Disposition"]
    assert "Anna: Good morning" in (await stranger.get(f"{link['url']}/transcript?format=txt")).text


async def test_a_link_opens_nothing_else(library: Library, stranger: httpx.AsyncClient) -> None:
    note, other = await library.note(), await library.note()
    link = await shared(library, note)
    headers = {"Authorization": f"Bearer {link['token']}"}
    for path in (at(note), at(other), "/api/recordings"):
        assert (await stranger.get(path, headers=headers)).status_code == 401
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        assert (await stranger.request(method, link["url"])).status_code == 405


async def test_a_link_for_reading_alone_has_no_sound(library: Library, stranger: httpx.AsyncClient) -> None:
    link = await shared(library, await library.note(), with_audio=False)
    assert (await stranger.get(link["url"])).json()["with_audio"] is False
    assert (await stranger.get(f"{link['url']}/audio")).status_code == 404


async def test_a_strangers_token_opens_nothing(library: Library, stranger: httpx.AsyncClient) -> None:
    link = await shared(library, await library.note())
    token = link["token"]
    for wrong in (token[:-1], token.swapcase(), "x", "%00", "%ED%A0%80", "a" * 200, str(link["id"])):
        for path in ("", "/audio", "/transcript"):
            answer = await stranger.get(f"/api/shared/{wrong}{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), wrong
    assert (await stranger.get(f"/api/shared/{'a' * 201}")).status_code == 422


async def test_a_link_ends_when_it_expires(library: Library, stranger: httpx.AsyncClient) -> None:
    link = await shared(library, await library.note(), hours=1)
    async with library.db.transaction() as session:
        connection = await session.connection()
        await connection.execute(text("update recording_shares set expires_at = now() - interval '1 second'"))
    for path in ("", "/audio", "/transcript"):
        answer = await stranger.get(f"{link['url']}{path}")
        assert (answer.status_code, answer.json()["code"]) == (410, "share_expired")


async def test_a_link_ends_when_it_is_revoked_and_stays_so(library: Library, stranger: httpx.AsyncClient) -> None:
    note = await library.note()
    link, other = await shared(library, note), await shared(library, note)
    revoked = [(await library.owner.client.delete(at(note, f"/shares/{link['id']}"))).json() for _ in range(2)]
    assert revoked[0] == revoked[1]
    assert revoked[0]["is_open"] is False
    answer = await stranger.get(link["url"])
    assert (answer.status_code, answer.json()["code"]) == (410, "share_revoked")
    assert (await stranger.get(other["url"])).status_code == 200
    elsewhere = await library.note()
    assert (await library.owner.client.delete(at(elsewhere, f"/shares/{other['id']}"))).status_code == 404


async def test_links_of_whoever_has_left_open_nothing(library: Library, stranger: httpx.AsyncClient) -> None:
    otto, others = await library.people.operator("otto"), await library.people.operator("oscar")
    team = await library.note(owner_id=None)
    link = (await otto.client.post(at(team, "/shares"), json={})).json()
    kept = (await others.client.post(at(team, "/shares"), json={})).json()
    service = await library.people.client(library.people.product.config.service_key)
    by_service = (await service.post(at(team, "/shares"), json={})).json()

    async def statuses() -> list[int]:
        paths = ("", "/transcript", "/audio")
        return [(await stranger.get(link["url"] + path)).status_code for path in paths]

    async def is_active(active: bool) -> None:
        async with library.db.transaction() as session:
            change = text("update users set is_active = :active where id = :id")
            await (await session.connection()).execute(change, {"active": active, "id": otto.id})

    assert await statuses() == [200, 200, 200]
    await is_active(False)
    assert await statuses() == [410, 410, 410]
    assert (await stranger.get(link["url"])).json()["code"] == "share_revoked"
    assert [(await stranger.get(each["url"])).status_code for each in (kept, by_service)] == [200, 200]
    listed = (await others.client.get(at(team, "/shares"))).json()
    assert {each["id"]: each["is_open"] for each in listed} == {
        link["id"]: False,
        kept["id"]: True,
        by_service["id"]: True,
    }
    await is_active(True)
    assert await statuses() == [200, 200, 200]


async def test_every_open_link_is_listed_and_of_the_others_the_last(library: Library) -> None:
    note = await library.note()
    first = await shared(library, note)
    async with library.db.transaction() as session:
        over = text(
            "insert into recording_shares (id, recording_id, token_hash, with_audio, created_by, created_at, expires_at, uses)"
            " select gen_random_uuid(), recording_id, sha256(number::text::bytea), true, created_by,"
            " now() + number * interval '1 second', now(), 0"
            " from recording_shares, generate_series(1, :count) number"
        )
        await (await session.connection()).execute(over, {"count": MOST_OVER + 20})
    listed = (await library.owner.client.get(at(note, "/shares"))).json()
    assert len(listed) == MOST_OVER + 1
    assert [each["id"] for each in listed if each["is_open"]] == [first["id"]]
    assert listed == sorted(listed, key=lambda each: each["created_at"], reverse=True)


async def test_a_link_of_a_recording_that_is_deleted_opens_nothing(
    library: Library, stranger: httpx.AsyncClient
) -> None:
    note = await library.note()
    link = await shared(library, note)
    assert (await library.owner.client.delete(at(note))).json()["shares"] == 1
    assert (await stranger.get(link["url"])).status_code == 404
    assert await rows(library) == []


async def test_the_token_is_nowhere_to_be_read_again(library: Library) -> None:
    note = await library.note()
    link = await shared(library, note)
    listed = await library.owner.client.get(at(note, "/shares"))
    assert link["token"] not in listed.text
    assert [each["id"] for each in listed.json()] == [link["id"]]
    (row,) = await rows(library)
    assert link["token"].encode() not in row.token_hash


async def test_uses_are_counted_and_noted_in_the_log_of_operations_without_the_token(
    library: Library, stranger: httpx.AsyncClient
) -> None:
    note = await library.note()
    link = await shared(library, note)
    await stranger.get(link["url"])
    await stranger.get(f"{link['url']}/audio", headers={"Range": "bytes=0-9"})
    # What a player asks for on the way is one use.
    await stranger.get(f"{link['url']}/audio", headers={"Range": "bytes=10-19"})
    (listed,) = (await library.owner.client.get(at(note, "/shares"))).json()
    assert (listed["uses"], listed["last_used_at"] is not None) == (2, True)
    logged = [row for row in await operations(library, 3) if row.method == "GET"]
    assert {(row.actor_kind, row.route, row.status) for row in logged} == {
        ("anonymous", "/api/shared/{token}", 200),
        ("anonymous", "/api/shared/{token}/audio", 200),
    }
    assert link["token"] not in str([(row.path, row.params, row.request) for row in logged])


@pytest.mark.parametrize("wish", [{"hours": 0}, {"hours": 24 * 366 + 1}, {"hours": "x"}, {"days": 1}, {"hours": 2**40}])
async def test_a_link_that_would_last_too_long_or_not_at_all_is_refused(
    library: Library, wish: dict[str, object]
) -> None:
    note = await library.note()
    assert (await library.owner.client.post(at(note, "/shares"), json=wish)).status_code == 422


async def test_a_link_lasts_as_long_as_was_asked(library: Library) -> None:
    await shared(library, await library.note(), hours=48)
    (row,) = await rows(library)
    assert row.expires_at - row.created_at == timedelta(hours=48)


async def test_nobody_makes_links_without_end(library: Library) -> None:
    note = await library.note()
    for _ in range(MOST_OPEN):
        await shared(library, note)
    answer = await library.owner.client.post(at(note, "/shares"), json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_links")


async def test_a_link_to_what_is_not_transcribed_yet_says_so_by_having_no_words(
    library: Library, stranger: httpx.AsyncClient
) -> None:
    link = await shared(library, await library.note(state="transcribing"))
    body = (await stranger.get(link["url"])).json()
    assert (body["segments"], body["summary"], body["has_transcript"]) == ([], None, False)
    assert (await stranger.get(f"{link['url']}/transcript")).status_code == 404


async def test_whoever_asks_too_often_is_slowed_down(stranger: httpx.AsyncClient) -> None:
    statuses = [(await stranger.get("/api/shared/x")).status_code for _ in range(62)]
    assert (statuses[0], statuses[-1]) == (404, 429)


async def test_a_look_at_what_a_link_has_to_be_heard_is_no_use_of_it(
    library: Library, stranger: httpx.AsyncClient
) -> None:
    link = await shared(library, await library.note())
    answer = await stranger.head(f"{link['url']}/audio")
    assert (answer.status_code, answer.headers["Content-Length"], answer.content) == (200, str(len(SOUND)), b"")
    assert answer.headers["X-Robots-Tag"] == "noindex"
    assert [row.uses for row in await rows(library)] == [0]
