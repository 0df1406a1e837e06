"""The OpenAPI document and the refusals that it promises."""

import pytest

from tests.fixtures.product import Product

CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


async def test_every_refusal_is_described_as_a_problem_document(product: Product) -> None:
    document = (await product.client.get("/openapi.json")).json()
    refusals = [
        answer
        for operations in document["paths"].values()
        for operation in operations.values()
        for status, answer in operation["responses"].items()
        if status[0] in "45"
    ]
    assert len(refusals) > 200
    assert all(refusal["content"] == CONTENT for refusal in refusals)
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_an_operation_names_the_refusals_that_it_may_give(product: Product) -> None:
    paths = (await product.client.get("/openapi.json")).json()["paths"]
    edit = paths["/api/job-schedules/{schedule_id}"]["patch"]["responses"]
    assert {"401", "403", "404", "409", "412", "413", "422", "429", "503"} <= edit.keys()
    assert not {"401", "404", "422"} & paths["/healthz"]["get"]["responses"].keys()


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/api/job-schedules", "GET, POST"), ("/api/job-schedules/1", "DELETE, GET, PATCH"), ("/healthz", "GET")],
)
async def test_a_method_that_is_not_allowed_is_told_which_are(product: Product, path: str, allowed: str) -> None:
    refused = await product.client.put(path)
    assert (refused.status_code, refused.headers["Allow"]) == (405, allowed)
    assert refused.json()["code"] == "method_not_allowed"


async def test_what_the_database_cannot_hold_is_the_callers_fault(product: Product) -> None:
    refused = await product.client.get("/api/job-templates", params={"kind": "\0"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    refused = await product.client.post("/api/do-not-call", json={"phone": "+919876500000", "reason": "\0"})
    assert refused.status_code == 422
