"""The list of recordings, and what was said anywhere."""

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx

from backend.core.clock import utc_now
from tests.calls.test_webhooks import accepted
from tests.fixtures.pages import fields, told
from tests.fixtures.product import Product
from tests.ops.conftest import SignIn, add_user
from tests.ops.recordings.scene import Talk, add_ready, add_recording

HERE = "/ops/recordings"


async def test_who_looks_sees_their_own_the_teams_and_what_is_shared_with_them(
    product: Product, sign_in: SignIn
) -> None:
    owner, other = await add_user(product), await add_user(product)
    await add_recording(product.db, owner_id=owner.id, title="My own note")
    await add_recording(product.db, owner_id=other.id, title="Somebody's secret")
    await add_recording(product.db, owner_id=other.id, title="Shared with all", shared_role="viewer")
    await add_recording(product.db, owner_id=None, kind="call", filename=None, title="A customer's call")
    seen = (await (await sign_in(owner.username)).get(HERE)).text
    assert "My own note" in seen
    assert "Shared with all" in seen
    assert "A customer&#39;s call" in seen
    assert "Somebody&#39;s secret" not in seen
    mine = (await (await sign_in(owner.username)).get(f"{HERE}?whose=mine")).text
    assert "My own note" in mine
    assert "Shared with all" not in mine


async def test_an_admin_sees_that_a_note_is_there_and_no_word_of_it(product: Product, sign_in: SignIn) -> None:
    owner = await add_user(product)
    recording_id = await add_ready(product.db, product.config.recordings.storage.folder, owner_id=owner.id)
    admin = await sign_in("admin")
    for path in (HERE, f"{HERE}/{recording_id}", f"{HERE}/{recording_id}/delete"):
        page = (await admin.get(path)).text
        assert "Renewal of the policy" not in page, path
        assert "monday.wav" not in page
        assert "premium" not in page
    assert owner.username in (await admin.get(HERE)).text
    for path in ("text", "export.json", "captions.vtt", "audio", "segments/1"):
        assert (await admin.get(f"{HERE}/{recording_id}/{path}")).status_code == 403, path
    assert "premium" not in (await admin.get(f"{HERE}/search?q=premium")).text.replace('value="premium"', "").replace(
        "<title>premium", ""
    )


async def test_what_is_under_way_says_how_far_it_is_and_the_page_refreshes_itself(
    product: Product, sign_in: SignIn
) -> None:
    user = await add_user(product)
    working: dict[str, Any] = {"state": "transcribing", "stage": "words", "percent": 42, "seconds_left": 95}
    recording_id = await add_recording(product.db, owner_id=user.id, **working)
    client = await sign_in(user.username)
    for path in (HERE, f"{HERE}/{recording_id}"):
        page = (await client.get(path)).text
        assert "writing down what is said, 42 %, 1 min 35 s left" in page
        assert 'hx-trigger="every 5s"' in page
        assert '<noscript><meta http-equiv="refresh"' in page
        # Whatever somebody types into a page that refreshes itself is gone five seconds later.
        main = page.partition("<main")[2]
        assert "<select" not in main
        assert not re.search(r'<input(?! type="hidden")', main)
    assert 'hx-trigger="every 5s"' not in (await client.get(f"{HERE}?kind=call")).text


async def test_a_call_waits_for_a_worker_and_for_its_file_only_once_a_worker_has_missed_it(
    product: Product, browser: httpx.AsyncClient
) -> None:
    call: dict[str, Any] = {"owner_id": None, "kind": "call", "filename": None, "state": "registered"}
    await add_recording(product.db, **call)
    page = (await browser.get(f"{HERE}?kind=call")).text
    assert "waiting for a worker" in page
    assert "waiting for its file" not in page
    missed = await add_recording(product.db, error="2026/11/a.ogg is not there", **call)
    for path in (f"{HERE}?kind=call", f"{HERE}/{missed}"):
        assert "waiting for its file" in (await browser.get(path)).text


