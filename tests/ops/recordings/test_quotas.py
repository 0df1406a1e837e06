"""Quotas as admins see and set them."""

from html import escape

import pytest

from tests.fixtures.pages import told
from tests.fixtures.product import Product
from tests.ops.conftest import SignIn, add_user
from tests.ops.recordings.scene import SOUND
from tests.ops.recordings.test_upload import NEW, send

HERE = "/ops/quotas"


async def test_an_admin_gives_somebody_a_plan_and_more_for_today(product: Product, sign_in: SignIn) -> None:
    admin, user = await sign_in("admin"), await add_user(product)
    await admin.post(f"{HERE}/plans", data={"name": "dictation", "minutes_per_day": "90", "files_per_day": ""})
    assert "The plan dictation is saved" in await told(admin, HERE)
    wish = {"plan": "dictation", "minutes_per_day": "", "files_per_day": "7", "extra_minutes": "30", "extra_files": ""}
    answer = await admin.post(f"/ops/people/{user.id}/quota", data=wish)
    assert answer.headers["Location"] == f"/ops/people/{user.id}#quota"
    person = (await admin.get(f"/ops/people/{user.id}")).text
    assert "<option selected>dictation</option>" in person
    assert "of 120 minutes" in person
    mine = (await (await sign_in(user.username)).get("/ops/recordings")).text
    assert "<b>0</b> of 120 minutes" in mine
    assert "<b>0</b> of 7 files" in mine
    assert "plan dictation" in mine
    everybody = (await admin.get(f"{HERE}?used=false")).text
    assert f'<a href="/ops/people/{user.id}#quota">{user.username}</a>' in everybody
    assert "with limits of their own" in everybody
    await admin.post(f"/ops/people/{user.id}/quota", data=dict.fromkeys(wish, "") | {"plan": "standard"})
    assert "of 600 minutes" in (await admin.get(f"/ops/people/{user.id}")).text


@pytest.mark.parametrize(
    ("path", "wish", "said"),
    [
        ("{person}/quota", {"plan": "nothing"}, "no plan is called 'nothing'"),
        ("{person}/quota", {"minutes_per_day": "-1"}, "minutes per day: Input should be greater than or equal to 0"),
        ("{person}/quota", {"files_per_day": "many"}, "files per day: Input should be a valid integer"),
    ],
)
async def test_what_is_no_limit_is_refused_and_said(
    product: Product, sign_in: SignIn, path: str, wish: dict[str, str], said: str
) -> None:
    admin, user = await sign_in("admin"), await add_user(product)
    await admin.post(path.format(person=f"/ops/people/{user.id}"), data=wish)
    assert said in await told(admin)
    assert "of 600 minutes" in (await admin.get(f"/ops/people/{user.id}")).text


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"name": "dictation", "minutes_per_day": "9x", "files_per_day": "77"}, "minutes per day: Input should be"),
        ({"name": "Dictation & more", "minutes_per_day": "9", "files_per_day": ""}, "a plan&#39;s name has up to 40"),
        ({"name": "standard", "minutes_per_day": "9", "files_per_day": "77"}, "there is a plan standard already"),
    ],
)
async def test_a_new_plan_that_cannot_be_is_shown_again_as_it_was_typed(
    sign_in: SignIn, wish: dict[str, str], said: str
) -> None:
    admin = await sign_in("admin")
    answer = await admin.post(f"{HERE}/plans", data=wish | {"new": "1"})
    assert answer.status_code == 422
    form = answer.text.partition("<details open>")[2].partition("</details>")[0]
    assert said in form
    for text in filter(None, wish.values()):
        assert f'value="{escape(text)}"' in form
    shown = (await admin.get(HERE)).text
    assert "<details><summary>New plan" in shown
    assert 'value="600"' in shown


async def test_a_plan_with_a_wrong_limit_is_shown_again_as_it_was_typed(sign_in: SignIn) -> None:
    admin = await sign_in("admin")
    wrong = {"name": "standard", "minutes_per_day": "60", "files_per_day": "1.5"}
    answer = await admin.post(f"{HERE}/plans", data=wrong)
    assert answer.status_code == 422
    form = answer.text.partition('aria-label="Plan standard"')[2].partition("</form>")[0]
    assert 'value="60"' in form
    assert 'value="1.5"' in form
    assert "files per day: Input should be" in form
    assert "<details><summary>New plan" in answer.text


