"""The buttons and forms of one recording."""

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlmodel import select

from backend.accounts.schemas import UserRead
from backend.recordings.models import Recording, RecordingState, SegmentRow, SegmentVersion, ShareLink
from tests.fixtures.pages import fields, told
from tests.fixtures.product import Product
from tests.ops.conftest import SignIn, add_user
from tests.ops.recordings.scene import SOUND, Talk, add_ready, add_recording

HERE = "/ops/recordings"


@pytest.fixture
async def user(product: Product) -> UserRead:
    return await add_user(product)


@pytest.fixture
async def note(product: Product, user: UserRead) -> UUID:
    return await add_ready(product.db, product.config.recordings.storage.folder, owner_id=user.id)


@pytest.fixture
async def owner(sign_in: SignIn, user: UserRead, note: UUID) -> httpx.AsyncClient:
    """The browser of the note's owner, a viewer."""
    return await sign_in(user.username)


async def test_a_page_shows_sound_summary_speakers_and_words_by_turn(owner: httpx.AsyncClient, note: UUID) -> None:
    page = (await owner.get(f"{HERE}/{note}")).text
    assert f'<iframe class="player" name="player" src="{HERE}/{note}/player"' in page
    assert "The premium went up; the address has changed." in page
    assert "<li>Send the new form</li>" in page
    assert "Sentences picked from the transcript by a program" in page
    assert page.count('<b class="who">Speaker 2</b>') == 1
    assert f'href="{HERE}/{note}/player?t=3.00" target="player"' in page
    assert 'class="words unsure" title="The machine was unsure of this">And my address has changed.' in page
    assert "speaks 0:06, 50 %" in page


async def test_a_speaker_is_renamed_once_for_the_whole_recording(owner: httpx.AsyncClient, note: UUID) -> None:
    answer = await owner.post(f"{HERE}/{note}/speakers", data={"label": "Speaker 2", "name": "  Anika   Rao "})
    assert answer.headers["Location"] == f"{HERE}/{note}#speakers"
    assert "Speaker 2 is Anika Rao from here on." in await told(owner)
    assert '<b class="who">Anika Rao</b>' in (await owner.get(f"{HERE}/{note}")).text
    assert "Anika Rao: Yes, please." in (await owner.get(f"{HERE}/{note}/text")).text
    await owner.post(f"{HERE}/{note}/speakers", data={"label": "Speaker 2", "name": ""})
    assert "Speaker 2 has no name of its own any more." in await told(owner)
    await owner.post(f"{HERE}/{note}/speakers", data={"label": "Speaker 2", "name": "x" * 101})
    assert "at most 100 characters" in await told(owner)
    assert (await owner.post(f"{HERE}/{note}/speakers", data={"label": "Speaker 9"})).status_code == 404


async def test_an_edit_keeps_what_was_there_and_can_be_taken_back(
    product: Product, owner: httpx.AsyncClient, note: UUID
) -> None:
    place = f"{HERE}/{note}/segments/2"
    page = (await owner.get(place)).text
    assert "#t=6.00,8.80" in page
    assert "Versions" not in page
    answer = await owner.post(
        place, data={"version": "1", "text": "And my e-mail has changed.", "speaker": "Speaker 1"}
    )
    assert answer.headers["Location"] == f"{HERE}/{note}#s2"
    shown = (await owner.get(f"{HERE}/{note}")).text
    assert "And my e-mail has changed." in shown
    assert "1 of 4 segments edited" in shown
    page = (await owner.get(place)).text
    assert "the machine" in page
    await owner.post(place, data=fields(page))
    async with product.db.transaction() as session:
        row = await session.get(SegmentRow, (note, 2))
        before = await session.get(SegmentVersion, (note, 2, 2))
    assert row is not None
    assert (row.text, row.speaker, row.version) == ("And my address has changed.", "Speaker 2", 3)
    assert before is not None
    assert before.text == "And my e-mail has changed."


