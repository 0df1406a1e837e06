"""What becomes of resumable uploads: a recording, once they are there as a whole, or nothing in time."""

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from backend.core.clock import utc_now
from backend.core.errors import TransientError
from backend.core.principal import SERVICE, Scope
from backend.core.storage import Blob, FolderStorage
from backend.quotas import service as quotas
from backend.recordings.keeping import removing
from backend.recordings.models import RecordingState, Upload
from backend.recordings.repository.removals import RemovalRepository
from backend.recordings.uploads import accepting
from backend.recordings.uploads import resumable as uploads
from backend.recordings.uploads.accepting import Intake
from backend.recordings.uploads.wishes import UploadWish, wish
from tests.fixtures.people import Person, add_api_key
from tests.recordings.uploads.conftest import Bench
from tests.recordings.uploads.tus import TUS, URL, begin, send


async def test_an_upload_on_which_nobody_goes_on_expires_and_is_swept(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    assert (await send(vera, where, 0, sound[:9_000])).status_code == 204
    assert await accepting.sweep(bench.intake) == {"completed": 0, "removed": 0, "tidied": 0}
    await bench.pass_time(timedelta(hours=25))
    assert (await vera.client.head(where, headers=TUS)).status_code == 410
    assert (await send(vera, where, 9_000, sound[9_000:])).status_code == 410
    assert len(bench.files()) == 1
    assert (await accepting.sweep(bench.intake))["removed"] == 1
    assert bench.files() == []
    assert await bench.uploads() == []
    assert (await vera.client.head(where, headers=TUS)).status_code == 404


async def test_a_completed_upload_is_forgotten_in_time_and_its_recording_stays(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    assert (await send(vera, where, 0, sound)).status_code == 204
    await bench.pass_time(timedelta(hours=25))
    assert (await accepting.sweep(bench.intake))["removed"] == 1
    assert await bench.uploads() == []
    (recording,) = await bench.recordings()
    assert bench.content(recording.blob_key) == sound


async def test_the_same_file_again_in_parts_is_the_same_recording(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    first = (await vera.client.post(URL, content=sound)).json()
    where = await begin(vera, len(sound))
    answer = await send(vera, where, 0, sound)
    assert answer.headers["Beatline-Recording"] == first["id"]
    assert answer.headers["Beatline-Duplicate"] == "true"
    assert len(bench.files()) == 1
    await bench.pass_time(timedelta(hours=25))
    await accepting.sweep(bench.intake)
    assert len(bench.files()) == 1


async def test_a_quota_that_is_used_up_lets_the_upload_wait(bench: Bench, sound: bytes) -> None:
    vera, ada = await bench.people.viewer(), await bench.people.admin()
    where = await begin(vera, len(sound))
    quota = f"/api/quotas/{vera.id}"
    assert (await ada.client.put(quota, json={"files_per_day": 0})).status_code == 200
    answer = await send(vera, where, 0, sound)
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert (await vera.client.head(where, headers=TUS)).status_code == 429
    assert await bench.recordings() == []
    assert (await ada.client.put(quota, json={"files_per_day": 5})).status_code == 200
    answer = await send(vera, where, len(sound), b"")
    assert answer.status_code == 204
    assert bench.content((await bench.recordings())[0].blob_key) == sound


async def test_a_server_that_was_killed_before_the_end_is_made_good_by_whoever_looks(
    bench: Bench, sound: bytes
) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    upload = (await bench.uploads())[0]

    async def chunks() -> AsyncIterator[bytes]:
        yield sound

    await uploads.append(bench.intake, upload, 0, chunks())
    assert await bench.recordings() == []
    answer = await vera.client.head(where, headers=TUS)
    assert answer.headers["Upload-Offset"] == str(len(sound))
    assert answer.headers["Beatline-Recording"] == str((await bench.recordings())[0].id)


async def test_a_server_that_was_killed_before_the_end_is_made_good_by_the_sweep(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    await begin(vera, len(sound))

    async def chunks() -> AsyncIterator[bytes]:
        yield sound

    await uploads.append(bench.intake, (await bench.uploads())[0], 0, chunks())
    assert (await accepting.sweep(bench.intake))["completed"] == 0
    await bench.pass_time(timedelta(minutes=6))
    assert (await accepting.sweep(bench.intake))["completed"] == 1
    assert bench.content((await bench.recordings())[0].blob_key) == sound


async def test_many_who_complete_one_upload_at_once_make_one_recording(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))

    async def chunks() -> AsyncIterator[bytes]:
        yield sound

    await uploads.append(bench.intake, (await bench.uploads())[0], 0, chunks())
    answers = await asyncio.gather(*(vera.client.head(where, headers=TUS) for _ in range(6)))
    assert {answer.headers["Beatline-Recording"] for answer in answers} == {str((await bench.recordings())[0].id)}
    assert bench.content((await bench.recordings())[0].blob_key) == sound
    assert len(bench.files()) == 1


async def test_what_a_killed_process_left_in_the_storage_goes_with_the_row(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    await begin(vera, len(sound))
    upload = (await bench.uploads())[0]
    storage = FolderStorage(bench.product.config.recordings.storage.folder)

    async def chunks() -> AsyncIterator[bytes]:
        yield sound[:999]

    await storage.write(f"uploads/{upload.id}/000000000000000-unknown", chunks())
    await storage.write(upload.blob_key, chunks())
    await bench.pass_time(timedelta(hours=25))
    assert (await accepting.sweep(bench.intake))["removed"] == 1
    assert bench.files() == []


async def test_a_recording_that_was_deleted_since_is_told(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    made = (await send(vera, where, 0, sound)).headers["Beatline-Recording"]
    await bench.change((await bench.recordings())[0].id, state=RecordingState.READY)
    assert (await vera.client.delete(f"{URL}/{made}")).status_code < 300
    assert (await vera.client.head(where, headers=TUS)).status_code == 410
    again = await vera.client.post(URL, content=sound)
    assert again.status_code == 201


async def test_a_resumed_upload_counts_once(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    assert (await send(vera, where, 0, sound[:24_000])).status_code == 204
    assert (await send(vera, where, 24_000, sound[24_000:])).status_code == 204
    async with bench.product.db.transaction() as session:
        standing = await quotas.standing(session, vera.id)
    assert (standing.reserved_files, standing.reserved_seconds) == (1, 3.0)


class Slow(FolderStorage):
    """A storage in which what was written is there after a while; `written` are the keys."""

    def __init__(self, root: Path, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__(root)
        self.written: list[str] = []
        self._meanwhile = meanwhile

    async def write(self, key: str, chunks: AsyncIterable[bytes]) -> Blob:
        self.written.append(key)
        blob = await super().write(key, chunks)
        await self._meanwhile()
        return blob


async def came_whole(bench: Bench, content: bytes, *, owner: Person) -> Upload:
    """An upload of which all is there, and whose end was lost."""
    where = await begin(owner, len(content))
    (upload,) = [each for each in await bench.uploads() if where.endswith(str(each.id))]

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    return await uploads.append(bench.intake, upload, 0, chunks())


def slow(bench: Bench, meanwhile: Callable[[], Awaitable[object]]) -> tuple[Slow, Intake]:
    storage = Slow(bench.product.config.recordings.storage.folder, meanwhile)
    return storage, replace(bench.intake, storage=storage)


async def test_of_many_who_complete_an_upload_at_once_one_joins_its_pieces(bench: Bench, sound: bytes) -> None:
    upload = await came_whole(bench, sound, owner=await bench.people.viewer())
    storage, intake = slow(bench, partial(asyncio.sleep, 0.5))
    outcomes = await asyncio.gather(*(accepting.accept_pieces(intake, upload) for _ in range(8)))
    assert {outcome.recording.id for outcome in outcomes} == {upload.id}
    assert storage.written == [upload.blob_key]
    assert bench.files() == [upload.blob_key]


async def test_pieces_are_joined_once_also_where_a_quota_refuses_the_recording(bench: Bench, sound: bytes) -> None:
    vera, ada = await bench.people.viewer(), await bench.people.admin()
    upload = await came_whole(bench, sound, owner=vera)
    await ada.client.put(f"/api/quotas/{vera.id}", json={"files_per_day": 0})
    storage, intake = slow(bench, partial(asyncio.sleep, 0))
    for _ in range(3):
        with pytest.raises(quotas.QuotaExceeded):
            await accepting.accept_pieces(intake, upload)
    assert storage.written == [upload.blob_key]
    assert bench.files() == [upload.blob_key]
    await ada.client.put(f"/api/quotas/{vera.id}", json={"files_per_day": 5})
    outcome = await accepting.accept_pieces(intake, upload)
    assert storage.written == [upload.blob_key]
    assert bench.content(outcome.recording.blob_key) == sound


async def test_who_asks_while_an_upload_is_put_together_is_told_to_come_again(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    upload = await came_whole(bench, sound, owner=vera)
    where = f"{URL}/uploads/{upload.id}"
    joining = {"joining_until": (utc_now() + timedelta(minutes=2)).isoformat()}
    await bench.change_upload(upload.id, progress=upload.progress | joining)
    answer = await send(vera, where, len(sound), b"")
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (503, "joining", "5")
    killed = {"joining_until": (utc_now() - timedelta(seconds=1)).isoformat()}
    await bench.change_upload(upload.id, progress=upload.progress | killed)
    assert (await send(vera, where, len(sound), b"")).status_code == 204


async def test_an_upload_that_is_deleted_while_it_is_put_together_leaves_nothing(bench: Bench, sound: bytes) -> None:
    upload = await came_whole(bench, sound, owner=await bench.people.viewer())

    async def deleted() -> None:
        await accepting.discard(bench.intake, upload.id)
        # As if the blob had come a moment later.
        await FolderStorage(bench.product.config.recordings.storage.folder).write(upload.blob_key, late())

    async def late() -> AsyncIterator[bytes]:
        yield sound

    _, intake = slow(bench, deleted)
    with pytest.raises(accepting.Expired):
        await accepting.accept_pieces(intake, upload)
    assert bench.files() == []
    assert await bench.uploads() == []


async def test_a_blob_that_is_lost_does_not_end_the_sweep(bench: Bench, sound: bytes) -> None:
    vera, ada = await bench.people.viewer(), await bench.people.admin()
    without_piece = await came_whole(bench, sound, owner=vera)
    await bench.intake.storage.delete(without_piece.progress["pieces"][0])
    without_blob = await came_whole(bench, sound, owner=vera)
    await ada.client.put(f"/api/quotas/{vera.id}", json={"files_per_day": 0})
    with pytest.raises(quotas.QuotaExceeded):
        await accepting.accept_pieces(bench.intake, without_blob)
    await ada.client.put(f"/api/quotas/{vera.id}", json={"files_per_day": 5})
    await bench.intake.storage.delete(without_blob.blob_key)
    await came_whole(bench, sound, owner=vera)
    await bench.pass_time(timedelta(minutes=6))
    assert (await accepting.sweep(bench.intake))["completed"] == 1
    assert (await send(vera, f"{URL}/uploads/{without_blob.id}", len(sound), b"")).status_code == 503


async def test_a_key_for_reading_sees_how_far_an_upload_is_and_completes_none(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    upload = await came_whole(bench, sound, owner=vera)
    _, key = await add_api_key(bench.product.db, vera.user, Scope.READ)
    reader, where = await bench.people.client(key), f"{URL}/uploads/{upload.id}"
    answer = await reader.head(where, headers=TUS)
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (200, str(len(sound)))
    assert "Beatline-Recording" not in answer.headers
    assert await bench.recordings() == []
    assert (await vera.client.head(where, headers=TUS)).headers["Beatline-Recording"] == str(upload.id)
    assert (await reader.head(where, headers=TUS)).headers["Beatline-Recording"] == str(upload.id)


async def test_a_copy_that_cannot_be_deleted_is_deleted_later(bench: Bench, sound: bytes) -> None:
    first = await bench.product.client.post(URL, content=sound)
    before = bench.files()
    folder = FolderStorage(bench.product.config.recordings.storage.folder)

    class Away(FolderStorage):
        async def delete(self, key: str) -> bool:
            raise TransientError(f"{key} is out of reach")

    async def chunks() -> AsyncIterator[bytes]:
        yield sound

    away = replace(bench.intake, storage=Away(bench.product.config.recordings.storage.folder))
    again = await uploads.receive(away, SERVICE, wish(UploadWish()), chunks())
    assert (str(again.recording.id), again.duplicate) == (first.json()["id"], True)
    assert len(bench.files()) == len(before) + 1
    await removing.delete_files(bench.product.db, removing.Places(folder, None), config=bench.product.config)
    assert bench.files() == before


async def test_a_copy_that_was_deleted_is_not_looked_for_again(bench: Bench, sound: bytes) -> None:
    for _ in range(2):
        await bench.product.client.post(URL, content=sound)
    async with bench.product.db.transaction() as session:
        assert await RemovalRepository(session).pending_files() == 0


async def test_a_deleted_recording_leaves_no_words_in_its_upload(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    checksum = hashlib.sha256(sound).hexdigest()
    where = await begin(vera, len(sound), filename="divorce.wav", title="My divorce", hints="Anna", sha256=checksum)
    recording_id = (await send(vera, where, 0, sound)).headers["Beatline-Recording"]
    assert (await vera.client.delete(f"{URL}/{recording_id}")).status_code == 200
    (left,) = await bench.uploads()
    assert (left.filename, left.title, left.options, left.progress) == (None, None, {}, {})
    assert (await vera.client.get(where)).status_code == 410
    assert (await vera.client.head(where, headers=TUS)).status_code == 410
    await bench.pass_time(timedelta(minutes=2))
    assert (await accepting.sweep(bench.intake))["removed"] == 1
    assert await bench.uploads() == []
