"""The channels that are set up. Workers alone import this: the API's image has none of the vendors' libraries."""

from backend.config import Config
from backend.notifications.channels.apprise import AppriseChannel
from backend.notifications.channels.base import Channels, Opener
from backend.notifications.channels.email import EmailChannel
from backend.notifications.channels.webhook import WebhookChannel
from backend.notifications.states import Channel


def open_channels(config: Config) -> Channels:
    """Each channel of the configuration; those that are not set up are missing."""
    found: dict[Channel, Opener] = {}
    if config.smtp is not None:
        found[Channel.EMAIL] = EmailChannel(config.smtp, config.notify.sender)
    if config.notify.webhook_secret or config.alert_webhook_url:
        found[Channel.WEBHOOK] = WebhookChannel(config)
    if config.notify.apprise:
        found[Channel.APPRISE] = AppriseChannel(config.notify.apprise)
    return found
