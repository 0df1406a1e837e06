"""Sound, streamed whole or in the parts that a player asks for."""

import pytest

from backend.recordings.api.audio import Part, Unsatisfiable, parse_range
from tests.factories.recordings import SOUND, at
from tests.recordings.reading.conftest import Library

SIZE = len(SOUND)


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        (None, None),
        ("bytes=0-", (0, SIZE)),
        ("bytes=0-0", (0, 1)),
        ("bytes=100-199", (100, 200)),
        (f"bytes=100-{SIZE * 9}", (100, SIZE)),
        (f"bytes={SIZE - 1}-", (SIZE - 1, SIZE)),
        ("bytes=-1", (SIZE - 1, SIZE)),
        (f"bytes=-{SIZE * 2}", (0, SIZE)),
        # Several, another unit, none that makes sense: the whole.
        ("bytes=0-1,5-6", None),
        ("items=0-1", None),
        ("bytes=-", None),
        ("bytes=9-3", None),
        ("bytes=a-b", None),
        ("bytes=1-2-3", None),
        (f"bytes={'9' * 30}-", None),
    ],
)
def test_a_range_is_read_as_rfc_9110_says(wanted: str | None, part: tuple[int, int] | None) -> None:
    expected = Part(*part, SIZE) if part else None
    assert parse_range(wanted, SIZE) == expected


@pytest.mark.parametrize(
    ("wanted", "size"), [(f"bytes={SIZE}-", SIZE), ("bytes=-0", SIZE), ("bytes=0-", 0), ("bytes=-5", 0)]
)
def test_a_range_behind_the_end_cannot_be_satisfied(wanted: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(wanted, size)


async def test_the_whole_is_streamed_and_no_browser_runs_it(library: Library) -> None:
    note = await library.note(filename="Über uns <b>.ogg")
    answer = await library.owner.client.get(at(note, "/audio"))
    assert (answer.status_code, answer.content) == (200, SOUND)
    headers = {
        "Content-Type": "audio/ogg",
        "Content-Length": str(SIZE),
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": "inline; filename*=UTF-8''%C3%9Cber%20uns%20%3Cb%3E.ogg",
    }
    assert {name: answer.headers[name] for name in headers} == headers
    assert "sandbox" in answer.headers["Content-Security-Policy"]


async def test_a_part_is_sent_with_its_place(library: Library) -> None:
    note, client = await library.note(), library.owner.client
    answer = await client.get(at(note, "/audio"), headers={"Range": "bytes=1000-1999"})
    assert (answer.status_code, answer.content) == (206, SOUND[1000:2000])
    assert answer.headers["Content-Range"] == f"bytes 1000-1999/{SIZE}"
    last = await client.get(at(note, "/audio"), headers={"Range": "bytes=-10"})
    assert (last.status_code, last.content) == (206, SOUND[-10:])
    beyond = await client.get(at(note, "/audio"), headers={"Range": f"bytes={SIZE}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{SIZE}")
    assert (beyond.json()["code"], beyond.headers["Content-Type"]) == (
        "unsatisfiable_range",
        "application/problem+json",
    )


async def test_a_player_that_has_it_gets_none_and_one_with_another_version_gets_the_whole(library: Library) -> None:
    note, client = await library.note(), library.owner.client
    tag = (await client.get(at(note, "/audio"))).headers["ETag"]
    again = await client.get(at(note, "/audio"), headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    for given, expected in ((f"W/{tag}", 304), (f'"other", {tag}', 304), ("*", 304), ('"other"', 200)):
        answer = await client.get(at(note, "/audio"), headers={"If-None-Match": given})
        assert answer.status_code == expected, given
    for given, status in ((tag, 206), ('"another"', 200)):
        headers = {"Range": "bytes=0-9", "If-Range": given}
        assert (await client.get(at(note, "/audio"), headers=headers)).status_code == status


async def test_what_somebody_has_uploaded_under_a_pages_name_is_no_page(library: Library) -> None:
    note = await library.note(filename="x.html")
    key = f"notes/{note.id}.html"
    (library.folder / str(note.blob_key)).rename(library.folder / key)
    async with library.db.transaction() as session:
        note.blob_key = key
        session.add(note)
    answer = await library.owner.client.get(at(note, "/audio"))
    assert answer.headers["Content-Type"] == "application/octet-stream"


async def test_a_speakers_sample_can_be_heard(library: Library) -> None:
    note, client = await library.note(), library.owner.client
    answer = await client.get(at(note, "/speakers/Speaker 1/sample"))
    assert (answer.status_code, answer.headers["Content-Type"], answer.content) == (200, "audio/wav", SOUND)
    unknown = await client.get(at(note, "/speakers/Nobody/sample"))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "no_sample")


async def test_sound_that_is_not_there_is_not_found_and_a_store_that_is_away_is_away(library: Library) -> None:
    note, client = await library.note(), library.owner.client
    path = library.folder / str(note.blob_key)
    path.unlink()
    missing = await client.get(at(note, "/audio"))
    assert (missing.status_code, missing.json()["code"]) == (404, "no_audio")
    # Whoever asks the operating system for it gets an error that is not "there is no such file".
    path.symlink_to(path)
    away = await client.get(at(note, "/audio"))
    assert (away.status_code, away.json()["code"]) == (503, "storage_away")
    assert int(away.headers["Retry-After"]) > 0


async def test_an_empty_file_is_an_empty_answer(library: Library) -> None:
    note = await library.note(sound=b"")
    answer = await library.owner.client.get(at(note, "/audio"))
    assert (answer.status_code, answer.content) == (200, b"")


async def test_head_says_what_a_get_would_give_and_sends_nothing(library: Library) -> None:
    note, client = await library.note(), library.owner.client
    for path in ("/audio", "/speakers/Speaker 1/sample"):
        got, headed = await client.get(at(note, path)), await client.head(at(note, path))
        assert (headed.status_code, headed.content) == (200, b"")
        same = ("Content-Type", "Content-Length", "ETag", "Accept-Ranges", "Content-Disposition", "Cache-Control")
        assert {name: headed.headers[name] for name in same} == {name: got.headers[name] for name in same}, path
        assert (await client.head(at(note, path), headers={"If-None-Match": got.headers["ETag"]})).status_code == 304
        # A range is for GET alone.
        assert (await client.head(at(note, path), headers={"Range": "bytes=0-9"})).status_code == 200
    (library.folder / str(note.blob_key)).unlink()
    assert (await client.head(at(note, "/audio"))).status_code == 404
    assert (await (await library.people.viewer("otto")).client.head(at(note, "/audio"))).status_code == 404
