"""The form that has a recording transcribed again."""

from uuid import UUID

import httpx
import pytest
from sqlalchemy import update
from sqlmodel import col, select

from backend.accounts.schemas import UserRead
from backend.recordings.models import Recording, RecordingState, SpeakerRow
from tests.fixtures.pages import fields, told
from tests.fixtures.product import Product
from tests.ops.conftest import SignIn, add_user
from tests.ops.recordings.scene import add_ready, add_recording

HERE = "/ops/recordings"
OPTIONS = {"language": "en", "hints": "Rao", "diarization": True, "min_speakers": 2, "max_speakers": 4}


@pytest.fixture
async def user(product: Product) -> UserRead:
    return await add_user(product)


@pytest.fixture
async def note(product: Product, user: UserRead) -> UUID:
    folder = product.config.recordings.storage.folder
    return await add_ready(product.db, folder, owner_id=user.id, options=OPTIONS)


@pytest.fixture
async def owner(sign_in: SignIn, user: UserRead, note: UUID) -> httpx.AsyncClient:
    """The browser of the note's owner, a viewer."""
    return await sign_in(user.username)


async def of(product: Product, note: UUID) -> Recording:
    async with product.db.transaction() as session:
        return (await session.exec(select(Recording).where(Recording.id == note))).one()


async def test_the_form_shows_the_options_of_the_last_time_and_takes_others(
    product: Product, owner: httpx.AsyncClient, note: UUID
) -> None:
    assert f'href="{HERE}/{note}/transcribe"' in (await owner.get(f"{HERE}/{note}")).text
    page = (await owner.get(f"{HERE}/{note}/transcribe")).text
    assert '<option value="en" selected>English</option>' in page
    assert 'value="Rao"' in page
    assert "Give up what people have changed" not in page
    answer = await owner.post(f"{HERE}/{note}/transcribe", data=fields(page) | {"language": "fr", "hints": ""})
    assert answer.headers["Location"] == f"{HERE}/{note}"
    assert "It is transcribed again." in await told(owner)
    now = await of(product, note)
    # What the form does not ask for stays as it was.
    assert (now.state, now.options) == ("fetched", {"language": "fr", "min_speakers": 2, "max_speakers": 4})
    page = (await owner.get(f"{HERE}/{note}")).text
    assert "waiting for a worker" in page
    # The words are there still, to be read and not to be changed.
    assert "And my address has changed." in page
    assert "/segments/" not in page
    assert "Rename" not in page
    # A double click, or a second window.
    answer = await owner.post(f"{HERE}/{note}/transcribe", data={"language": "fr"})
    assert answer.status_code == 303
    answer = await owner.post(f"{HERE}/{note}/transcribe", data={"language": "de"})
    assert (answer.status_code, "with other options: cancel that first." in answer.text) == (409, True)


async def test_an_exact_number_of_speakers_takes_the_place_of_bounds(
    product: Product, owner: httpx.AsyncClient, note: UUID
) -> None:
    await owner.post(f"{HERE}/{note}/transcribe", data={"speakers": "2"})
    assert (await of(product, note)).options == {"speakers": 2}


async def test_a_language_that_the_list_has_not_stays_chosen(
    product: Product, owner: httpx.AsyncClient, note: UUID
) -> None:
    async with product.db.transaction() as session:
        await session.exec(update(Recording).values(options={"language": "sw", "speakers": 12}))
    page = (await owner.get(f"{HERE}/{note}/transcribe")).text
    assert '<option value="sw" selected>sw</option>' in page
    assert '<option value="12" selected>12</option>' in page


async def test_what_people_have_changed_is_given_up_by_a_tick_alone(
    product: Product, owner: httpx.AsyncClient, note: UUID
) -> None:
    await owner.post(f"{HERE}/{note}/speakers", data={"label": "Speaker 2", "name": "Anika Rao"})
    await owner.post(f"{HERE}/{note}/segments/0", data={"version": "1", "text": "Good morning."})
    page = (await owner.get(f"{HERE}/{note}/transcribe")).text
    assert "Give up what people have changed: 1 edited segment and 1 named speaker" in page
    answer = await owner.post(f"{HERE}/{note}/transcribe", data={"language": "de"})
    assert answer.status_code == 409
    assert 'id="discard_edits-fault"' in answer.text
    assert '<option value="de" selected>German</option>' in answer.text
    assert (await of(product, note)).state == RecordingState.READY
    answer = await owner.post(f"{HERE}/{note}/transcribe", data={"language": "de", "discard_edits": "true"})
    assert answer.status_code == 303
    assert (await of(product, note)).options["language"] == "de"
    async with product.db.transaction() as session:
        names = (await session.exec(select(SpeakerRow.name).where(col(SpeakerRow.name).is_not(None)))).all()
    # Until there is something new they are there.
    assert list(names) == ["Anika Rao"]


async def test_what_is_wrong_stands_beside_its_field(owner: httpx.AsyncClient, note: UUID) -> None:
    answer = await owner.post(f"{HERE}/{note}/transcribe", data={"hints": "x" * 501, "language": "de"})
    assert (answer.status_code, 'id="hints-fault"' in answer.text) == (422, True)
    assert '<option value="de" selected>German</option>' in answer.text


async def test_sound_that_is_gone_and_a_quota_that_is_used_up_are_said(
    product: Product, owner: httpx.AsyncClient, user: UserRead, note: UUID
) -> None:
    lost = await add_recording(product.db, owner_id=user.id, state=RecordingState.FAILED, error="It was away")
    answer = await owner.post(f"{HERE}/{lost}/transcribe", data={})
    assert (answer.status_code, "is not here: nothing can be heard in it." in answer.text) == (409, True)
    # The standard plan has 600 minutes.
    async with product.db.transaction() as session:
        await session.exec(update(Recording).values(duration_ms=36_000_001))
    answer = await owner.post(f"{HERE}/{note}/transcribe", data={})
    assert (answer.status_code, 'role="alert"' in answer.text) == (429, True)
    assert (await of(product, note)).state == RecordingState.READY


async def test_why_it_was_not_transcribed_again_is_said_above_what_is_there(
    product: Product, owner: httpx.AsyncClient, note: UUID
) -> None:
    async with product.db.transaction() as session:
        await session.exec(update(Recording).values(error="the service refused it"))
    page = (await owner.get(f"{HERE}/{note}")).text
    assert (
        "It could not be transcribed again: the service refused it. What is here is the transcript from before." in page
    )
    assert "And my address has changed." in page


async def test_only_who_may_change_it_sees_the_form(product: Product, sign_in: SignIn, note: UUID) -> None:
    async with product.db.transaction() as session:
        await session.exec(update(Recording).values(shared_role="viewer"))
    reader = await sign_in("viewer")
    assert "/transcribe" not in (await reader.get(f"{HERE}/{note}")).text
    assert (await reader.get(f"{HERE}/{note}/transcribe")).status_code == 403
    assert (await reader.post(f"{HERE}/{note}/transcribe", data={})).status_code == 403
    async with product.db.transaction() as session:
        await session.exec(update(Recording).values(shared_role=None))
    assert (await reader.get(f"{HERE}/{note}/transcribe")).status_code == 404
