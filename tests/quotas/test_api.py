"""Quotas over HTTP: one's own for everybody, all of them for admins, every change in the audit."""

from uuid import UUID, uuid4

import pytest

from backend.audit.tasks import sweep_audit_outbox
from backend.core.principal import Scope
from backend.quotas import service as quotas
from backend.quotas.allowance import STANDARD_FILES, STANDARD_MINUTES
from backend.quotas.service import QuotaExceeded
from tests.fixtures.people import People, add_api_key
from tests.fixtures.product import eventually
from tests.quotas.conftest import release, reserve, rows, settle, standing

ME = "/api/quotas/me"


async def test_everybody_reads_what_is_left_of_their_own_day(people: People) -> None:
    vera = await people.viewer()
    db, key = people.product.db, uuid4()
    await reserve(db, vera.user, key, 90)
    await settle(db, key, 60)
    await reserve(db, vera.user, uuid4(), 30)
    answer = await vera.client.get(ME)
    assert answer.status_code == 200
    read = answer.json()
    assert read.pop("reset_at") == (await standing(db, vera.user)).reset_at.strftime("%Y-%m-%dT00:00:00Z")
    assert len(read.pop("day")) == 10
    assert read == {
        "plan": "standard",
        "limit_seconds": STANDARD_MINUTES * 60,
        "used_seconds": 60,
        "reserved_seconds": 30,
        "left_seconds": STANDARD_MINUTES * 60 - 90,
        "limit_files": STANDARD_FILES,
        "used_files": 1,
        "reserved_files": 1,
        "left_files": STANDARD_FILES - 2,
    }


async def test_a_key_reads_its_owners_quota_and_the_service_key_has_none(people: People) -> None:
    vera = await people.viewer()
    _, key = await add_api_key(people.product.db, vera.user, Scope.READ)
    assert (await (await people.client(key)).get(ME)).json()["plan"] == "standard"
    refused = await people.product.client.get(ME)
    assert (refused.status_code, refused.json()["code"]) == (403, "user_needed")


async def test_an_admin_sets_limits_and_gives_something_for_today(people: People) -> None:
    vera, ada = await people.viewer(), await people.admin()
    wish = {"minutes_per_day": 10, "files_per_day": 2, "extra_minutes": 5}
    answer = await ada.client.put(f"/api/quotas/{vera.id}", json=wish)
    assert answer.status_code == 200
    read = answer.json()
    assert (read["limit_seconds"], read["limit_files"], read["extra_minutes"], read["extra_files"]) == (900, 2, 5, 0)
    assert (read["username"], read["minutes_per_day"], read["updated_by"]) == ("vera", 10, "ada")
    assert (await vera.client.get(ME)).json()["limit_seconds"] == 900


async def test_what_is_left_out_stays_and_null_takes_it_back(people: People) -> None:
    vera, ada = await people.viewer(), await people.admin()
    await ada.client.put("/api/quotas/plans/pro", json={"minutes_per_day": 900, "files_per_day": None})
    kept = ("plan", "minutes_per_day", "files_per_day", "extra_minutes", "extra_files")
    here = f"/api/quotas/{vera.id}"

    async def after(**wish: object) -> list[object]:
        read = (await ada.client.put(here, json=wish)).json()
        assert (await ada.client.get(here)).json() == read | {"reset_at": read["reset_at"]}
        return [read[name] for name in kept]

    assert await after(plan="pro") == ["pro", None, None, 0, 0]
    assert await after(minutes_per_day=1, files_per_day=2) == ["pro", 1, 2, 0, 0]
    assert await after(extra_files=3) == ["pro", 1, 2, 0, 3]
    assert await after(extra_minutes=4) == ["pro", 1, 2, 4, 3]
    assert await after() == ["pro", 1, 2, 4, 3]
    assert await after(minutes_per_day=None) == ["pro", None, 2, 4, 3]
    assert await after(files_per_day=None, extra_minutes=None) == ["pro", None, None, 0, 3]
    assert await after(plan=None, extra_files=0) == ["standard", None, None, 0, 0]
    assert (await ada.client.delete("/api/quotas/plans/pro")).status_code == 204


async def test_a_lowered_limit_leaves_nothing_and_takes_nothing_back(people: People) -> None:
    vera, ada = await people.viewer(), await people.admin()
    db = people.product.db
    await reserve(db, vera.user, uuid4(), 600)
    read = (await ada.client.put(f"/api/quotas/{vera.id}", json={"minutes_per_day": 5, "files_per_day": 0})).json()
    assert (read["reserved_seconds"], read["left_seconds"], read["left_files"]) == (600, 0, 0)
    with pytest.raises(QuotaExceeded):
        await reserve(db, vera.user, uuid4(), 1)


async def test_every_change_is_in_the_audit_with_what_was_set(people: People) -> None:
    vera, ada = await people.viewer(), await people.admin()
    await ada.client.put(f"/api/quotas/{vera.id}", json={"minutes_per_day": 10, "extra_minutes": 5})
    await ada.client.put("/api/quotas/plans/pro", json={"minutes_per_day": 900, "files_per_day": None})

    found = "select actor, method, route, request->'body' from operation_log order by at"

    async def logged() -> bool:
        await sweep_audit_outbox(people.product.runtime)
        return len(await rows(people.product.db, found)) == 2

    await eventually(logged)
    assert await rows(people.product.db, found) == [
        ("ada", "PUT", "/api/quotas/{user_id}", {"minutes_per_day": 10, "extra_minutes": 5}),
        ("ada", "PUT", "/api/quotas/plans/{name}", {"minutes_per_day": 900, "files_per_day": None}),
    ]