async def test_who_spoke_can_be_unknown_again(product: Product, owner: httpx.AsyncClient, user: UserRead) -> None:
    talk = Talk(lines=((None, "Who is this?", 0.9), ("Speaker 1", "Me.", 0.9)))
    note = await add_ready(product.db, product.config.recordings.storage.folder, owner_id=user.id, talk=talk)
    place = f"{HERE}/{note}/segments/0"

    async def speaker() -> str | None:
        async with product.db.transaction() as session:
            row = await session.get(SegmentRow, (note, 0))
        assert row is not None
        return row.speaker

    await owner.post(place, data={"version": "1", "text": "Who is this?", "speaker": "Speaker 1"})
    assert await speaker() == "Speaker 1"
    page = (await owner.get(place)).text
    assert '<option value="">unknown</option>' in page
    (back,) = (form for form in page.split("<form")[1:] if "Back to this" in form)
    await owner.post(place, data=fields(back))
    assert await speaker() is None
    # What does not say who speaks leaves that as it is.
    await owner.post(place, data={"version": "3", "text": "Who?", "speaker": "Speaker 1"})
    await owner.post(place, data={"version": "4", "text": "Who is it?"})
    assert await speaker() == "Speaker 1"


async def test_who_was_overtaken_by_another_edit_loses_nothing_that_was_typed(
    owner: httpx.AsyncClient, note: UUID
) -> None:
    place = f"{HERE}/{note}/segments/2"
    await owner.post(place, data={"version": "1", "text": "First.", "speaker": "Speaker 2"})
    answer = await owner.post(place, data={"version": "1", "text": "Second.", "speaker": "Speaker 2"})
    assert answer.status_code == 409
    assert "Somebody has changed it since; it now says: “First.”" in answer.text
    assert ">Second.</textarea>" in answer.text
    await owner.post(place, data={"version": "2", "text": "Second.", "speaker": "Speaker 2"})
    assert "Second." in (await owner.get(f"{HERE}/{note}")).text


async def test_one_segment_leads_to_the_next(owner: httpx.AsyncClient, note: UUID) -> None:
    place = f"{HERE}/{note}/segments"
    answer = await owner.post(f"{place}/0", data={"version": "1", "text": "Hello.", "then": "next"})
    assert answer.headers["Location"] == f"{place}/1"
    assert "and to the next" in (await owner.get(f"{place}/0")).text
    last = (await owner.get(f"{place}/3")).text
    assert "and to the next" not in last
    assert f'href="{place}/2" rel="prev"' in last
    assert (await owner.get(f"{place}/4")).status_code == 404


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"version": "x", "text": "a"}, "1 field needs another look"),
        ({"version": "1", "text": "a\x00b"}, 'id="text-fault">must not hold control characters'),
        ({"version": "1", "text": "a", "speaker": "Nobody"}, 'id="speaker-fault">'),
    ],
)
async def test_what_is_wrong_with_an_edit_is_said_and_changes_nothing(
    owner: httpx.AsyncClient, note: UUID, wish: dict[str, str], said: str
) -> None:
    answer = await owner.post(f"{HERE}/{note}/segments/2", data=wish)
    assert answer.status_code == 422
    assert said in answer.text
    assert "And my address has changed." in (await owner.get(f"{HERE}/{note}")).text


async def test_a_note_is_shared_with_a_role_and_taken_back(
    owner: httpx.AsyncClient, note: UUID, sign_in: SignIn
) -> None:
    colleague = await sign_in("viewer")
    assert (await colleague.get(f"{HERE}/{note}")).status_code == 404
    await owner.post(f"{HERE}/{note}", data={"title": "For everybody", "shared_role": "viewer"})
    seen = (await colleague.get(f"{HERE}/{note}")).text
    assert "For everybody" in seen
    for button in ("/speakers", "/segments", "/shares", "/delete"):
        assert f"{HERE}/{note}{button}" not in seen, button
    for path in ("", "/speakers", "/segments/0", "/shares", "/delete", "/cancel"):
        values = {"label": "Speaker 1", "version": "1", "text": "x", "title": "x"}
        assert (await colleague.post(f"{HERE}/{note}{path}", data=values)).status_code == 403, path
    await owner.post(f"{HERE}/{note}", data={"title": "", "shared_role": ""})
    assert (await colleague.get(f"{HERE}/{note}")).status_code == 404
    await owner.post(f"{HERE}/{note}", data={"title": "x" * 301})
    assert "title: String should have at most 300 characters" in await told(owner)


