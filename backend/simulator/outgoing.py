"""Outgoing HTTP."""

from collections.abc import Mapping

import aiohttp


class Client:
    """The session is made at its first use, since it belongs to the running event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def post(
        self, url: str, *, data: bytes | str, headers: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> "aiohttp.client._RequestContextManager":
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session.post(url, data=data, headers=headers, timeout=timeout, allow_redirects=False)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