async def test_a_worker_that_is_lost_is_said_to_be(product: Product, sign_in: SignIn) -> None:
    user = await add_user(product)
    lost: dict[str, Any] = {"state": "transcribing", "stage": "words", "percent": 42, "seconds_left": 95}
    await add_recording(product.db, owner_id=user.id, claimed_until=utc_now(), **lost)
    page = (await (await sign_in(user.username)).get("/ops/recordings")).text
    assert "writing down what is said, 42 %; nothing was heard of its worker for a while" in page
    assert "left</small>" not in page


async def test_what_waits_for_a_worker_is_under_way_too(product: Product, sign_in: SignIn) -> None:
    user = await add_user(product)
    for state in ("fetched", "transcribing", "failed", "cancelled"):
        await add_recording(product.db, owner_id=user.id, title=f"It is {state}", state=state)
    page = (await (await sign_in(user.username)).get(f"{HERE}?state=open&whose=mine")).text
    assert [state for state in ("fetched", "transcribing", "failed", "cancelled") if f"It is {state}" in page] == [
        "fetched",
        "transcribing",
    ]
    everything = (await (await sign_in(user.username)).get(f"{HERE}?state=open")).text
    assert '<a href="/ops/recordings?state=open" aria-current="page">under way</a>' in everything


async def test_with_the_service_key_nobody_is_promised_privacy(
    product: Product, sign_in: SignIn, browser: httpx.AsyncClient
) -> None:
    user = await sign_in((await add_user(product)).username)
    for path in (HERE, f"{HERE}/new"):
        theirs, service = (await user.get(path)).text, (await browser.get(path)).text
        assert "until you share it" in theirs
        assert "everybody with an account reads and hears it" not in theirs
        assert "until you share it" not in service
        assert "everybody with an account reads and hears it" in service


async def test_a_failure_stands_in_the_list_with_its_reason(product: Product, sign_in: SignIn) -> None:
    user = await add_user(product)
    await add_recording(product.db, owner_id=user.id, state="failed", error="the file is cut off")
    client = await sign_in(user.username)
    assert "the file is cut off" in (await client.get(f"{HERE}?state=failed")).text
    assert "There are none of these" in (await client.get(f"{HERE}?state=ready")).text


async def test_older_ones_are_on_the_next_page(product: Product, sign_in: SignIn) -> None:
    user = await add_user(product)
    for number in range(51):
        await add_recording(product.db, owner_id=user.id, title=f"note {number}.")
    client = await sign_in(user.username)
    page = (await client.get(f"{HERE}?whose=mine")).text
    assert "note 0." not in page
    link = page.partition('<a href="?')[2].partition('"')[0].replace("&amp;", "&")
    assert "whose=mine" in link
    assert "note 0." in (await client.get(f"{HERE}?{link}")).text


async def test_the_own_quota_is_shown_and_the_service_key_has_none(
    product: Product, sign_in: SignIn, browser: httpx.AsyncClient
) -> None:
    page = (await (await sign_in("viewer")).get(HERE)).text
    assert "<b>0</b> of 600 minutes" in page
    assert "<b>0</b> of 100 files" in page
    assert "Your day" not in (await browser.get(HERE)).text


async def test_a_search_shows_who_said_it_and_leads_to_the_place(product: Product, sign_in: SignIn) -> None:
    user, folder = await add_user(product), product.config.recordings.storage.folder
    recording_id = await add_ready(product.db, folder, owner_id=user.id)
    secret = Talk(lines=(("Speaker 1", "The premium is a secret.", 0.9),), title="Hidden")
    await add_ready(product.db, folder, owner_id=(await add_user(product)).id, talk=secret)
    client = await sign_in(user.username)
    page = (await client.get(f"{HERE}/search", params={"q": "premiums"})).text
    assert "<mark>premium</mark>" in page
    assert "Speaker 2" in page
    assert "Hidden" not in page
    place = f"{HERE}/{recording_id}?t=3.00"
    assert place in page
    assert '<li id="s1"' in (await client.get(place)).text
    assert "Nobody says that" in (await client.get(f"{HERE}/search?q=zebra")).text
    assert "must not hold control" in (await client.get(f"{HERE}/search", params={"q": "a\x00b"})).text
    assert (await client.get(f"{HERE}/search")).status_code == 200