async def test_sound_comes_in_parts_and_words_as_files(owner: httpx.AsyncClient, note: UUID) -> None:
    whole = await owner.get(f"{HERE}/{note}/audio")
    assert whole.content == SOUND.read_bytes()
    part = await owner.get(f"{HERE}/{note}/audio", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, SOUND.read_bytes()[100:200])
    player = await owner.get(f"{HERE}/{note}/player?t=6.5")
    assert f'autoplay src="{HERE}/{note}/audio#t=6.50"' in player.text
    assert "frame-ancestors 'self'" in player.headers["Content-Security-Policy"]
    assert "media-src 'self'" in player.headers["Content-Security-Policy"]
    assert "autoplay" not in (await owner.get(f"{HERE}/{note}/player?t=6.5&play=no")).text
    assert (
        f'autoplay src="{HERE}/{note}/sample?label=Speaker+1"'
        in (await owner.get(f"{HERE}/{note}/player?label=Speaker 1")).text
    )
    assert (await owner.get(f"{HERE}/{note}/captions.vtt")).text.startswith("WEBVTT")
    for form in ("txt", "srt", "vtt", "json"):
        answer = await owner.get(f"{HERE}/{note}/export.{form}")
        assert "premium" in answer.text, form
        assert answer.headers["Content-Disposition"].startswith("attachment")
    assert (await owner.get(f"{HERE}/{note}/export.docx")).status_code == 422
    assert (await owner.get(f"{HERE}/{note}/sample?label=Speaker 1")).status_code == 404


async def test_a_film_is_seen_with_the_transcript_as_captions(
    product: Product, owner: httpx.AsyncClient, user: UserRead
) -> None:
    folder = product.config.recordings.storage.folder
    film = await add_ready(product.db, folder, owner_id=user.id, filename="Holiday.MP4")
    assert '<iframe class="player film"' in (await owner.get(f"{HERE}/{film}")).text
    player = (await owner.get(f"{HERE}/{film}/player")).text
    assert "<video controls" in player
    assert (
        f'<track default kind="captions" src="{HERE}/{film}/captions.vtt" label="What is said" srclang="en">' in player
    )


@pytest.mark.parametrize(
    ("codec", "name"), [("amr_nb", "call.amr"), ("adpcm_ms", "old.wav"), ("pcm_s16le", "take.caf"), ("alac", "x.m4a")]
)
async def test_what_browsers_do_not_play_is_said_and_can_be_downloaded(
    product: Product, owner: httpx.AsyncClient, user: UserRead, codec: str, name: str
) -> None:
    folder = product.config.recordings.storage.folder
    note = await add_ready(product.db, folder, owner_id=user.id, codec=codec, filename=name, suffix=Path(name).suffix)
    place, told_so = f"{HERE}/{note}", f"do not play this kind of file ({codec})"
    player = (await owner.get(f"{place}/player?t=3")).text
    assert told_so in player
    assert f'<a href="{place}/audio" download>' in player
    assert "<audio" not in player
    page = (await owner.get(place)).text
    # A time that leads nowhere is no link.
    assert "/player?t=" not in page
    assert f'<a href="{place}/audio" download>' in page
    assert "<audio" not in (await owner.get(f"{place}/segments/1")).text
    made = await owner.post(f"{place}/shares", data={"hours": "24", "with_audio": "true"})
    (url,) = re.findall(r'value="(http[^"]+/shared/[^"]+)"', made.text)
    async with httpx.AsyncClient(timeout=20, verify=False) as stranger:
        assert "/player?t=" not in (await stranger.get(url)).text
        assert told_so in (await stranger.get(f"{url}/player")).text


