"""An HTTP transport for URLs that people chose: it connects to addresses that may be called, and to no others."""

from collections.abc import AsyncIterator, Iterable

import httpcore
import httpx

from backend.core.addresses import Resolver

# Made once, since it takes 20 ms.
_TLS = httpx.create_ssl_context()


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Resolves a name once, checks what it found and connects to that very address; TLS still checks the name."""

    def __init__(self, resolve: Resolver) -> None:
        self._inner = httpcore.AnyIOBackend()
        self._resolve = resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        address = await self._resolve(host, port)
        return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Body(httpx.AsyncByteStream):
    def __init__(self, stream: httpcore.Response) -> None:
        self._response = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()


class CheckedTransport(httpx.AsyncBaseTransport):
    """httpx's own transport takes no network backend; this one does no more than hand requests to a pool that has one."""

    def __init__(self, resolve: Resolver) -> None:
        self._pool = httpcore.AsyncConnectionPool(ssl_context=_TLS, network_backend=_CheckedNetwork(resolve))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not isinstance(request.stream, httpx.AsyncByteStream):
            raise TypeError("an asynchronous client sends asynchronous streams")
        response = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions
        )

    async def aclose(self) -> None:
        await self._pool.aclose()
