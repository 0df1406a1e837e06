"""Webhooks, against a receiver that verifies them."""

import base64
import time
from dataclasses import replace
from datetime import UTC, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from backend.config import Config, load
from backend.core.clock import utc_now
from backend.core.errors import PermanentError, TransientError
from backend.notifications.channels.base import ALERTS, Message
from backend.notifications.channels.webhook import WebhookChannel
from backend.notifications.signing import key_of, sign, written
from devstack.readiness import free_port
from tests.jobs.web import running_site
from tests.notifications.receiver import Hook, verified

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
USER = uuid4()
USERS_SECRET = written(key_of(load({"NOTIFY_WEBHOOK_SECRET": SECRET}).notify.webhook_secret, USER))


def config(**environment: str) -> Config:
    return load({"NOTIFY_WEBHOOK_SECRET": SECRET, "NOTIFY_WEBHOOK_ALLOW_PRIVATE": "on", **environment})


def message(url: str, **fields: Any) -> Message:
    wanted: dict[str, Any] = {
        "id": UUID("6f2c1f8e-0d57-4d35-9a52-0c8f2b1f0001"),
        "notification_id": uuid4(),
        "address": "own",
        "subject": "Straße",
        "text": "line",
        "html": None,
        "payload": None,
        "created_at": utc_now(),
        "user_id": USER,
        "webhook_url": url,
        **fields,
    }
    return Message(**wanted)


async def send(found: Config, *messages: Message, seconds: float = 5) -> list[str]:
    async with WebhookChannel(found, seconds=seconds).open() as line:
        return [await line.send(one) for one in messages]


def test_a_signature_is_that_of_the_specifications_example() -> None:
    # The example of standardwebhooks.com's own libraries.
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_receiver_can_verify_what_it_gets(hook: Hook) -> None:
    before = int(time.time())
    sent = message(hook.url)
    assert await send(config(), sent, sent) == ["webhook: status 200"] * 2
    (headers, body), (again, _) = hook.seen
    assert verified(headers, body, USERS_SECRET)
    assert not verified(headers, body + b" ", USERS_SECRET)
    assert headers["webhook-id"] == again["webhook-id"] == "msg_6f2c1f8e0d574d359a520c8f2b1f0001"
    assert before <= int(headers["webhook-timestamp"]) <= time.time()
    assert hook.bodies()[0] == {
        "type": "notification",
        "timestamp": sent.created_at.isoformat(),
        "data": {"id": str(sent.notification_id), "subject": "Straße", "text": "line"},
    }


async def test_what_is_signed_for_one_user_convinces_nobody_elses_receiver(hook: Hook) -> None:
    await send(config(), message(hook.url))
    headers, body = hook.seen[0]
    other = written(key_of(config().notify.webhook_secret, uuid4()))
    assert not verified(headers, body, other)
    assert not verified(headers, body, SECRET)


async def test_alerts_go_to_the_operators_url_with_the_operators_secret(hook: Hook) -> None:
    alert = message("", address=ALERTS, user_id=None, payload={"event": "opened"})
    found = config(BEATLINE_ALERT_WEBHOOK_URL=hook.url, NOTIFY_WEBHOOK_ALLOW_PRIVATE="off")
    await send(found, alert)
    await send(replace(found, notify=replace(found.notify, webhook_secret=b"")), alert)
    (headers, body), (unsigned, _) = hook.seen
    assert verified(headers, body, SECRET)
    assert body == b'{"event":"opened"}'
    assert "webhook-signature" not in unsigned
    assert unsigned["webhook-id"] == headers["webhook-id"]


@pytest.mark.parametrize(
    ("status", "headers", "error", "after"),
    [
        (500, {}, TransientError, None),
        (503, {"Retry-After": "120"}, TransientError, 120.0),
        (429, {"Retry-After": "7"}, TransientError, 7.0),
        (429, {"Retry-After": "soon"}, TransientError, None),
        (429, {"Retry-After": "999999999"}, TransientError, 86_400.0),
        (408, {}, TransientError, None),
        (400, {}, PermanentError, None),
        (410, {}, PermanentError, None),
    ],
)
async def test_an_answer_is_sorted_by_its_status(
    hook: Hook, status: int, headers: dict[str, str], error: type[Exception], after: float | None
) -> None:
    hook.answers = [(status, headers)]
    with pytest.raises(error, match=str(status)) as fault:
        await send(config(), message(hook.url))
    assert getattr(fault.value, "after", None) == after


async def test_a_retry_after_may_be_a_date(hook: Hook) -> None:
    hook.answers = [
        (503, {"Retry-After": format_datetime(utc_now().astimezone(UTC) + timedelta(seconds=90), usegmt=True)})
    ]
    with pytest.raises(TransientError) as fault:
        await send(config(), message(hook.url))
    assert 80 < (fault.value.after or 0) <= 90


async def test_a_redirect_is_refused(hook: Hook) -> None:
    hook.answers = [(302, {"Location": hook.url})]
    with pytest.raises(PermanentError, match="redirects are not followed"):
        await send(config(), message(hook.url))
    assert len(hook.seen) == 1


async def test_a_private_address_is_refused_unless_it_is_allowed(hook: Hook) -> None:
    with pytest.raises(PermanentError, match="loopback.*NOTIFY_WEBHOOK_ALLOW_PRIVATE"):
        await send(config(NOTIFY_WEBHOOK_ALLOW_PRIVATE="off"), message(hook.url))
    port = hook.url.split(":")[2].partition("/")[0]
    with pytest.raises(PermanentError, match="loopback"):
        await send(config(NOTIFY_WEBHOOK_ALLOW_PRIVATE="off"), message(f"http://localhost:{port}/"))
    assert hook.seen == []


async def test_a_receiver_that_is_slow_or_endless_is_given_up() -> None:
    async with running_site() as site:
        with pytest.raises(TransientError, match=r"no answer within 0\.2 s"):
            await send(config(), message(f"{site.url}/slow/0.5"), seconds=0.2)
        assert await send(config(), message(f"{site.url}/flood"), seconds=2) == ["webhook: status 200"]


async def test_a_receiver_that_is_away_is_tried_again_and_its_url_is_not_told() -> None:
    url = f"http://127.0.0.1:{free_port()}/secret"
    for found in (message(url), message("", address=ALERTS, user_id=None)):
        with pytest.raises(TransientError) as fault:
            await send(config(BEATLINE_ALERT_WEBHOOK_URL=url), found)
        assert "secret" not in str(fault.value)
    with pytest.raises(PermanentError, match="NOTIFY_WEBHOOK_SECRET"):
        await send(config(NOTIFY_WEBHOOK_SECRET=""), message(url))
    with pytest.raises(PermanentError, match="no URL"):
        await send(config(), message(""))
