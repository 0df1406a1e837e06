"""Uploads by somebody who has used up the day's quota: what they have already costs nothing, and is not refused."""

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest

from backend.quotas import service as quotas
from backend.recordings.models import RecordingState
from tests.fixtures.people import Person
from tests.recordings.uploads import files
from tests.recordings.uploads.conftest import Bench
from tests.recordings.uploads.tus import TUS, URL, begin, send


async def used_up(bench: Bench, person: Person, sound: bytes) -> str:
    """The last file of somebody's day, whose answer is lost; its id."""
    ada = await bench.people.admin()
    assert (await ada.client.put(f"/api/quotas/{person.id}", json={"files_per_day": 1})).status_code == 200
    recording_id: str = (await person.client.post(URL, content=sound)).json()["id"]
    return recording_id


def known_by_its_size(sound: bytes) -> dict[str, Any]:
    return {"content": sound}


def known_by_its_checksum(sound: bytes) -> dict[str, Any]:
    async def chunks() -> AsyncIterator[bytes]:
        yield sound

    return {"content": chunks(), "params": {"sha256": hashlib.sha256(sound).hexdigest()}}


def in_a_form(sound: bytes) -> dict[str, Any]:
    return {"files": {"file": ("again.wav", sound)}, "data": {"title": "Again", "hints": "x" * 500}}


WAYS = [known_by_its_size, known_by_its_checksum, in_a_form]


@pytest.mark.parametrize("way", WAYS)
async def test_the_same_content_again_is_not_refused_once_the_quota_is_used_up(
    bench: Bench, sound: bytes, way: Callable[[bytes], dict[str, Any]]
) -> None:
    vera = await bench.people.viewer()
    recording_id = await used_up(bench, vera, sound)
    again = await vera.client.post(URL, **way(sound))
    assert (again.status_code, again.json().get("id")) == (200, recording_id), again.text
    assert len(bench.files()) == 1
    async with bench.product.db.transaction() as session:
        assert (await quotas.standing(session, vera.id)).reserved_files == 1


@pytest.mark.parametrize("way", WAYS)
async def test_other_content_is_refused_also_where_it_might_have_been_the_same(
    bench: Bench, sound: bytes, way: Callable[[bytes], dict[str, Any]]
) -> None:
    vera = await bench.people.viewer()
    await used_up(bench, vera, sound)
    answer = await vera.client.post(URL, **way(files.wav(seconds=3, seed=2)))
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert answer.json()["detail"].startswith("today's limit of files is reached: 1 file;")
    assert len(bench.files()) == 1
    assert await bench.uploads() == []


async def test_without_quota_what_cannot_be_the_same_is_refused_before_it_is_looked_at(
    bench: Bench, sound: bytes
) -> None:
    vera, otto = await bench.people.viewer(), await bench.people.operator()
    recording_id = await used_up(bench, vera, sound)
    theirs = files.wav(seconds=4)
    assert (await otto.client.post(URL, content=theirs)).status_code == 201

    async def refused(size: int | None, **params: str) -> str:
        """Why text of this size is refused: what is looked at at all is no sound."""

        async def chunks() -> AsyncIterator[bytes]:
            yield b"Dear all,\n" * 50

        content = b"Dear all,\n".ljust(size, b".") if size is not None else chunks()
        answer = await vera.client.post(URL, content=content, params=params)
        code: str = answer.json()["code"]
        return code

    assert await refused(len(sound) + 1) == "quota_exceeded"
    assert await refused(len(theirs)) == "quota_exceeded"
    assert await refused(len(sound), sha256="0" * 64) == "quota_exceeded"
    assert await refused(None) == "quota_exceeded"
    assert await refused(len(sound)) == "not_audio"
    await bench.change(UUID(recording_id), state=RecordingState.FAILED)
    assert await refused(len(sound)) == "quota_exceeded"


async def test_a_resumable_upload_of_what_is_there_already_needs_no_quota(bench: Bench, sound: bytes) -> None:
    vera, ada = await bench.people.viewer(), await bench.people.admin()
    first = (await vera.client.post(URL, content=sound)).json()["id"]
    assert (await ada.client.put(f"/api/quotas/{vera.id}", json={"minutes_per_day": 0})).status_code == 200
    other = await vera.client.post(URL, headers=TUS | {"Upload-Length": str(len(sound) + 1)})
    assert (other.status_code, other.json()["code"]) == (429, "quota_exceeded")
    answer = await send(vera, await begin(vera, len(sound)), 0, sound)
    assert (answer.status_code, answer.headers["Beatline-Duplicate"]) == (204, "true")
    assert answer.headers["Beatline-Recording"] == first
