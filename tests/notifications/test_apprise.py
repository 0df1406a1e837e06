"""Apprise, by its json:// scheme to a local receiver."""

from uuid import uuid4

import pytest

from backend.core.clock import utc_now
from backend.core.errors import PermanentError, TransientError
from backend.notifications.channels.apprise import AppriseChannel
from backend.notifications.channels.base import Message
from tests.jobs.web import running_site
from tests.notifications.receiver import Hook

# Apprise looks for a module of Python's that is going away, and does without it where it is gone.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


async def send(urls: dict[str, str], target: str = "ops", *, seconds: float = 10) -> str:
    message = Message(
        id=uuid4(),
        notification_id=uuid4(),
        address=target,
        subject="Alert",
        text="Nightly is late",
        html=None,
        payload=None,
        created_at=utc_now(),
    )
    async with AppriseChannel(urls, seconds=seconds).open() as line:
        return await line.send(message)


async def test_a_target_is_told(hook: Hook) -> None:
    assert await send({"ops": hook.url.replace("http://", "json://")}) == "apprise: ops"
    body = hook.bodies()[0]
    assert (body["title"], body["message"]) == ("Alert", "Nightly is late")


async def test_a_target_that_refuses_is_tried_again_without_telling_its_url(hook: Hook) -> None:
    hook.answers = [(500, {})]
    with pytest.raises(TransientError, match="ops") as fault:
        await send({"ops": hook.url.replace("http://", "json://user:hunter2@")})
    assert "hunter2" not in str(fault.value)


async def test_a_target_that_is_slow_is_given_up() -> None:
    async with running_site() as site:
        with pytest.raises(TransientError, match=r"no answer within 0\.1 s"):
            await send({"ops": site.url.replace("http://", "json://") + "/slow/0.5"}, seconds=0.1)


async def test_a_target_that_is_unknown_or_not_understood_is_refused_for_good() -> None:
    with pytest.raises(PermanentError, match="NOTIFY_APPRISE_URLS"):
        await send({}, "ops")
    with pytest.raises(PermanentError, match="ops"):
        await send({"ops": "nonsense://secret"})
