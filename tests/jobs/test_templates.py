"""Kinds and templates through the API."""

import asyncio
from typing import Any

import pytest

from backend.jobs.kinds import KINDS
from tests.factories.jobs import add_schedule, add_template, schedule_row
from tests.fixtures.product import Product

URL = "/api/job-templates"


async def test_kinds_tell_their_parameters_as_json_schema(product: Product) -> None:
    kinds = {kind["name"]: kind for kind in (await product.client.get("/api/job-kinds")).json()}
    assert set(kinds) == {"call_expiring_policies", "http_request", "noop", "sleep"}
    assert kinds["http_request"]["parameters"]["required"] == ["url"]
    assert kinds["http_request"]["parameters"]["additionalProperties"] is False
    assert kinds["http_request"]["priority_can_be_chosen"] is True
    assert (kinds["sleep"]["queue"], kinds["sleep"]["time_limit"]) == ("low_priority", 3600)
    assert (kinds["call_expiring_policies"]["queue"], kinds["sleep"]["priority_can_be_chosen"]) == ("scheduled", False)


async def test_a_template_is_made_read_edited_and_deleted(product: Product) -> None:
    made = await product.client.post(URL, json={"name": " Nap ", "kind": "sleep", "parameters": {"seconds": 2}})
    assert made.status_code == 201
    template = made.json()
    url = made.headers["Location"]
    assert url == f"{URL}/{template['id']}"
    assert (template["name"], template["kind_label"], template["schedules"]) == ("Nap", "Sleep", 0)
    assert (template["parameters"], template["created_by"]) == ({"seconds": 2}, "service")
    edited = await product.client.patch(url, json={"description": "short"}, headers={"If-Match": made.headers["ETag"]})
    assert (edited.json()["description"], edited.json()["version"]) == ("short", 2)
    stale = await product.client.patch(url, json={"name": "x", "version": 1})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale")
    assert (await product.client.get(url)).json() == edited.json()
    assert (await product.client.delete(url)).status_code == 204
    for method in ("GET", "DELETE", "PATCH"):
        answer = await product.client.request(method, url, json={} if method == "PATCH" else None)
        assert answer.status_code == 404


async def test_templates_are_listed_and_filtered(product: Product) -> None:
    ids = [await add_template(product.db, name=f"T{n}") for n in range(3)]
    await add_schedule(product.db, ids[0])
    page = (await product.client.get(URL, params={"limit": 2})).json()
    rest = (await product.client.get(URL, params={"cursor": page["next_cursor"]})).json()
    found = [(item["id"], item["schedules"]) for item in page["items"] + rest["items"]]
    assert found == [(ids[2], 0), (ids[1], 0), (ids[0], 1)]
    assert rest["next_cursor"] is None
    for query, count in (({"kind": "sleep"}, 0), ({"kind": "noop"}, 3), ({"q": "t1"}, 1)):
        assert len((await product.client.get(URL, params=query)).json()["items"]) == count


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "x", "kind": "advance_calls"}, "kind"),
        ({"name": "x", "kind": "noop", "task": "sleep"}, "task"),
        ({"name": "x", "kind": "noop", "parameters": {"odd": 1}}, "parameters.odd"),
        ({"name": "x", "kind": "noop", "parameters": []}, "parameters"),
        ({"name": "x", "kind": "noop", "parameters": {"note": "n" * 100_001}}, "parameters"),
        ({"name": "x", "kind": "sleep", "parameters": {"seconds": 3001}}, "parameters.seconds"),
        ({"name": "x", "kind": "sleep", "parameters": {"seconds": "x", "fail": "odd"}}, "parameters.seconds"),
        ({"name": "x", "kind": "call_expiring_policies", "parameters": {"day": "x"}}, "parameters.day"),
        ({"name": "x", "kind": "http_request"}, "parameters.url"),
    ],
)
async def test_a_bad_template_names_the_field(product: Product, body: dict[str, Any], field: str) -> None:
    answer = await product.client.post(URL, json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "https://user:pass@example.com"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://exa mple.com"}, "url"),
        ({"url": "https://example.com:99999"}, "url"),
        ({"url": "http://127.0.0.1/"}, "url"),
        ({"url": "http://0177.0.0.1/"}, "url"),
        ({"url": "http://[::1/"}, "url"),
        ({"url": "http://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "url"),
        ({"url": "https://example.com", "method": "TRACE"}, "method"),
        ({"url": "https://example.com", "headers": {"Authorization": "x"}}, "headers"),
        ({"url": "https://example.com", "headers": {"cookie": "x"}}, "headers"),
        ({"url": "https://example.com", "headers": {"X-Api-Key": "x"}}, "headers"),
        ({"url": "https://example.com", "headers": {"X-Auth": "x"}}, "headers"),
        ({"url": "https://example.com", "headers": {"Host": "x"}}, "headers"),
        ({"url": "https://example.com", "headers": {"A": "x\r\nB: y"}}, "headers"),
        ({"url": "https://example.com", "headers": {"A B": "x"}}, "headers"),
        ({"url": "https://example.com", "timeout_seconds": 121}, "timeout_seconds"),
        ({"url": "https://example.com", "expect_status": 99}, "expect_status"),
        ({"url": "https://example.com", "expect_status": []}, "expect_status"),
        ({"url": "https://example.com", "expect_status": "299..200"}, "expect_status"),
        ({"url": "https://example.com", "body": "x" * 70_000}, "body"),
    ],
)
async def test_an_http_request_is_checked_when_it_is_saved(
    product: Product, parameters: dict[str, Any], field: str
) -> None:
    answer = await product.client.post(URL, json={"name": "x", "kind": "http_request", "parameters": parameters})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].split(".")[:2] == ["parameters", field]


