"""Who may do what: every route of the product, asked by everybody.

A route is in `RULES` by its first part, or by itself where it differs from its neighbours. One that is in neither fails.
"""

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, auto
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from backend.accounts.models import User
from backend.config import load
from backend.core.clock import utc_now
from backend.core.principal import Role, Scope
from backend.main import create_app
from backend.ops.access import COOKIE
from backend.queues.models import SentTask
from devstack.servers import ValkeyServer
from tests.fixtures.people import People, access_token, add_api_key, add_session, add_user
from tests.fixtures.product import Product, Start


class Rule(Enum):
    """Who is let in."""

    ANYBODY = auto()
    # Who carries a credential of another kind: none of ours opens it.
    OTHERS = auto()
    VIEWER = auto()
    OPERATOR = auto()
    ADMIN = auto()
    # Everybody, but no API key that is for reading: the rest depends on whose it is.
    WRITER = auto()
    # Users alone, in person or by an API key; only in person.
    PERSON = auto()
    SIGNED_IN = auto()


SAFE = {"GET", "HEAD"}
# The part after /api, or the first one: for reading, for changing.
RULES: dict[str, tuple[Rule, Rule]] = {
    **dict.fromkeys(
        ("calls", "dead-letters", "do-not-call", "imports", "job-alerts", "job-kinds", "job-runs", "job-schedules"),
        (Rule.VIEWER, Rule.OPERATOR),
    ),
    **dict.fromkeys(("job-templates", "queues", "scheduler", "tasks", "workers"), (Rule.VIEWER, Rule.OPERATOR)),
    **dict.fromkeys(("health", "metrics"), (Rule.VIEWER, Rule.OPERATOR)),
    "cache-schedules": (Rule.VIEWER, Rule.ADMIN),
    **dict.fromkeys(("audit", "quotas", "users"), (Rule.ADMIN, Rule.ADMIN)),
    "auth": (Rule.SIGNED_IN, Rule.SIGNED_IN),
    "notifications": (Rule.PERSON, Rule.PERSON),
    "notify": (Rule.OPERATOR, Rule.OPERATOR),
    **dict.fromkeys(("healthz", "readyz"), (Rule.ANYBODY, Rule.ANYBODY)),
    "recordings": (Rule.VIEWER, Rule.WRITER),
    # The token in the path is the credential, and opens one recording.
    "shared": (Rule.ANYBODY, Rule.ANYBODY),
}
EXCEPTIONS = {
    ("POST", "/api/auth/login"): Rule.ANYBODY,
    ("POST", "/api/auth/refresh"): Rule.ANYBODY,
    ("GET", "/api/auth/me"): Rule.VIEWER,
    ("POST", "/api/calls/{call_id}/agent-events"): Rule.OTHERS,
    ("POST", "/api/webhooks/livekit"): Rule.OTHERS,
    # It claims what it reads.
    ("GET", "/api/scheduler/pending-customers"): Rule.OPERATOR,
    # It changes nothing.
    ("POST", "/api/job-schedules/preview"): Rule.VIEWER,
    ("POST", "/api/notifications/preview"): Rule.OPERATOR,
    ("GET", "/api/notifications/templates"): Rule.VIEWER,
    ("GET", "/api/notifications/{notification_id}"): Rule.VIEWER,
    ("GET", "/api/notifications/preferences"): Rule.SIGNED_IN,
    ("PUT", "/api/notifications/preferences"): Rule.SIGNED_IN,
    ("POST", "/api/notifications/bulk"): Rule.OPERATOR,
    ("GET", "/api/notifications/bulk/{bulk_id}"): Rule.VIEWER,
    # They hold the addresses of people.
    ("GET", "/api/notifications/deliveries"): Rule.ADMIN,
    ("GET", "/api/quotas/me"): Rule.PERSON,
    ("POST", "/api/notifications/deliveries/{delivery_id}/retry"): Rule.ADMIN,
    ("GET", "/api/recordings/retention"): Rule.PERSON,
    ("PUT", "/api/recordings/retention"): Rule.PERSON,
    ("GET", "/api/recordings/retention/users/{user_id}"): Rule.ADMIN,
    ("PUT", "/api/recordings/retention/users/{user_id}"): Rule.ADMIN,
    # What a server knows of tus; clients ask before they sign in.
    ("OPTIONS", "/api/recordings"): Rule.ANYBODY,
    # It says who has been given what.
    ("GET", "/api/recordings/{recording_id}/shares"): Rule.WRITER,
}
# What FastAPI itself adds, and files of the pages.
DOCUMENTS = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc", "/ops/static"}
SIGN_IN = {"/ops/sign-in", "/ops/sign-out"}