async def test_a_plan_that_nobody_has_is_deleted(product: Product, sign_in: SignIn) -> None:
    admin, user = await sign_in("admin"), await add_user(product)
    await admin.post(f"{HERE}/plans", data={"name": "pro", "minutes_per_day": "9", "files_per_day": ""})
    await admin.post(f"/ops/people/{user.id}/quota", data={"plan": "pro"})
    assert f'action="{HERE}/plans/pro/delete"' not in (await admin.get(HERE)).text
    await admin.post(f"{HERE}/plans/pro/delete")
    assert "One user has the plan 'pro' and must be given another first." in await told(admin)
    await admin.post(f"/ops/people/{user.id}/quota", data={"plan": "standard"})
    assert f'action="{HERE}/plans/pro/delete"' in (await admin.get(HERE)).text
    await admin.post(f"{HERE}/plans/pro/delete")
    assert "The plan pro is deleted." in await told(admin)
    assert ">pro<" not in (await admin.get(HERE)).text


async def test_the_standard_plan_gets_its_own_limits_back(sign_in: SignIn) -> None:
    admin = await sign_in("admin")
    assert f"{HERE}/plans/standard/delete" not in (await admin.get(HERE)).text
    await admin.post(f"{HERE}/plans", data={"name": "standard", "minutes_per_day": "5", "files_per_day": "5"})
    assert f"{HERE}/plans/standard/delete" in (await admin.get(HERE)).text
    await admin.post(f"{HERE}/plans/standard/delete")
    assert 'value="600"' in (await admin.get(HERE)).text


async def test_a_form_that_names_one_thing_changes_nothing_else(product: Product, sign_in: SignIn) -> None:
    admin, user = await sign_in("admin"), await add_user(product)
    here = f"/ops/people/{user.id}"
    await admin.post(f"{here}/quota", data={"minutes_per_day": "90", "files_per_day": "7", "extra_minutes": "30"})
    await admin.post(f"{here}/quota", data={"files_per_day": ""})
    page = (await admin.get(here)).text
    assert "of 120 minutes" in page
    assert "of 100 files" in page
    await admin.post(f"{here}/quota", data={"extra_minutes": ""})
    assert "of 90 minutes" in (await admin.get(here)).text


async def test_what_was_uploaded_before_is_shown_also_with_nothing_left_of_the_day(
    product: Product, sign_in: SignIn
) -> None:
    admin, user = await sign_in("admin"), await add_user(product)
    await admin.post(f"/ops/people/{user.id}/quota", data={"files_per_day": "1"})
    viewer = await sign_in(user.username)
    first = await send(viewer)
    again = await send(viewer)
    assert (again.status_code, again.headers["Location"]) == (303, first.headers["Location"])
    assert "You had uploaded this file before" in await told(viewer)


async def test_what_is_used_up_is_said_before_and_after_in_words_of_the_page(product: Product, sign_in: SignIn) -> None:
    admin, user = await sign_in("admin"), await add_user(product)
    viewer = await sign_in(user.username)
    assert "is refused" not in (await viewer.get(NEW)).text
    await admin.post(f"/ops/people/{user.id}/quota", data={"files_per_day": "1"})
    await send(viewer)
    said = "Today&#39;s limit of files is reached: 1 file."
    assert f"{said} What you have uploaded before is found" in (await viewer.get(NEW)).text
    refused = await send(viewer, SOUND.read_bytes() + b"more")
    assert refused.text.partition('id="file-fault">')[2].partition("<")[0] == said
    await admin.post(f"/ops/people/{user.id}/quota", data={"files_per_day": "0"})
    assert "The limit of files a day is 0. An administrator may raise it." in (await viewer.get(NEW)).text


async def test_the_page_of_quotas_is_part_of_people_in_the_navigation(sign_in: SignIn) -> None:
    page = (await (await sign_in("admin")).get(HERE)).text
    assert '<a href="/ops/people" aria-current="true">People' in page


async def test_quotas_are_none_of_an_operators_business(product: Product, sign_in: SignIn) -> None:
    operator, user = await sign_in("operator"), await add_user(product)
    assert (await operator.get(HERE)).status_code == 403
    assert (await operator.post(f"{HERE}/plans", data={"name": "x"})).status_code == 403
    assert (await operator.post(f"{HERE}/plans/standard/delete")).status_code == 403
    assert (await operator.post(f"/ops/people/{user.id}/quota", data={"files_per_day": "9"})).status_code == 403
