"""A mail server, a receiver of webhooks, and a product that uses both."""

from collections.abc import AsyncIterator

import pytest

from tests.fixtures.product import Product, Start
from tests.notifications.mail import Mailbox, running_mailbox
from tests.notifications.receiver import Hook, running_hook
from tests.notifications.test_webhook import SECRET


@pytest.fixture
async def box() -> AsyncIterator[Mailbox]:
    async with running_mailbox() as running:
        yield running


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    async with running_hook() as running:
        yield running


@pytest.fixture
async def mailing(start: Start, box: Mailbox, hook: Hook) -> Product:
    """A Beatline that sends mail to `box`, alerts to `hook`, webhooks to private addresses, too."""
    return await start(
        SMTP_HOST="127.0.0.1",
        SMTP_PORT=str(box.port),
        SMTP_TLS="off",
        NOTIFY_FROM="Beatline <beatline@example.net>",
        NOTIFY_WEBHOOK_SECRET=SECRET,
        NOTIFY_WEBHOOK_ALLOW_PRIVATE="on",
        NOTIFY_BULK_PER_SECOND="10000",
        NOTIFY_MAX_TRIES="3",
        NOTIFY_ALERTS="email:oncall@example.net",
        BEATLINE_ALERT_WEBHOOK_URL=hook.url,
    )