async def test_a_link_is_shown_once_opens_the_page_and_is_revoked(
    product: Product, owner: httpx.AsyncClient, note: UUID
) -> None:
    made = await owner.post(f"{HERE}/{note}/shares", data={"hours": "24", "with_audio": "true"})
    (url,) = re.findall(r'value="(http[^"]+/shared/[^"]+)"', made.text)
    assert url.startswith(product.config.api_url)
    assert url not in (await owner.get(f"{HERE}/{note}")).text
    async with httpx.AsyncClient(timeout=20, verify=False) as stranger:
        page = await stranger.get(url)
        assert "The premium went up" in page.text
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert page.headers["X-Robots-Tag"] == "noindex"
        assert "/ops/recordings" not in page.text
        assert '<li id="s1" class="p1 first">' in page.text
        assert (await stranger.get(f"{url}/audio")).content == SOUND.read_bytes()
        assert "/audio#t=3.00" in (await stranger.get(f"{url}/player?t=3")).text
        assert "premium" in (await stranger.get(f"{url}/text")).text
        (revoke,) = re.findall(
            rf'action="({HERE}/{note}/shares/[^"]+/revoke)"', (await owner.get(f"{HERE}/{note}")).text
        )
        await owner.post(revoke)
        assert "The link opens nothing any more." in await told(owner)
        for path in ("", "/player"):
            over = await stranger.get(url + path)
            assert over.status_code == 410
            assert "This link is over" in over.text
        for path in ("/audio", "/text"):
            assert (await stranger.get(url + path)).status_code == 410, path
    async with product.db.transaction() as session:
        (link,) = (await session.exec(select(ShareLink).where(ShareLink.recording_id == note))).all()
    assert link.uses == 1


async def test_a_link_for_a_year_says_which_year_it_ends(owner: httpx.AsyncClient, note: UUID) -> None:
    made = (await owner.post(f"{HERE}/{note}/shares", data={"hours": "8760"})).text
    until = re.search(r"this recording until (\d\d \w{3} \d{4}) ", made)
    assert until is not None, made
    assert f"{until[1]} " in made.partition('data-label="Opens until"')[2].partition("</td>")[0]
    (url,) = re.findall(r'value="(http[^"]+/shared/[^"]+)"', made)
    async with httpx.AsyncClient(timeout=20, verify=False) as stranger:
        assert f"shared by link until {until[1]} " in (await stranger.get(url)).text


async def test_a_link_to_what_is_being_transcribed_does_not_say_that_nobody_speaks(
    product: Product, owner: httpx.AsyncClient, user: UserRead
) -> None:
    waiting = await add_recording(product.db, owner_id=user.id)
    made = (await owner.post(f"{HERE}/{waiting}/shares", data={"hours": "24"})).text
    (url,) = re.findall(r'value="(http[^"]+/shared/[^"]+)"', made)
    async with httpx.AsyncClient(timeout=20, verify=False) as stranger:
        page = (await stranger.get(url)).text
    assert "What is said is not written down yet." in page
    assert "Nobody speaks" not in page
    assert "Copy as text" not in page


async def test_whatever_is_wrong_with_a_link_a_stranger_sees_a_page(product: Product) -> None:
    async with httpx.AsyncClient(base_url=f"{product.config.api_url}/shared", timeout=20, verify=False) as stranger:
        paths = ("guess", "guess/player?t=soon", "guess/nothing", "guess/audio", "guess/text", "a" * 300)
        for path in paths:
            answer = await stranger.get(path)
            assert answer.status_code in {404, 422}, path
            assert "<h1>This link opens nothing</h1>" in answer.text, path
            assert "/ops/calls" not in answer.text
            assert answer.headers["Referrer-Policy"] == "no-referrer"


