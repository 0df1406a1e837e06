"""The form that uploads."""

from uuid import UUID

import httpx
import pytest

from backend.recordings.models import Recording, RecordingState
from tests.fixtures.pages import told
from tests.fixtures.product import Product, Start
from tests.ops.conftest import SignIn, add_user, own_pages
from tests.ops.recordings.scene import SOUND

NEW = "/ops/recordings/new"


def chosen(content: bytes, name: str = "monday.wav") -> dict[str, tuple[str, bytes, str]]:
    return {"file": (name, content, "audio/wav")}


async def send(browser: httpx.AsyncClient, content: bytes = b"", **fields: str) -> httpx.Response:
    """As a browser sends the form: every field, most of them empty, the file last."""
    values = {"title": "", "language": "", "speakers": "", "hints": ""} | fields
    return await browser.post(NEW, data=values, files=chosen(content or SOUND.read_bytes()))


async def row_of(product: Product, answer: httpx.Response) -> Recording:
    async with product.db.transaction() as session:
        row = await session.get(Recording, UUID(answer.headers["Location"].rpartition("/")[2]))
    assert row is not None
    return row


async def test_a_viewer_uploads_a_note_that_is_theirs_alone(product: Product, sign_in: SignIn) -> None:
    user = await add_user(product)
    viewer = await sign_in(user.username)
    assert 'enctype="multipart/form-data"' in (await viewer.get(NEW)).text
    answer = await send(viewer, title=" Monday ", language="en", speakers="2", hints="Anika")
    assert answer.status_code == 303
    row = await row_of(product, answer)
    assert (row.owner_id, row.title, row.filename, row.shared_role) == (user.id, "Monday", "monday.wav", None)
    assert row.state == RecordingState.FETCHED
    assert {name: row.options[name] for name in ("language", "speakers", "hints")} == {
        "language": "en",
        "speakers": 2,
        "hints": "Anika",
    }
    assert product.sent.named("probe_recording") == [{"recording_id": str(row.id)}]
    assert row.blob_key is not None
    assert (product.config.recordings.storage.folder / row.blob_key).read_bytes() == SOUND.read_bytes()
    assert "It is here." in await told(viewer)
    again = await send(viewer)
    assert again.headers["Location"] == answer.headers["Location"]
    assert "You had uploaded this file before: here it is." in await told(viewer)
    await send(viewer, language="fr")
    assert "For what you have chosen now, have it transcribed again." in await told(viewer)


async def test_the_service_keys_upload_is_the_teams(product: Product, browser: httpx.AsyncClient) -> None:
    answer = await send(browser)
    assert (await row_of(product, answer)).owner_id is None


@pytest.mark.parametrize(
    ("content", "fields", "field", "said"),
    [
        (b"%PDF-1.7 " + b"x" * 2_000, {}, "file", "PDF"),
        (b"", {"speakers": "99"}, "speakers", "less than or equal to 20"),
        (b"", {"language": "English!"}, "language", "should match pattern"),
        (b"", {"title": "x" * 301}, "title", "at most 300 characters"),
    ],
)
async def test_what_is_wrong_stands_beside_its_field_and_the_rest_stays_typed(
    sign_in: SignIn, content: bytes, fields: dict[str, str], field: str, said: str
) -> None:
    viewer = await sign_in("viewer")
    answer = await send(viewer, content, **({"hints": "Anika, Chennai"} | fields))
    assert answer.status_code == 422
    assert said in answer.text.partition(f'id="{field}-fault">')[2].partition("<")[0]
    assert 'value="Anika, Chennai"' in answer.text
    assert "Nothing here yet" in (await viewer.get("/ops/recordings")).text


async def test_a_form_without_a_file_says_so(sign_in: SignIn) -> None:
    viewer = await sign_in("viewer")
    empty = await viewer.post(NEW, data={"title": "x"}, files={"file": ("", b"", "application/octet-stream")})
    assert empty.status_code == 422
    assert 'id="file-fault"' in empty.text
    nothing = await viewer.post(NEW, data={"title": "x"})
    assert nothing.status_code == 422
    assert 'id="file-fault"' in nothing.text


async def test_too_large_a_file_is_refused_with_a_page_and_leaves_nothing(start: Start, sign_in: SignIn) -> None:
    product = await start(UPLOAD_MAX_MB="1")
    async with httpx.AsyncClient(
        base_url=product.config.api_url,
        auth=("ops", product.config.service_key),
        headers=own_pages(product),
        timeout=20,
    ) as browser:
        answer = await send(browser, SOUND.read_bytes() + bytes(3_000_000))
    assert answer.status_code == 413
    assert "An upload may have 1 MB at most" in answer.text
    folder = product.config.recordings.storage.folder
    assert [path for path in folder.rglob("*") if path.is_file()] == []


async def test_a_form_that_no_browser_sends_is_refused_on_the_page(sign_in: SignIn) -> None:
    form = {"Content-Type": f"multipart/form-data; boundary={'x' * 257}"}
    answer = await (await sign_in("operator")).post(NEW, content=b"--x\r\n", headers=form)
    assert (answer.status_code, "256 bytes at most" in answer.text) == (422, True)


async def test_with_nothing_left_of_the_day_nothing_is_taken(product: Product, sign_in: SignIn) -> None:
    user, admin = await add_user(product), await sign_in("admin")
    await admin.post(f"/ops/people/{user.id}/quota", data={"plan": "standard", "files_per_day": "0"})
    viewer = await sign_in(user.username)
    assert "<b>0</b> of 0 files" in (await viewer.get(NEW)).text
    answer = await send(viewer)
    assert answer.status_code == 429
    assert "The limit of files a day is 0." in answer.text.partition('id="file-fault">')[2].partition("<")[0]
