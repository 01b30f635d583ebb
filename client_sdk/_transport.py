"""Our own HTTP client: the only import of httpx. Bytes in, status and bytes out."""

from collections.abc import Mapping

import httpx

from client_sdk._credentials import tls_of
from client_sdk.errors import ServiceUnavailable
from client_sdk.options import LimiterOptions

_MSGPACK = "application/msgpack"


def _settings(url: str, api_key: str | None, options: LimiterOptions) -> dict[str, object]:
    headers = {"content-type": _MSGPACK, "accept": _MSGPACK}
    # Where no TLS is spoken nobody is verified: to read the authorities takes longer than a call.
    verify = tls_of(options) or not url.lower().startswith("http:")
    if api_key is not None:
        headers["authorization"] = f"Bearer {api_key}"
    return {
        "base_url": url,
        "headers": headers,
        "verify": verify,
        "timeout": httpx.Timeout(options.timeout, connect=options.connect_timeout),
        # httpx re-checks every connection on each request: many of them cost milliseconds.
        "limits": httpx.Limits(
            max_connections=options.connections, max_keepalive_connections=options.connections
        ),
        "trust_env": False,  # the service is ours: no proxy between
    }


def _unavailable(error: Exception, url: str) -> ServiceUnavailable:
    reason = str(error) or type(error).__name__
    return ServiceUnavailable(f"the service at {url} cannot be reached: {reason}")


class AsyncTransport:
    """Posts to the service. Raises ServiceUnavailable when it cannot be reached."""

    def __init__(
        self,
        url: str,
        api_key: str | None,
        options: LimiterOptions,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url
        settings = _settings(url, api_key, options)
        self._client = httpx.AsyncClient(transport=inner, **settings)  # type: ignore[arg-type]  # a dict of keywords

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        try:
            response = await self._client.post(path, content=body, headers=headers)
        except httpx.TransportError as error:
            raise _unavailable(error, self._url) from error
        return response.status_code, response.content

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of the answer, in JSON."""
        try:
            response = await self._client.get(path, headers={"accept": "application/json"})
        except httpx.TransportError as error:
            raise _unavailable(error, self._url) from error
        return response.status_code, response.content

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()


class SyncTransport:
    """Posts to the service. Raises ServiceUnavailable when it cannot be reached."""

    def __init__(
        self,
        url: str,
        api_key: str | None,
        options: LimiterOptions,
        inner: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = url
        settings = _settings(url, api_key, options)
        self._client = httpx.Client(transport=inner, **settings)  # type: ignore[arg-type]  # a dict of keywords

    def post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        try:
            response = self._client.post(path, content=body, headers=headers)
        except httpx.TransportError as error:
            raise _unavailable(error, self._url) from error
        return response.status_code, response.content

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of the answer, in JSON."""
        try:
            response = self._client.get(path, headers={"accept": "application/json"})
        except httpx.TransportError as error:
            raise _unavailable(error, self._url) from error
        return response.status_code, response.content

    def close(self) -> None:
        """Close every connection."""
        self._client.close()