STRANGERS = ("nobody", "garbage", "expired", "forged", "revoked", "deactivated", "revoked_key", "expired_key")
KNOWN = ("viewer", "read_key", "operator", "admin", "service")
_LET_IN = {
    Rule.VIEWER: {"viewer", "read_key", "operator", "admin", "service"},
    Rule.OPERATOR: {"operator", "admin", "service"},
    Rule.ADMIN: {"admin"},
    Rule.WRITER: {"viewer", "operator", "admin", "service"},
    Rule.PERSON: {"viewer", "operator", "admin"},
    Rule.SIGNED_IN: {"viewer", "operator", "admin"},
}
_VALUES = {"uuid": str(UUID(int=0)), "integer": "1", "string": "x"}


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    url: str

    @property
    def rule(self) -> Rule:
        own = EXCEPTIONS.get((self.method, self.path))
        group = self.path.removeprefix("/api").split("/")[1]
        assert own or group in RULES, f"{self.method} {self.path}: say in RULES who may"
        return own or RULES[group][0 if self.method in SAFE else 1]

    def expected(self, who: str) -> str:
        """`in`, `401` or `403`."""
        if self.rule is Rule.ANYBODY:
            return "in"
        if self.rule is Rule.OTHERS or who in STRANGERS:
            return "401"
        if self.rule is Rule.PERSON and who == "read_key":
            return "in" if self.method in SAFE else "403"
        return "in" if who in _LET_IN[self.rule] else "403"


def routes(document: dict[str, Any]) -> list[Route]:
    """Every operation of an OpenAPI document, with a path that its parameters accept."""
    found = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            url = path
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    schema = parameter["schema"]
                    value = _VALUES[schema.get("format") or schema["type"]]
                    url = url.replace(f"{{{parameter['name']}}}", value)
            found.append(Route(method.upper(), path, url))
    return found


Token = Callable[[], Awaitable[str | None]]


def fixed(token: str | None) -> Token:
    async def give() -> str | None:
        return token

    return give


def session_of(product: Product, user: User, **fields: Any) -> Token:
    """A new one each time."""

    async def give() -> str | None:
        return (await add_session(product.db, product.config, user, **fields))[1]

    return give


async def tokens(product: Product) -> dict[str, Token]:
    """For each of those who ask, what makes a token: some requests end their session."""
    db, config = product.db, product.config
    viewer = await add_user(db, "vera", Role.VIEWER)
    operator = await add_user(db, "otto", Role.OPERATOR)
    admin = await add_user(db, "ada", Role.ADMIN)
    gone = await add_user(db, "gone", Role.ADMIN, is_active=False)
    long_ago = utc_now() - timedelta(days=1)
    (_, read_key), (_, revoked_key), (_, expired_key) = (
        await add_api_key(db, admin, Scope.READ, name="reads"),
        await add_api_key(db, admin, Scope.ADMIN, name="revoked", revoked_at=long_ago),
        await add_api_key(db, admin, Scope.ADMIN, name="expired", expires_at=long_ago),
    )
    ended, _ = await add_session(db, config, admin)
    foreign = replace(config, service_key="another-installation-0123456789-0123")

    return {
        "nobody": fixed(None),
        "garbage": fixed("stranger"),
        "expired": fixed(access_token(config, ended, lasting=timedelta(seconds=-1))),
        "forged": fixed(access_token(foreign, ended)),
        "revoked": session_of(product, admin, revoked_at=long_ago),
        "deactivated": session_of(product, gone),
        "revoked_key": fixed(revoked_key),
        "expired_key": fixed(expired_key),
        "viewer": session_of(product, viewer),
        "read_key": fixed(read_key),
        "operator": session_of(product, operator),
        "admin": session_of(product, admin),
        "service": fixed(config.service_key),
    }


