"""The tasks of notifications that POST /api/tasks/{name} sends."""

from backend.config import Config
from backend.core.errors import AppError
from backend.notifications.asking import worded
from backend.notifications.schemas import EmailWish, NotificationWish
from backend.queues.offers import Offer, offer


def _check(wish: NotificationWish, _config: Config) -> None:
    try:
        worded(wish)
    except AppError as fault:
        raise ValueError(fault.detail) from fault


def offer_notifications() -> None:
    offer(Offer("send_notification", "Tell a user something.", NotificationWish, _check))
    offer(Offer("send_email", "Send an e-mail to an address.", EmailWish))
