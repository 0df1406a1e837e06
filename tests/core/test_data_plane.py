"""The workers' way to the API, against a real socket."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from backend.core.data_plane import DataPlane, Refused
from backend.core.errors import TransientError
from devstack.readiness import free_port


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """An API that answers /STATUS with that status."""

    async def answer(request: web.Request) -> web.Response:
        status = int(request.match_info["status"])
        if status == 204:
            return web.Response(status=204)
        if status == 418:
            return web.Response(status=418, text="teapot")
        body = {"code": "some_code", "detail": "why", "key": request.headers.get("Idempotency-Key")}
        headers = {"Retry-After": "7"} if status == 429 else {"Retry-After": "soon"} if status == 503 else {}
        return web.json_response(body if status != 422 else ["odd"], status=status, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{status}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


@pytest.fixture
async def plane(url: str) -> AsyncIterator[DataPlane]:
    plane = DataPlane(url, "k" * 32)
    yield plane
    await plane.close()


async def test_an_answer_is_decoded_and_the_key_goes_along(plane: DataPlane) -> None:
    assert (await plane.post("/200", json={}, key="a:1"))["key"] == "a:1"
    assert await plane.get("/204") is None


@pytest.mark.parametrize(("status", "after"), [(429, 7.0), (500, None), (502, None), (503, None), (504, None)])
async def test_what_may_pass_is_transient(plane: DataPlane, status: int, after: float | None) -> None:
    with pytest.raises(TransientError) as fault:
        await plane.get(f"/{status}")
    assert fault.value.after == after


@pytest.mark.parametrize(
    ("status", "code"), [(401, "some_code"), (404, "some_code"), (409, "some_code"), (418, "error"), (422, "error")]
)
async def test_a_refusal_is_final_and_says_why(plane: DataPlane, status: int, code: str) -> None:
    with pytest.raises(Refused) as fault:
        await plane.get(f"/{status}")
    assert (fault.value.status, fault.value.code) == (status, code)


async def test_an_api_that_is_away_is_transient() -> None:
    plane = DataPlane(f"http://127.0.0.1:{free_port()}", "k" * 32)
    with pytest.raises(TransientError, match="API: GET /x"):
        await plane.get("/x")
    await plane.close()
