"""The workers' way to the API: HTTP with the service key, errors sorted into transient and permanent."""

from typing import Any

import httpx

from backend.core.errors import PermanentError, TransientError

_RETRY_STATUSES = {408, 425, 429, 500, 502, 503, 504}


class Refused(PermanentError):
    """The API said no for good (4xx): `code` and `problem` are those of its problem document."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status} {problem.get('code', 'error')}: {problem.get('detail', '')}")
        self.status = status
        self.code: str = problem.get("code", "error")
        self.problem = problem


class DataPlane:
    """An HTTP client of the API, with one connection pool."""

    def __init__(self, base_url: str, service_key: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {service_key}"},
            timeout=httpx.Timeout(30.0, connect=5.0),
            # Given up before uvicorn's keep-alive of 5 s, so that no request meets a connection that is being closed.
            limits=httpx.Limits(keepalive_expiry=2.0),
            # The API is the agency's own; a proxy of the environment must not see customers' data.
            trust_env=False,
        )

    async def get(self, path: str, **query: str | int | bool) -> Any:
        return await self._send("GET", path, params=query)

    async def post(self, path: str, *, json: object = None, key: str | None = None) -> Any:
        """POST; `key` becomes the Idempotency-Key. Returns the decoded answer.

        Raises TransientError (no connection, 5xx, 429 with its Retry-After) or Refused (other 4xx).
        """
        return await self._send("POST", path, json=json, headers={"Idempotency-Key": key} if key else None)

    async def _send(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = await self._client.request(method, path, **options)
        except httpx.TransportError as fault:
            raise TransientError(f"API: {method} {path}: {fault or type(fault).__name__}") from fault
        if answer.status_code in _RETRY_STATUSES:
            raise TransientError(f"API: {method} {path}: {answer.status_code}", after=_retry_after(answer))
        if answer.is_client_error:
            raise Refused(answer.status_code, _problem(answer))
        return answer.json() if answer.content else None

    async def close(self) -> None:
        await self._client.aclose()


def _retry_after(answer: httpx.Response) -> float | None:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {"detail": answer.text[:200]}
    return body if isinstance(body, dict) else {"detail": str(body)[:200]}