async def test_a_name_is_taken_once(product: Product) -> None:
    await add_template(product.db, name="Nap")
    other = await add_template(product.db)
    made = await product.client.post(URL, json={"name": "Nap", "kind": "noop"})
    edited = await product.client.patch(f"{URL}/{other}", json={"name": "Nap"})
    assert [(answer.status_code, answer.json()["code"]) for answer in (made, edited)] == [(409, "name_taken")] * 2


async def test_an_edit_reaches_the_schedules_in_the_same_moment(product: Product) -> None:
    template_id = await add_template(product.db, "sleep", parameters={"seconds": 1})
    plain = await add_schedule(product.db, template_id, task="sleep", queue="low_priority")
    own = await add_schedule(
        product.db, template_id, task="sleep", queue="low_priority", parameters={"fail": "permanent"}
    )
    assert (await product.client.patch(f"{URL}/{template_id}", json={"parameters": {"seconds": 9}})).status_code == 200
    rows = [await schedule_row(product.db, schedule) for schedule in (plain, own)]
    assert [row.arguments for row in rows] == [{"seconds": 9.0}, {"seconds": 9.0, "fail": "permanent"}]
    assert [row.version for row in rows] == [2, 2]


async def test_edits_of_a_template_and_of_its_schedules_do_not_block_each_other(product: Product) -> None:
    template_id = await add_template(product.db, "sleep", parameters={"seconds": 1})
    schedules = [await add_schedule(product.db, template_id, task="sleep", queue="low_priority") for _ in range(3)]
    edits = [
        product.client.patch(url, json=body)
        for n in range(8)
        for url, body in (
            (f"{URL}/{template_id}", {"parameters": {"seconds": n}}),
            (f"/api/job-schedules/{schedules[n % 3]}", {"parameters": {"fail": "permanent"}}),
        )
    ]
    assert {answer.status_code for answer in await asyncio.gather(*edits)} == {200}
    seconds = (await product.client.get(f"{URL}/{template_id}")).json()["parameters"]["seconds"]
    rows = [await schedule_row(product.db, schedule) for schedule in schedules]
    assert [row.arguments for row in rows] == [{"seconds": seconds, "fail": "permanent"}] * 3


async def test_an_edit_that_a_schedule_cannot_follow_changes_nothing(product: Product) -> None:
    template_id = await add_template(product.db, "sleep", parameters={"seconds": 1})
    schedule_id = await add_schedule(product.db, template_id, name="Odd one", parameters={"nap": True})
    answer = await product.client.patch(f"{URL}/{template_id}", json={"parameters": {"seconds": 9}})
    assert answer.status_code == 422
    assert "Odd one" in answer.json()["detail"]
    assert (await product.client.get(f"{URL}/{template_id}")).json()["parameters"] == {"seconds": 1}
    assert (await schedule_row(product.db, schedule_id)).version == 1


async def test_a_template_in_use_is_not_deleted(product: Product) -> None:
    template_id = await add_template(product.db)
    await add_schedule(product.db, template_id, name="Nightly")
    answer = await product.client.delete(f"{URL}/{template_id}")
    assert (answer.status_code, answer.json()["code"], answer.json()["schedules"]) == (409, "in_use", ["Nightly"])


def test_every_kind_leaves_the_worker_time_to_record_the_end() -> None:
    assert all(kind.longest_timeout <= kind.time_limit - 40 for kind in KINDS.values())
