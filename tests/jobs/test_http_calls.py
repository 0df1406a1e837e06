"""http_request against a real server, and its refusals."""

import json
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from backend.core.addresses import resolve
from backend.core.errors import PermanentError, TransientError
from backend.jobs import http_calls
from backend.jobs.kinds import HttpRequestParameters
from devstack.readiness import free_port
from tests.jobs.web import Site, running_site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running_site() as running:
        yield running


async def call(url: str, *, allow_private: bool = True, **parameters: Any) -> dict[str, Any]:
    allowed = partial(resolve, allow_private=allow_private)
    return await http_calls.call(HttpRequestParameters(url=url, **parameters), resolve=allowed)


async def test_an_answer_is_told(site: Site) -> None:
    answer = await call(f"{site.url}/a/b?c=d", headers={"X-Trace": "1"}, expect_text="well")
    assert (answer["status"], answer["body"], answer["bytes"], answer["truncated"]) == (200, "all is well", 11, False)
    assert 0 <= answer["elapsed_ms"] < 5000
    method, path, headers, _ = site.seen[0]
    assert (method, path, headers["x-trace"], headers["user-agent"]) == ("GET", "/a/b?c=d", "1", "Beatline")
    assert headers["host"] == site.url.removeprefix("http://")
    assert headers["accept-encoding"] == "identity"


async def test_the_server_is_told_the_name_though_its_address_is_called(site: Site) -> None:
    port = site.url.rpartition(":")[2]
    await call(f"http://localhost:{port}/")
    assert site.seen[0][2]["host"] == f"localhost:{port}"


@pytest.mark.parametrize(
    ("body", "sent", "kind"),
    [
        ("hello", b"hello", "text/plain; charset=utf-8"),
        ({"a": [1, None]}, b'{"a": [1, null]}', "application/json"),
        ([], b"[]", "application/json"),
        (False, b"false", "application/json"),
    ],
)
async def test_a_body_is_sent_as_text_or_as_json(site: Site, body: Any, sent: bytes, kind: str) -> None:
    await call(f"{site.url}/", method="POST", body=body)
    method, _, headers, received = site.seen[0]
    assert (method, received, headers["content-type"]) == ("POST", sent, kind)


async def test_a_content_type_of_ones_own_stays(site: Site) -> None:
    await call(f"{site.url}/", method="PUT", body="<a/>", headers={"Content-Type": "text/xml"})
    assert site.seen[0][2]["content-type"] == "text/xml"


@pytest.mark.parametrize(
    ("status", "expected"), [(404, 404), (503, [200, 503]), (302, "300..399"), (204, "200..299"), (201, 201)]
)
async def test_an_expected_status_is_a_success(site: Site, status: int, expected: Any) -> None:
    assert (await call(f"{site.url}/status/{status}", expect_status=expected))["status"] == status


@pytest.mark.parametrize("status", [500, 503, 429, 408])
async def test_a_status_that_may_pass_is_tried_again(site: Site, status: int) -> None:
    with pytest.raises(TransientError, match=f"status {status}") as fault:
        await call(f"{site.url}/status/{status}")
    assert fault.value.after == 7


@pytest.mark.parametrize("status", [302, 400, 401, 404, 410])
async def test_a_status_that_stays_is_not(site: Site, status: int) -> None:
    with pytest.raises(PermanentError, match=f"status {status}, expected 200..299"):
        await call(f"{site.url}/status/{status}")


async def test_a_success_that_was_not_expected_is_a_failure(site: Site) -> None:
    with pytest.raises(PermanentError, match="status 200, expected 204"):
        await call(f"{site.url}/", expect_status=204)


async def test_a_missing_text_is_a_failure(site: Site) -> None:
    with pytest.raises(PermanentError, match="does not hold 'ill'"):
        await call(f"{site.url}/", expect_text="ill")


async def test_a_slow_answer_is_given_up(site: Site) -> None:
    began = time.monotonic()
    with pytest.raises(TransientError, match=r"no answer within 0\.3 s"):
        await call(f"{site.url}/slow/5", timeout_seconds=0.3)
    assert time.monotonic() - began < 3


async def test_a_server_that_is_away_is_tried_again() -> None:
    with pytest.raises(TransientError):
        await call(f"http://127.0.0.1:{free_port()}/")


async def test_an_endless_answer_is_read_to_a_limit(site: Site) -> None:
    answer = await call(f"{site.url}/flood", timeout_seconds=20)
    assert (answer["bytes"], len(answer["body"]), answer["truncated"]) == (1024 * 1024, 64 * 1024, True)


async def test_any_bytes_become_text_that_can_be_stored(site: Site) -> None:
    answer = await call(f"{site.url}/bytes/2")
    assert answer["body"] == "a\ufffd\ufffda\ufffd\ufffd"
    assert "\\u0000" not in json.dumps(answer)


async def test_redirects_are_followed_when_asked_for(site: Site) -> None:
    url = f"{site.url}/to?url=/end"
    with pytest.raises(PermanentError, match="status 302"):
        await call(url)
    answer = await call(url, follow_redirects=True)
    assert (answer["status"], answer["url"]) == (200, f"{site.url}/end")


async def test_a_body_follows_a_redirect_that_keeps_the_method(site: Site) -> None:
    await call(f"{site.url}/to?url=/end", method="POST", body={"a": 1}, follow_redirects=True)
    assert [seen[0] for seen in site.seen] == ["POST", "GET"]


async def test_redirects_in_a_circle_end(site: Site) -> None:
    with pytest.raises(PermanentError, match="more than 5 redirects"):
        await call(f"{site.url}/circle", follow_redirects=True)
    assert len(site.seen) == 6


@pytest.mark.parametrize("target", ["ftp://example.com/", "file:///etc/passwd", "http://user:pass@127.0.0.1/"])
async def test_a_redirect_to_another_scheme_or_with_a_password_is_refused(site: Site, target: str) -> None:
    with pytest.raises(PermanentError, match="redirected to a URL that may not be called"):
        await call(f"{site.url}/to?url={target}", follow_redirects=True)


async def test_the_body_of_a_redirect_is_not_read(site: Site) -> None:
    answer = await call(f"{site.url}/flood?Location=/end", follow_redirects=True, timeout_seconds=10)
    assert answer["body"] == "all is well"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "2130706433",
        "0x7f000001",
        "localhost",
    ],
)
async def test_private_addresses_are_refused_without_a_connection(site: Site, host: str) -> None:
    port = site.url.rpartition(":")[2]
    with pytest.raises(PermanentError, match="JOBS_HTTP_ALLOW_PRIVATE"):
        await call(f"http://{host}:{port}/", allow_private=False)
    assert site.seen == []


async def test_every_hop_is_resolved_once_and_checked(site: Site) -> None:
    asked: list[str] = []

    async def as_if_public(host: str, port: int) -> str:
        asked.append(host)
        return "127.0.0.1" if host == "public.test" else await resolve(host, port, allow_private=False)

    port = site.url.rpartition(":")[2]
    wish = HttpRequestParameters(url=f"http://public.test:{port}/to?url={site.url}/end", follow_redirects=True)
    with pytest.raises(PermanentError, match="loopback"):
        await http_calls.call(wish, resolve=as_if_public)
    assert asked == ["public.test", "127.0.0.1"]
    assert [(seen[1].partition("?")[0], seen[2]["host"]) for seen in site.seen] == [("/to", f"public.test:{port}")]
