"""Resumable uploads by the tus protocol: beginning one, its parts, ending it."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from io import BytesIO
from uuid import uuid4

import httpx
import pytest
from tusclient import client as tus

from tests.fixtures.product import eventually
from tests.recordings.uploads import files
from tests.recordings.uploads.conftest import Bench
from tests.recordings.uploads.tus import PART, TUS, URL, begin, offset, send


async def test_a_file_in_parts_becomes_a_recording(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound), filename="long.wav", language="en", relativePath="x")
    for start in range(0, len(sound), 10_000):
        assert await offset(vera, where) == start
        answer = await send(vera, where, start, sound[start : start + 10_000])
        assert answer.status_code == 204, answer.text
        assert answer.headers["Upload-Offset"] == str(min(start + 10_000, len(sound)))
        assert "Upload-Expires" in answer.headers
    (recording,) = await bench.recordings()
    assert answer.headers["Beatline-Recording"] == str(recording.id)
    assert answer.headers["Beatline-Duplicate"] == "false"
    assert (recording.filename, recording.options, recording.state) == ("long.wav", {"language": "en"}, "fetched")
    assert recording.sha256 == hashlib.sha256(sound).hexdigest()
    assert bench.content(recording.blob_key) == sound
    assert bench.files() == [recording.blob_key]
    assert bench.product.sent.named("probe_recording") == [{"recording_id": str(recording.id)}]
    shown = (await vera.client.get(where)).json()
    assert (shown["offset_bytes"], shown["recording_id"]) == (len(sound), str(recording.id))


@pytest.mark.parametrize("chunk_size", [5_000, 10_000_000])
async def test_the_usual_client_uploads(bench: Bench, sound: bytes, chunk_size: int) -> None:
    vera = await bench.people.viewer()

    def upload() -> str:
        there = tus.TusClient(f"{bench.product.config.api_url}{URL}", headers={"Authorization": f"Bearer {vera.token}"})
        sending = there.uploader(
            file_stream=BytesIO(sound), chunk_size=chunk_size, metadata={"filename": "note.wav"}, upload_checksum=True
        )
        sending.upload()
        return str(sending.url)

    url = await asyncio.to_thread(upload)
    (recording,) = await bench.recordings()
    assert bench.content(recording.blob_key) == sound
    assert url.startswith(f"{bench.product.config.api_url}{URL}/uploads/")


async def test_the_usual_client_goes_on_where_it_was_cut_off(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()

    def upload(stop_at: int | None, url: str | None) -> str:
        there = tus.TusClient(f"{bench.product.config.api_url}{URL}", headers={"Authorization": f"Bearer {vera.token}"})
        sending = there.uploader(file_stream=BytesIO(sound), chunk_size=7_000, url=url)
        sending.upload(stop_at=stop_at)
        return str(sending.url)

    url = await asyncio.to_thread(upload, 14_000, None)
    assert await offset(vera, url) == 14_000
    await asyncio.to_thread(upload, None, url)
    assert bench.content((await bench.recordings())[0].blob_key) == sound


async def test_what_came_before_a_client_went_away_is_kept(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    _, writer = await asyncio.open_connection("127.0.0.1", bench.product.api_port)
    headers = PART | {
        "Host": "x",
        "Content-Length": str(len(sound)),
        "Upload-Offset": "0",
        "Authorization": f"Bearer {vera.token}",
    }
    head = f"PATCH {where} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    writer.write(head.encode() + sound[:20_000])
    await writer.drain()
    await asyncio.sleep(0.3)
    writer.transport.abort()

    async def kept() -> bool:
        return await offset(vera, where) == 20_000

    await eventually(kept)
    assert (await send(vera, where, 20_000, sound[20_000:])).status_code == 204
    assert bench.content((await bench.recordings())[0].blob_key) == sound


async def test_a_part_that_begins_elsewhere_is_refused_and_told_where(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    assert (await send(vera, where, 0, sound[:9_000])).status_code == 204
    for wrong in (0, 8_999, 9_001, len(sound)):
        answer = await send(vera, where, wrong, sound[wrong:])
        assert (answer.status_code, answer.json()["code"], answer.json()["offset"]) == (409, "offset_conflict", 9_000)
        assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert await offset(vera, where) == 9_000


async def test_of_two_parts_at_once_one_counts_and_the_bytes_are_not_mixed(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    held = asyncio.Event()

    async def slowly(content: bytes) -> AsyncIterator[bytes]:
        yield content[:5_000]
        await held.wait()
        yield content[5_000:]

    async def part(content: bytes) -> httpx.Response:
        return await vera.client.patch(where, content=slowly(content), headers=PART | {"Upload-Offset": "0"})

    both = [asyncio.create_task(part(sound[:size])) for size in (20_000, 30_000)]
    await asyncio.sleep(0.3)
    held.set()
    answers = [await task for task in both]
    assert sorted(answer.status_code for answer in answers) == [204, 409]
    at = await offset(vera, where)
    assert at in {20_000, 30_000}
    assert len(bench.files()) == 1
    assert (await send(vera, where, at, sound[at:])).status_code == 204
    assert bench.content((await bench.recordings())[0].blob_key) == sound


async def test_the_last_part_sent_twice_makes_one_recording(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    first = await send(vera, where, 0, sound)
    assert (await send(vera, where, 0, sound)).status_code == 409
    answer = await vera.client.head(where, headers=TUS)
    assert answer.headers["Beatline-Recording"] == first.headers["Beatline-Recording"]
    assert len(await bench.recordings()) == 1
    assert len(bench.product.sent.named("probe_recording")) == 1


async def test_more_than_was_promised_is_refused(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, 10_000)
    answer = await send(vera, where, 0, sound)
    assert (answer.status_code, answer.json()["code"]) == (413, "longer_than_declared")
    assert await offset(vera, where) == 0
    assert bench.files() == []


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
async def test_a_part_whose_checksum_differs_is_not_kept(bench: Bench, sound: bytes, algorithm: str) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    right = f"{algorithm} {base64.b64encode(hashlib.new(algorithm, sound).digest()).decode()}"
    answer = await send(vera, where, 0, b"RIFX" + sound[4:], **{"Upload-Checksum": right})
    assert answer.status_code == 460
    assert await offset(vera, where) == 0
    assert bench.files() == []
    assert (await send(vera, where, 0, sound, **{"Upload-Checksum": right})).status_code == 204


async def test_an_upload_has_ten_thousand_parts_at_most(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    (upload,) = await bench.uploads()
    pieces = {"pieces": [f"uploads/{upload.id}/{number}" for number in range(9_999)]}
    await bench.change_upload(upload.id, progress=pieces, offset_bytes=9_999)
    assert (await send(vera, where, 9_999, sound[9_999:10_000])).status_code == 204
    answer = await send(vera, where, 10_000, sound[10_000:])
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_parts")
    assert len(bench.files()) == 1


async def test_a_creation_may_bring_the_first_part_or_all(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    first = await vera.client.post(URL, content=sound[:600], headers=PART | {"Upload-Length": str(len(sound))})
    assert (first.status_code, first.headers["Upload-Offset"]) == (201, "600")
    assert (await send(vera, first.headers["Location"], 600, sound[600:])).status_code == 204
    other = files.wav(seed=2)
    whole = await vera.client.post(URL, content=other, headers=PART | {"Upload-Length": str(len(other))})
    assert (whole.status_code, whole.headers["Upload-Offset"]) == (201, str(len(other)))
    assert {"Beatline-Recording", "Location"} <= {name.title() for name in whole.headers}
    assert len(await bench.recordings()) == 2


async def test_what_is_no_recording_is_refused_with_its_first_part_and_the_upload_is_gone(bench: Bench) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, 100_000)
    answer = await send(vera, where, 0, b"%PDF-1.7\n" + b"\x01" * 50_000)
    assert (answer.status_code, answer.json()["code"]) == (422, "not_audio")
    assert (await vera.client.head(where, headers=TUS)).status_code == 404
    assert bench.files() == []
    assert await bench.uploads() == []


async def test_a_file_that_comes_by_the_byte_is_looked_at_in_the_end(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    for start in range(4):
        assert (await send(vera, where, start, sound[start : start + 1])).status_code == 204
    assert (await send(vera, where, 4, sound[4:])).status_code == 204
    text = b"no recording" * 100
    where = await begin(vera, len(text))
    assert (await send(vera, where, 0, text[:3])).status_code == 204
    assert (await send(vera, where, 3, text[3:])).status_code == 422
    assert len(bench.files()) == 1


async def test_an_upload_is_its_owners_alone(bench: Bench, sound: bytes) -> None:
    vera, otto, ada = await bench.people.viewer(), await bench.people.operator(), await bench.people.admin()
    where = await begin(vera, len(sound))
    for stranger in (otto.client, ada.client, bench.product.client):
        assert (await stranger.head(where, headers=TUS)).status_code == 404
        assert (await stranger.get(where)).status_code == 404
        answer = await stranger.patch(where, content=sound, headers=PART | {"Upload-Offset": "0"})
        assert answer.status_code == 404
        assert (await stranger.delete(where, headers=TUS)).status_code == 404
        assert (await stranger.get(f"{URL}/uploads")).json() == []
    assert await offset(vera, where) == 0


async def test_a_deleted_upload_is_gone_with_its_bytes(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    assert (await send(vera, where, 0, sound[:9_000])).status_code == 204
    answer = await vera.client.delete(where, headers=TUS)
    assert (answer.status_code, answer.headers["Tus-Resumable"]) == (204, "1.0.0")
    assert (await vera.client.delete(where, headers=TUS)).status_code == 404
    assert bench.files() == []
    whole = await begin(vera, len(sound))
    assert (await send(vera, whole, 0, sound)).status_code == 204
    assert (await vera.client.delete(whole, headers=TUS)).status_code == 409
    assert len(await bench.recordings()) == 1


async def test_a_client_without_patch_and_delete_says_so_in_a_header(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    part = PART | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert (await vera.client.post(where, content=sound[:100], headers=part)).headers["Upload-Offset"] == "100"
    deleted = await vera.client.post(where, headers=TUS | {"X-HTTP-Method-Override": "DELETE"})
    assert deleted.status_code == 204
    assert (await vera.client.post(where, headers=TUS)).status_code == 405


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Tus-Resumable": "0.2.2", "Upload-Length": "5"}, 412),
        (TUS, 400),
        (TUS | {"Upload-Length": "-5"}, 400),
        (TUS | {"Upload-Length": "many"}, 400),
        (TUS | {"Upload-Length": "9" * 40}, 400),
        (TUS | {"Upload-Length": "99999999999"}, 413),
        (TUS | {"Upload-Length": "0"}, 422),
        (TUS | {"Upload-Length": "5", "Upload-Metadata": "filename !!!"}, 400),
        (TUS | {"Upload-Length": "5", "Upload-Metadata": "speakers bWFueQ=="}, 422),
    ],
)
async def test_a_creation_that_is_wrong_is_refused(bench: Bench, headers: dict[str, str], status: int) -> None:
    vera = await bench.people.viewer()
    answer = await vera.client.post(URL, headers=headers)
    assert (answer.status_code, answer.headers["Tus-Resumable"]) == (status, "1.0.0")
    if status == 412:
        assert answer.headers["Tus-Version"] == "1.0.0"
    assert await bench.uploads() == []


async def test_a_part_that_is_sent_wrong_is_refused(bench: Bench, sound: bytes) -> None:
    vera = await bench.people.viewer()
    where = await begin(vera, len(sound))
    for headers, status in (
        (PART | {"Upload-Offset": "0", "Content-Type": "audio/wav"}, 415),
        (PART, 400),
        (PART | {"Upload-Offset": "x"}, 400),
        ({**PART, "Upload-Offset": "0", "Tus-Resumable": "2"}, 412),
        (PART | {"Upload-Offset": "0", "Upload-Checksum": "crc9 AAAA"}, 400),
        (PART | {"Upload-Offset": "0", "Upload-Checksum": "sha1 !"}, 400),
    ):
        answer = await vera.client.patch(where, content=sound, headers=headers)
        assert answer.status_code == status, (headers, answer.text)
        assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert (await send(vera, f"{URL}/uploads/{uuid4()}", 0, sound)).status_code == 404
    assert await offset(vera, where) == 0


async def test_anybody_may_ask_what_the_server_knows(bench: Bench) -> None:
    answer = await (await bench.people.client(None)).options(URL)
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert set(answer.headers["Tus-Extension"].split(",")) == {
        *("creation", "creation-with-upload", "expiration", "checksum", "termination")
    }
    assert answer.headers["Tus-Max-Size"] == "2048000000"


def latin(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """As HTTP/1.1 may carry them."""
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


async def test_headers_outside_of_ascii_are_refused(bench: Bench) -> None:
    vera = await bench.people.viewer()
    named = latin(TUS | {"Upload-Length": "10", "Upload-Metadata": "filename éééé"})
    answer = await vera.client.post(URL, headers=named)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    where = await begin(vera, 10)
    part = latin(PART | {"Upload-Offset": "0", "Upload-Checksum": "sha1 éééé"})
    answer = await vera.client.patch(where, content=b"12345", headers=part)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