async def test_a_plan_is_made_given_changed_and_deleted(people: People) -> None:
    vera, ada = await people.viewer(), await people.admin()
    made = await ada.client.put("/api/quotas/plans/pro", json={"minutes_per_day": 900, "files_per_day": None})
    assert (made.status_code, made.json()["users"], made.json()["updated_by"]) == (200, 0, "ada")
    given = (await ada.client.put(f"/api/quotas/{vera.id}", json={"plan": "pro"})).json()
    assert (given["plan"], given["limit_seconds"], given["limit_files"], given["left_files"]) == (
        "pro",
        54_000,
        None,
        None,
    )
    await ada.client.put("/api/quotas/plans/pro", json={"minutes_per_day": 1, "files_per_day": 1})
    assert (await vera.client.get(ME)).json()["limit_seconds"] == 60
    listed = (await ada.client.get("/api/quotas/plans")).json()
    assert [(plan["name"], plan["users"], plan["minutes_per_day"]) for plan in listed] == [
        ("pro", 1, 1),
        ("standard", 0, STANDARD_MINUTES),
    ]
    refused = await ada.client.delete("/api/quotas/plans/pro")
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    assert refused.json()["detail"].startswith("one user has the plan 'pro'")
    await ada.client.put(f"/api/quotas/{vera.id}", json={"plan": "standard"})
    assert (await ada.client.delete("/api/quotas/plans/pro")).status_code == 204
    assert (await ada.client.delete("/api/quotas/plans/pro")).status_code == 404


async def test_the_standard_plan_holds_for_everybody_without_another(people: People) -> None:
    vera, ada = await people.viewer(), await people.admin()
    await ada.client.put("/api/quotas/plans/standard", json={"minutes_per_day": 30, "files_per_day": 3})
    read = (await vera.client.get(ME)).json()
    assert (read["limit_seconds"], read["limit_files"]) == (1800, 3)
    assert (await ada.client.delete("/api/quotas/plans/standard")).status_code == 204
    assert (await vera.client.get(ME)).json()["limit_seconds"] == STANDARD_MINUTES * 60


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"plan": "gold"}, "unknown_plan"),
        ({"plan": "No Name"}, "invalid"),
        ({"minutes_per_day": -1}, "invalid"),
        ({"files_per_day": 10**9}, "invalid"),
        ({"extra_minutes": 1.5}, "invalid"),
        ({"seconds": 3}, "invalid"),
    ],
)
async def test_what_is_no_quota_is_refused(people: People, body: dict[str, object], code: str) -> None:
    vera, ada = await people.viewer(), await people.admin()
    answer = await ada.client.put(f"/api/quotas/{vera.id}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert await rows(people.product.db, "select count(*) from user_quotas") == [(0,)]


async def test_nobody_has_no_quota(people: People) -> None:
    ada = await people.admin()
    for answer in (
        await ada.client.get(f"/api/quotas/{UUID(int=1)}"),
        await ada.client.put(f"/api/quotas/{UUID(int=1)}", json={}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_an_admin_pages_through_everybody_or_those_who_used_something(people: People) -> None:
    ada = await people.admin()
    users = [(await people.viewer(f"user{number}")).user for number in range(5)]
    await reserve(people.product.db, users[2], uuid4(), 60)
    # One was given more and one has cancelled: neither has used anything.
    await ada.client.put(f"/api/quotas/{users[1].id}", json={"extra_minutes": 5})
    await reserve(people.product.db, users[0], cancelled := uuid4(), 60)
    await release(people.product.db, cancelled)
    await ada.client.put("/api/quotas/plans/pro", json={"minutes_per_day": 1, "files_per_day": 1})
    await ada.client.put(f"/api/quotas/{users[4].id}", json={"plan": "pro"})
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query: dict[str, str | int] = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await ada.client.get("/api/quotas", params=query)).json()
        seen += [item["username"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["user4", "user3", "user2", "user1", "user0", "ada"]
    busy = (await ada.client.get("/api/quotas", params={"used": True})).json()["items"]
    assert [(item["username"], item["reserved_seconds"]) for item in busy] == [("user2", 60)]
    for plan, names in (("pro", ["user4"]), ("standard", ["user3", "user2", "user1", "user0", "ada"])):
        found = (await ada.client.get("/api/quotas", params={"plan": plan})).json()["items"]
        assert [item["username"] for item in found] == names


async def test_an_admin_reads_the_resets(people: People) -> None:
    ada = await people.admin()
    assert (await ada.client.get("/api/quotas/resets")).json() == []
    await quotas.reset(people.product.db)
    (read,) = (await ada.client.get("/api/quotas/resets")).json()
    assert (read["users"], read["used_seconds"], read["kept"]) == (0, 0, 0)
