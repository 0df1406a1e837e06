"""Uploads in one request: the file as the body, or in a form."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.core.principal import Scope
from backend.quotas import service as quotas
from backend.recordings.models import RecordingState
from backend.recordings.uploads.resumable import MAX_UNFINISHED
from tests.fixtures.people import add_api_key
from tests.fixtures.product import Start
from tests.recordings.uploads import files
from tests.recordings.uploads.conftest import Bench

URL = "/api/recordings"


async def test_a_file_sent_as_the_body_becomes_a_recording(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    answer = await vera.client.post(
        URL, content=sound, params={"filename": "note.wav", "title": "A note", "language": "en", "speakers": "2"}
    )
    assert answer.status_code == 201, answer.text
    shown = answer.json()
    assert answer.headers["Location"] == f"{URL}/{shown['id']}"
    assert (shown["state"], shown["duplicate"], shown["filename"], shown["title"]) == (
        "fetched",
        False,
        "note.wav",
        "A note",
    )
    assert (shown["owner_id"], shown["size_bytes"]) == (str(vera.id), len(sound))
    (recording,) = await bench.recordings()
    assert recording.sha256 == hashlib.sha256(sound).hexdigest()
    assert recording.options == {"language": "en", "speakers": 2}
    assert bench.content(recording.blob_key) == sound
    assert bench.files() == [recording.blob_key]
    assert bench.product.sent.named("probe_recording") == [{"recording_id": shown["id"]}]
    assert await bench.uploads() == []
    assert (await vera.client.get(answer.headers["Location"])).json()["state"] == "fetched"


async def test_a_body_of_unknown_length_is_a_file_too(bench: Bench, sound: bytes) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(sound), 1000):
            yield sound[start : start + 1000]

    vera = await bench.people.viewer()
    answer = await vera.client.post(URL, content=chunks())
    assert answer.status_code == 201, answer.text
    assert bench.content((await bench.recordings())[0].blob_key) == sound


async def test_a_form_may_have_its_fields_before_and_behind_the_file(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    boundary = "----a-boundary"

    def field(name: str, value: str) -> bytes:
        return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()

    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="Gespräch.wav"\r\n\r\n'
    body = field("language", "de") + field("hints", "") + head.encode() + sound + b"\r\n" + field("title", "Später")
    answer = await vera.client.post(
        URL,
        content=body + f"--{boundary}--\r\n".encode(),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    assert answer.status_code == 201, answer.text
    assert (answer.json()["filename"], answer.json()["title"]) == ("Gespräch.wav", "Später")
    (recording,) = await bench.recordings()
    assert recording.options == {"language": "de"}
    assert bench.content(recording.blob_key) == sound


@pytest.mark.parametrize(
    "given",
    [
        {"data": {"title": "x"}, "files": {"other": ("a.wav", b"x")}},
        {"files": [("file", ("a.wav", files.wav())), ("file", ("b.wav", files.wav(seed=2)))]},
        {"files": {"file": ("a.wav", files.wav())}, "data": {"speakers": "many"}},
        {"files": {"file": ("a.wav", files.wav())}, "data": {"colour": "red"}},
        {"files": {"file": ("a.wav", files.wav())}, "data": {"title": "x" * 30_000}},
        {"content": b"--b\r\nnonsense", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + files.wav(),
            "headers": {"Content-Type": "multipart/form-data; boundary=b"},
        },
    ],
    ids=["no file", "two files", "wrong value", "unknown field", "long field", "broken", "no boundary", "no end"],
)
async def test_a_form_that_is_wrong_is_refused_and_leaves_nothing(bench: Bench, given: dict[str, Any]) -> None:
    vera = await bench.people.viewer()
    answer = await vera.client.post(URL, **given)
    assert answer.status_code == 422, answer.text
    assert bench.files() == []
    assert await bench.uploads() == []
    assert await bench.recordings() == []


@pytest.mark.parametrize(
    "told",
    [
        "filename*=idna''%ff",
        "filename*=%00''x",
        "filename*0*=idna''%ff",
        f"filename*{'9' * 5000}=x",
        "filename*0=a; filename*=utf-8''b",
        "name*=idna''%ff",
    ],
)
async def test_a_file_whose_name_cannot_be_read_is_refused(bench: Bench, told: str) -> None:
    content = f"--b\r\nContent-Disposition: form-data; name=file; {told}\r\n\r\n".encode() + files.wav()
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await bench.product.client.post(URL, content=content + b"\r\n--b--\r\n", headers=form)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_form")
    assert bench.files() == []
    assert await bench.uploads() == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_audio"),
        (b"Dear all,\nplease find attached", "not_audio"),
        (b"%PDF-1.7\n%\xe2\xe3" + b"\x01" * 900, "not_audio"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + b"\x01" * 900, "not_audio"),
        (b"PK\x03\x04\x14\x00\x00\x00" + b"\x01" * 900, "not_audio"),
        (files.encrypted_zip(), "encrypted_audio"),
        (b"-----BEGIN PGP MESSAGE-----\n\nwcBMA", "encrypted_audio"),
        (b"Salted__" + bytes(range(200)), "encrypted_audio"),
        (b"age-encryption.org/v1\n-> X25519 x", "encrypted_audio"),
        (files.mp4(entry=b"drms"), "drm_audio"),
        (files.mp4(entry=b"encv"), "drm_audio"),
        (files.mp4(brand=b"aax "), "drm_audio"),
        (files.wma(encrypted=True), "drm_audio"),
    ],
)
async def test_what_is_surely_no_recording_is_refused_at_once(bench: Bench, content: bytes, code: str) -> None:
    vera = await bench.people.viewer()
    answer = await vera.client.post(URL, content=content)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert bench.files() == []
    assert await bench.uploads() == []
    assert bench.product.sent.named("probe_recording") == []
    async with bench.product.db.transaction() as session:
        assert (await quotas.standing(session, vera.id)).reserved_files == 0


@pytest.mark.parametrize(
    "content",
    [
        files.mp4(),
        files.wma(encrypted=False),
        b"OggS\0" + b"\1" * 99,
        b"#!AMR\n" + b"\1" * 99,
        b"\xff\xfb\x90" + b"\1" * 99,
        b"\1" * 99,
    ],
)
async def test_what_may_be_one_is_let_through_to_the_probe(bench: Bench, content: bytes) -> None:
    vera = await bench.people.viewer()
    assert (await vera.client.post(URL, content=content)).status_code == 201


async def test_the_same_content_again_is_the_same_recording_and_costs_nothing(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    first = (await vera.client.post(URL, content=sound, params={"filename": "a.wav"})).json()
    again = await vera.client.post(URL, content=sound, params={"filename": "b.wav"})
    assert again.status_code == 200
    assert (again.json()["id"], again.json()["duplicate"]) == (first["id"], True)
    assert len(bench.files()) == 1
    async with bench.product.db.transaction() as session:
        standing = await quotas.standing(session, vera.id)
    assert (standing.reserved_files, standing.reserved_seconds) == (1, 3.0)
    assert len(bench.product.sent.named("probe_recording")) == 1


async def test_the_same_content_of_somebody_else_is_another_recording(bench: Bench, sound: bytes) -> None:
    vera, otto = await bench.people.viewer(), await bench.people.operator()
    for each in (vera, otto, vera, otto):
        assert (await each.client.post(URL, content=sound)).status_code in {200, 201}
    assert {recording.owner_id for recording in await bench.recordings()} == {vera.id, otto.id}
    assert len(bench.files()) == 2


async def test_the_service_uploads_for_the_team_and_its_duplicates_are_known_too(bench: Bench, sound: bytes) -> None:
    answers = await asyncio.gather(*(bench.product.client.post(URL, content=sound) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    (recording,) = await bench.recordings()
    assert recording.owner_id is None
    assert bench.files() == [recording.blob_key]


async def test_many_clients_with_the_same_file_at_once_make_one_recording(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    answers = await asyncio.gather(*(vera.client.post(URL, content=sound) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    (recording,) = await bench.recordings()
    assert bench.files() == [recording.blob_key]
    async with bench.product.db.transaction() as session:
        assert (await quotas.standing(session, vera.id)).reserved_files == 1


async def test_the_same_file_with_other_options_says_so_and_changes_nothing(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    first = (await vera.client.post(URL, content=sound, params={"language": "en"})).json()
    assert (first["duplicate"], first["other_options"]) == (False, False)
    same = (await vera.client.post(URL, content=sound, params={"language": "en"})).json()
    assert (same["duplicate"], same["other_options"]) == (True, False)
    other = await vera.client.post(URL, content=sound, params={"language": "fr"})
    assert (other.status_code, other.json()["duplicate"], other.json()["other_options"]) == (200, True, True)
    assert [row.options for row in await bench.recordings()] == [{"language": "en"}]
    (row,) = await bench.recordings()
    await bench.change(row.id, state=RecordingState.READY)
    again = await vera.client.post(f"{URL}/{row.id}/transcribe", json={"language": "fr"})
    assert (again.status_code, again.json()["state"]) == (202, "fetched")


@pytest.mark.parametrize("state", [RecordingState.FAILED, RecordingState.CANCELLED])
async def test_one_that_came_to_nothing_starts_again_with_the_new_file(
    bench: Bench, sound: bytes, state: RecordingState
) -> None:
    vera = await bench.people.viewer()
    first = (await vera.client.post(URL, content=sound, params={"filename": "a.wav"})).json()
    (before,) = await bench.recordings()
    await bench.change(before.id, state=state, error="gone wrong")
    again = await vera.client.post(URL, content=sound, params={"filename": "b.wav", "language": "fr"})
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    assert (again.json()["state"], again.json()["error"]) == ("fetched", None)
    (now,) = await bench.recordings()
    assert (now.filename, now.options) == ("b.wav", {"language": "fr"})
    assert bench.content(now.blob_key) == sound
    assert len(bench.product.sent.named("probe_recording")) == 2


async def test_without_quota_nothing_is_taken(bench: Bench, sound: bytes) -> None:
    vera, ada = await bench.people.viewer(), await bench.people.admin()
    changed = await ada.client.put(f"/api/quotas/{vera.id}", json={"files_per_day": 1})
    assert changed.status_code == 200, changed.text
    assert (await vera.client.post(URL, content=sound)).status_code == 201
    answer = await vera.client.post(URL, content=files.wav(seed=2))
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert int(answer.headers["Retry-After"]) > 0
    assert len(bench.files()) == 1
    assert await bench.uploads() == []


async def test_a_file_longer_than_what_is_left_of_the_day_is_refused_by_its_header(bench: Bench) -> None:
    vera, ada = await bench.people.viewer(), await bench.people.admin()
    assert (await ada.client.put(f"/api/quotas/{vera.id}", json={"minutes_per_day": 1})).status_code == 200
    answer = await vera.client.post(URL, content=files.wav(seconds=90))
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert bench.files() == []
    assert await bench.recordings() == []


async def test_a_header_that_promises_more_than_the_file_holds_is_not_believed(bench: Bench) -> None:
    vera, sound = await bench.people.viewer(), files.wav(seconds=3)
    # As a program leaves it that writes to a pipe.
    streamed = sound[:4] + b"\xff\xff\xff\xff" + sound[8:40] + b"\xff\xff\xff\xff" + sound[44:]
    assert (await vera.client.post(URL, content=streamed)).status_code == 201
    async with bench.product.db.transaction() as session:
        assert (await quotas.standing(session, vera.id)).reserved_seconds == pytest.approx(3, abs=0.1)


async def test_a_checksum_that_differs_is_told(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    answer = await vera.client.post(URL, content=sound, params={"sha256": "0" * 64})
    assert (answer.status_code, answer.json()["code"]) == (422, "checksum_mismatch")
    right = hashlib.sha256(sound).hexdigest().upper()
    assert (await vera.client.post(URL, content=sound, params={"sha256": right})).status_code == 201


async def test_what_is_too_large_is_refused_before_it_comes_and_on_its_way(start: Start) -> None:
    product = await start(UPLOAD_MAX_MB="1")

    async def endless() -> AsyncIterator[bytes]:
        yield files.wav()
        for _ in range(3_000):
            yield b"\1" * 1_000

    for content in (files.wav(seconds=100), endless()):
        answer = await product.client.post(URL, content=content)
        assert (answer.status_code, answer.json()["code"], answer.json()["max_bytes"]) == (413, "too_large", 1_000_000)
    declared = await product.client.post(URL, headers={"Tus-Resumable": "1.0.0", "Upload-Length": "5000000000"})
    assert (declared.status_code, declared.headers["Tus-Resumable"]) == (413, "1.0.0")
    assert [path for path in (product.folder / "recordings").rglob("*") if path.is_file()] == []


async def test_nobody_has_more_than_so_many_uploads_under_way(bench: Bench) -> None:
    vera, otto = await bench.people.viewer(), await bench.people.operator()
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "1000"}
    answers = await asyncio.gather(*(vera.client.post(URL, headers=headers) for _ in range(MAX_UNFINISHED + 3)))
    assert sorted(answer.status_code for answer in answers) == [201] * MAX_UNFINISHED + [429] * 3
    assert (await vera.client.post(URL, content=files.wav())).json()["code"] == "too_many_uploads"
    assert (await otto.client.post(URL, headers=headers)).status_code == 201
    listed = (await vera.client.get(f"{URL}/uploads")).json()
    assert len(listed) == MAX_UNFINISHED
    assert (await vera.client.delete(f"{URL}/uploads/{listed[0]['id']}", headers=headers)).status_code == 204
    assert (await vera.client.post(URL, headers=headers)).status_code == 201


async def test_a_key_for_reading_uploads_nothing(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    _, key = await add_api_key(bench.product.db, vera.user, Scope.READ)
    client = await bench.people.client(key)
    assert (await client.post(URL, content=sound)).status_code == 403
    assert (await (await bench.people.client(None)).post(URL, content=sound)).status_code == 401
    assert bench.files() == []


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd.wav", "passwd.wav"),
        ("C:\\Users\\vera\\note.mp3", "note.mp3"),
        ("a\r\nb\x00.wav", "ab.wav"),
        ("x" * 300 + ".wav", "x" * 251 + ".wav"),
        ("..", ".."),
        ("", None),
    ],
)
async def test_a_name_is_kept_without_folders_and_control_characters(
    bench: Bench, sound: bytes, given: str, kept: str | None
) -> None:
    vera = await bench.people.viewer()
    answer = await vera.client.post(URL, content=sound, params={"filename": given})
    assert (answer.status_code, answer.json()["filename"]) == (201, kept)
    assert all(path.startswith("notes/") and ".." not in path for path in bench.files())


async def test_a_storage_that_cannot_be_written_is_told_as_such(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    bench.product.config.recordings.storage.folder.parent.mkdir(exist_ok=True)
    bench.product.config.recordings.storage.folder.write_text("in the way")
    answer = await vera.client.post(URL, content=sound)
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_away")
    assert "Retry-After" in answer.headers
    bench.product.config.recordings.storage.folder.unlink()
    assert (await vera.client.post(URL, content=sound)).status_code == 201


async def test_a_form_whose_boundary_is_too_long_is_refused(bench: Bench) -> None:
    form = {"Content-Type": f"multipart/form-data; boundary={'x' * 257}"}
    answer = await bench.product.client.post(URL, content=b"--x\r\n", headers=form)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_form")
