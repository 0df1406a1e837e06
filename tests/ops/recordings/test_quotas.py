"""Quotas as admins see and set them."""

import pytest

from tests.fixtures.pages import told
from tests.fixtures.product import Product
from tests.ops.conftest import SignIn, add_user

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
    await admin.post(f"/ops/people/{user.id}/quota", data={"plan": "standard"})
    assert "of 600 minutes" in (await admin.get(f"/ops/people/{user.id}")).text


@pytest.mark.parametrize(
    ("path", "wish", "said"),
    [
        ("{person}/quota", {"plan": "nothing"}, "no plan is called 'nothing'"),
        ("{person}/quota", {"minutes_per_day": "-1"}, "minutes per day: Input should be greater than or equal to 0"),
        ("{person}/quota", {"files_per_day": "many"}, "files per day: Input should be a valid integer"),
        ("/ops/quotas/plans", {"name": "some", "files_per_day": "1.5"}, "some: files per day: Input should be"),
    ],
)
async def test_what_is_no_limit_is_refused_and_said(
    product: Product, sign_in: SignIn, path: str, wish: dict[str, str], said: str
) -> None:
    admin, user = await sign_in("admin"), await add_user(product)
    await admin.post(path.format(person=f"/ops/people/{user.id}"), data=wish)
    assert said in await told(admin)
    assert "of 600 minutes" in (await admin.get(f"/ops/people/{user.id}")).text


async def test_quotas_are_none_of_an_operators_business(product: Product, sign_in: SignIn) -> None:
    operator, user = await sign_in("operator"), await add_user(product)
    assert (await operator.get(HERE)).status_code == 403
    assert (await operator.post(f"{HERE}/plans", data={"name": "x"})).status_code == 403
    assert (await operator.post(f"/ops/people/{user.id}/quota", data={"files_per_day": "9"})).status_code == 403