async def test_a_name_of_a_file_brings_no_script_into_a_page(product: Product, sign_in: SignIn) -> None:
    user = await add_user(product)
    bad = "<script>alert(1)</script>"
    talk = Talk(lines=((bad, f"The premium {bad}", 0.1),), title=bad, summary=bad, action_items=(bad,))
    recording_id = await add_ready(
        product.db, product.config.recordings.storage.folder, owner_id=user.id, talk=talk, filename=bad
    )
    client = await sign_in(user.username)
    paths = ("", f"/{recording_id}", f"/{recording_id}/segments/0", f"/{recording_id}/delete", "/search?q=premium")
    for path in paths:
        page = (await client.get(HERE + path)).text
        assert "<script>" not in page, path
        assert "&lt;script&gt;" in page, path


async def test_a_stranger_cannot_tell_a_note_from_none(product: Product, sign_in: SignIn) -> None:
    owner = await add_user(product)
    recording_id = await add_recording(product.db, owner_id=owner.id)
    stranger = await sign_in("operator")
    for path in ("", "/player", "/audio", "/text", "/export.txt", "/delete", "/segments/0", "/sample?label=x"):
        there, nowhere = [await stranger.get(f"{HERE}/{each}{path}") for each in (recording_id, UUID(int=1))]
        assert there.status_code == nowhere.status_code == 404, path
        assert there.text.replace(str(recording_id), str(UUID(int=1))) == nowhere.text
    for path in ("", "/cancel", "/retry", "/delete", "/segments/0", "/shares", "/speakers"):
        answer = await stranger.post(f"{HERE}/{recording_id}{path}", data={"label": "x", "version": "1"})
        assert answer.status_code in {404, 303}, path
        if answer.status_code == 303:
            assert path == "/delete"


async def test_an_owner_says_how_long_their_notes_are_kept(
    product: Product, sign_in: SignIn, browser: httpx.AsyncClient
) -> None:
    user = await add_user(product)
    recording_id = await add_recording(product.db, owner_id=user.id, state="failed")
    owner = await sign_in(user.username)
    assert "as this installation does: for ever" in (await owner.get(HERE)).text
    await owner.post(f"{HERE}/keeping", data={"days": "30"})
    assert "Your notes are kept for 30 days." in await told(owner)
    assert '<option value="30" selected>for 30 days</option>' in (await owner.get(HERE)).text
    assert "kept until" in (await owner.get(f"{HERE}/{recording_id}")).text
    await owner.post(f"{HERE}/keeping", data={"days": ""})
    assert "Your notes are kept for ever." in await told(owner)
    await owner.post(f"{HERE}/keeping", data={"days": "soon"})
    assert "Days: Input should be a valid integer" in await told(owner)
    assert (await browser.post(f"{HERE}/keeping", data={"days": "30"})).status_code == 403


async def test_a_shorter_time_that_deletes_something_is_asked_for_twice(product: Product, sign_in: SignIn) -> None:
    user = await add_user(product)
    old = utc_now() - timedelta(days=40)
    recording_id = await add_recording(product.db, owner_id=user.id, state="ready", created_at=old)
    owner = await sign_in(user.username)
    asked = await owner.post(f"{HERE}/keeping", data={"days": "30"})
    assert asked.status_code == 200
    assert "1 note of yours is older than that" in asked.text
    assert '<option value="30" selected>' not in (await owner.get(HERE)).text
    await owner.post(f"{HERE}/keeping", data=fields(asked.text))
    assert "Your notes are kept for 30 days. 1 of them goes with the next cleaning." in await told(owner)
    assert '<option value="30" selected>' in (await owner.get(HERE)).text
    assert (await owner.get(f"{HERE}/{recording_id}")).status_code == 200


async def test_a_call_leads_to_its_recording(product: Product, browser: httpx.AsyncClient) -> None:
    call = await accepted(product)
    assert "Hear it, correct it" not in (await browser.get(f"/ops/calls/{call.id}")).text
    recording_id = await add_recording(product.db, owner_id=None, kind="call", subject_id=call.id)
    assert f'<a href="/ops/calls/{call.id}">a call</a>' in (await browser.get(HERE)).text
    assert f'<a href="{HERE}/{recording_id}">Hear it' in (await browser.get(f"/ops/calls/{call.id}")).text