async def test_a_link_for_reading_alone_gives_no_sound(product: Product, owner: httpx.AsyncClient, note: UUID) -> None:
    made = await owner.post(f"{HERE}/{note}/shares", data={"hours": "24"})
    (url,) = re.findall(r'value="(http[^"]+/shared/[^"]+)"', made.text)
    async with httpx.AsyncClient(timeout=20, verify=False) as stranger:
        page = await stranger.get(url)
        assert "The premium went up" in page.text
        assert "<iframe" not in page.text
        assert (await stranger.get(f"{url}/audio")).status_code == 404
        nothing = await stranger.get(f"{product.config.api_url}/shared/guess")
        assert nothing.status_code == 404
        assert "This link opens nothing" in nothing.text
    await owner.post(f"{HERE}/{note}/shares", data={"hours": "1000000"})
    assert "hours: Input should be less than" in await told(owner)


async def test_deleting_asks_first_and_says_what_went(product: Product, owner: httpx.AsyncClient, note: UUID) -> None:
    page = (await owner.get(f"{HERE}/{note}/delete")).text
    assert "the transcript with its 4 segments" in page
    blob = product.config.recordings.storage.folder / f"notes/{note}.wav"
    assert blob.exists()
    answer = await owner.post(f"{HERE}/{note}/delete")
    assert answer.headers["Location"] == HERE
    assert "Deleted: the recording, its 4 segments and 0 links." in await told(owner)
    assert not blob.exists()
    assert (await owner.get(f"{HERE}/{note}")).status_code == 404
    await owner.post(f"{HERE}/{note}/delete")
    assert "It is deleted already." in await told(owner)


async def test_what_can_never_be_transcribed_has_no_player_and_no_invitation_to_try_again(
    product: Product, owner: httpx.AsyncClient, user: UserRead
) -> None:
    given: dict[str, Any] = {"owner_id": user.id, "state": "failed", "blob_key": "notes/x.wav", "size_bytes": 9}
    retry = '<button class="plain">Try again</button>'
    for code, is_played, is_plain in (
        ("not_audio", False, True),
        ("silent_audio", True, True),
        ("failed", True, False),
    ):
        note = await add_recording(product.db, error="it failed", error_code=code, **given)
        page = (await owner.get(f"{HERE}/{note}")).text
        assert ("<iframe" in page, retry in page, "Try again" in page) == (is_played, is_plain, True), code


async def test_a_title_that_is_taken_away_is_the_one_of_what_is_said(owner: httpx.AsyncClient, note: UUID) -> None:
    await owner.post(f"{HERE}/{note}", data={"title": "Mine", "shared_role": ""})
    assert "<h1>Mine " in (await owner.get(f"{HERE}/{note}")).text
    await owner.post(f"{HERE}/{note}", data={"title": " ", "shared_role": ""})
    assert "<h1>Renewal of the policy " in (await owner.get(f"{HERE}/{note}")).text


async def test_one_segment_is_one_segment(product: Product, owner: httpx.AsyncClient, user: UserRead) -> None:
    talk = Talk(lines=(("Speaker 1", "Hello.", 0.9),))
    note = await add_ready(product.db, product.config.recordings.storage.folder, owner_id=user.id, talk=talk)
    await owner.post(f"{HERE}/{note}/shares", data={"hours": "24"})
    assert "the transcript with its 1 segment," in (await owner.get(f"{HERE}/{note}/delete")).text
    await owner.post(f"{HERE}/{note}/delete")
    assert "Deleted: the recording, its 1 segment and 1 link." in await told(owner)


async def test_work_under_way_is_cancelled_and_tried_again(
    product: Product, owner: httpx.AsyncClient, user: UserRead
) -> None:
    waiting = await add_recording(product.db, owner_id=user.id, blob_key="notes/x.wav", size_bytes=1)
    page = (await owner.get(f"{HERE}/{waiting}")).text
    assert f'action="{HERE}/{waiting}/cancel"' in page
    assert "/delete" not in page
    await owner.post(f"{HERE}/{waiting}/cancel")
    assert "It is cancelled." in await told(owner)
    await owner.post(f"{HERE}/{waiting}/retry")
    assert "It is transcribed once more." in await told(owner)
    async with product.db.transaction() as session:
        row = await session.get(Recording, waiting)
    assert row is not None
    assert row.state == RecordingState.FETCHED
    await owner.post(f"{HERE}/{waiting}/retry")
    assert "there is nothing to repeat" in await told(owner)