@pytest.fixture
async def stranger(valkey: ValkeyServer, product: Product) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token; the broker is there."""
    async with httpx.AsyncClient(base_url=product.config.api_url, timeout=20, verify=False) as client:
        yield client


@pytest.mark.parametrize("asking", [STRANGERS, *((who,) for who in KNOWN)], ids=lambda asking: asking[0])
async def test_every_route_lets_in_whom_its_rule_says_and_nobody_else(
    product: Product, stranger: httpx.AsyncClient, asking: tuple[str, ...]
) -> None:
    given = await tokens(product)
    every = routes((await stranger.get("/openapi.json")).json())
    assert len(every) >= 70
    wrong = []
    for who in asking:
        for route in every:
            answer = await asked(stranger, route, await given[who]())
            if not as_expected(answer, route, who):
                wrong.append((who, route.method, route.path, answer.status_code, route.expected(who)))
    assert wrong == [], wrong


async def asked(client: httpx.AsyncClient, route: Route, token: str | None) -> httpx.Response:
    """Whatever becomes of it, a refusal says what is missing."""
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    answer = await client.request(route.method, route.url, headers=headers)
    assert answer.status_code < 500, (route, answer.text)
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    if answer.status_code == 403:
        names_it = answer.json().keys() & {"needed_role", "needed_scope"}
        assert names_it or answer.json()["code"] in {"sign_in_needed", "user_needed"}, answer.text
    return answer


def as_expected(answer: httpx.Response, route: Route, who: str) -> bool:
    if route.rule is Rule.ANYBODY and answer.status_code == 401:
        # It says that the body is of no use, not that a token is needed.
        return answer.json()["code"] in {"wrong_credentials", "refresh_token"}
    verdict = str(answer.status_code) if answer.status_code in {401, 403} else "in"
    return verdict == route.expected(who)


async def test_every_route_says_in_the_document_that_it_needs_a_token(stranger: httpx.AsyncClient) -> None:
    document = (await stranger.get("/openapi.json")).json()
    for route in routes(document):
        operation = document["paths"][route.path][route.method.lower()]
        assert ("security" in operation) == (route.rule not in {Rule.ANYBODY, Rule.OTHERS}), route


def test_a_route_without_a_rule_is_noticed() -> None:
    with pytest.raises(AssertionError, match="say in RULES who may"):
        _ = Route("GET", "/api/something-new", "/api/something-new").rule


def test_every_route_is_documented_or_a_page_and_every_exception_is_one() -> None:
    app = create_app(load(os.environ))
    every = routes(app.openapi())
    assert EXCEPTIONS.keys() - {(route.method, route.path) for route in every} == set()
    documented = {route.path for route in every}
    found = {context.path or "" for context in iter_route_contexts(app.routes)}
    # Those of share links open by the link alone: tests/ops/recordings.
    pages = {path for path in found if path == "/ops" or path.startswith(("/ops/", "/shared/"))}
    assert len(pages) > 20
    assert found - documented - pages - DOCUMENTS == set()


async def test_no_page_shows_or_does_anything_for_a_stranger(product: Product, stranger: httpx.AsyncClient) -> None:
    pages = list(pages_of(create_app(product.config)))
    assert len(pages) > 20
    given = await tokens(product)
    for who in STRANGERS:
        stranger.cookies.clear()
        if (token := await given[who]()) is not None:
            stranger.cookies.set(COOKIE, token)
        for method, url in pages:
            answer = await stranger.request(method, url, headers={"Sec-Fetch-Site": "same-origin"})
            assert answer.status_code == 303, (who, method, url, answer.status_code)
            assert answer.headers["Location"].startswith("/ops/sign-in"), (who, method, url)
    stranger.cookies.set(COOKIE, await given["viewer"]() or "")
    assert (await stranger.get("/ops/me")).status_code == 200


def pages_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of every guarded page and button."""
    for context in iter_route_contexts(app.routes):
        path = context.path or ""
        if not path.startswith("/ops") or path in DOCUMENTS | SIGN_IN:
            continue
        url = re.sub(r"\{(\w+)(:path)?\}", lambda part: "1" if part[1] == "schedule_id" else str(UUID(int=0)), path)
        for method in context.methods or ():
            yield method, url


async def test_personal_things_of_others_are_not_there(people: People) -> None:
    db = people.product.db
    vera, otto, ada = await people.viewer(), await people.operator(), await people.admin()
    key, _ = await add_api_key(db, otto.user, Scope.READ)
    for person in (vera, ada):
        for path in (f"sessions/{otto.session.id}", f"api-keys/{key.id}"):
            answer = await person.client.delete(f"/api/auth/{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        for path in ("sessions", "api-keys"):
            listed = (await person.client.get(f"/api/auth/{path}")).json()
            assert {one["id"] for one in listed} <= {str(person.session.id)}
    assert (await otto.client.get("/api/auth/me")).status_code == 200


async def test_a_task_is_read_by_who_sent_it_and_by_operators(valkey: ValkeyServer, people: People) -> None:
    db = people.product.db
    vera, other, otto = await people.viewer(), await people.viewer("victor"), await people.operator()
    task = SentTask(id=UUID(int=7), name="noop", queue="default", fingerprint="", sent_by="vera", expires_at=utc_now())
    async with db.transaction() as session:
        session.add(task)
    url = f"/api/tasks/{task.id}"
    assert [(await person.client.get(url)).status_code for person in (vera, otto, other)] == [200, 200, 404]
    unknown = await other.client.get(f"/api/tasks/{UUID(int=8)}")
    known = await other.client.get(url)
    assert known.json()["detail"].replace("7 was", "8 was") == unknown.json()["detail"]


async def test_a_token_of_one_installation_is_of_no_use_in_another(start: Start) -> None:
    product = await start()
    user = await add_user(product.db, "ada", Role.ADMIN)
    _, token = await add_session(product.db, product.config, user)
    other = await start(BEATLINE_TOKEN_KEY="a-key-of-the-other-one-0123456789")
    headers = {"Authorization": f"Bearer {token}"}
    async with AsyncExitStack() as stack:
        for config, status in ((product.config, 200), (other.config, 401)):
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=config.api_url, verify=False))
            assert (await client.get("/api/auth/me", headers=headers)).status_code == status
