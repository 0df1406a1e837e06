"""Requests that change something come from our own pages only."""

from urllib.parse import urlsplit

from fastapi import Request

from backend.core.errors import AppError

_SAFE = {"GET", "HEAD", "OPTIONS"}


class CrossSite(AppError):
    status, code = 403, "cross_site"


async def require_same_origin(request: Request) -> None:
    """CrossSite (403) for a POST that another site may have made a signed-in browser send.

    The browser sends the password of these pages by itself, so the password does not show who asks. `Sec-Fetch-Site` does, and a
    page cannot set it; browsers leave it out on plain HTTP, where `Origin` names the host instead. A request with neither is
    refused.
    """
    if request.method in _SAFE:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site != "same-origin" if site is not None else not _names_us(request):
        raise CrossSite(
            "this request does not come from a page of this host; open the page here and try again."
            " A proxy in front must pass Host on as it is"
        )


def _names_us(request: Request) -> bool:
    # The host alone: behind a proxy that ends TLS the scheme differs.
    host = urlsplit(request.headers.get("Origin", "")).netloc
    return host != "" and host == request.headers.get("Host")
