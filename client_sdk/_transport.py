"""Our own HTTP client: bytes in, status and bytes out.

httpx is imported by the first request: importing it takes as long as all the rest of the SDK, and
who is answered on a channel never needs it.
"""

import ssl
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING

from client_sdk._credentials import tls_of
from client_sdk.errors import ServiceUnavailable
from client_sdk.options import LimiterOptions

if TYPE_CHECKING:
    import httpx

_MSGPACK = "application/msgpack"


def _settings(
    url: str, api_key: str | None, options: LimiterOptions, tls: ssl.SSLContext | None
) -> dict[str, object]:
    import httpx  # noqa: PLC0415  # lazy

    headers = {"content-type": _MSGPACK, "accept": _MSGPACK}
    # Where no TLS is spoken nobody is verified: to read the authorities takes longer than a call.
    verify = tls or not url.lower().startswith("http:")
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
        inner: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        self._url, self._api_key, self._options, self._inner = url, api_key, options, inner
        self._tls = tls_of(options)  # files that cannot be read are the caller's to know of, now
        self._made: httpx.AsyncClient | None = None
        self._closed = False

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        import httpx  # noqa: PLC0415  # lazy

        try:
            response = await self._client().post(path, content=body, headers=headers)
        except httpx.TransportError as error:
            raise _unavailable(error, self._url) from error
        return response.status_code, response.content

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of the answer, in JSON."""
        import httpx  # noqa: PLC0415  # lazy

        try:
            response = await self._client().get(path, headers={"accept": "application/json"})
        except httpx.TransportError as error:
            raise _unavailable(error, self._url) from error
        return response.status_code, response.content

    async def aclose(self) -> None:
        """Close every connection."""
        self._closed = True
        if self._made is not None:
            await self._made.aclose()

    def _client(self) -> "httpx.AsyncClient":
        if self._closed:
            raise RuntimeError("the limiter is closed")
        if self._made is None:
            import httpx  # noqa: PLC0415  # lazy

            settings = _settings(self._url, self._api_key, self._options, self._tls)
            self._made = httpx.AsyncClient(transport=self._inner, **settings)  # type: ignore[arg-type]  # a dict of keywords
        return self._made


class SyncTransport:
    """Posts to the service. Raises ServiceUnavailable when it cannot be reached."""

    def __init__(
        self,
        url: str,
        api_key: str | None,
        options: LimiterOptions,
        inner: "httpx.BaseTransport | None" = None,
    ) -> None:
        self._url, self._api_key, self._options, self._inner = url, api_key, options, inner
        self._tls = tls_of(options)  # files that cannot be read are the caller's to know of, now
        self._made: httpx.Client | None = None
        self._closed = False
        self._turn = Lock()

    def post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        import httpx  # noqa: PLC0415  # lazy

        try:
            response = self._client().post(path, content=body, headers=headers)
        except httpx.TransportError as error:
            raise _unavailable(error, self._url) from error
        return response.status_code, response.content

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of the answer, in JSON."""
        import httpx  # noqa: PLC0415  # lazy

        try:
            response = self._client().get(path, headers={"accept": "application/json"})
        except httpx.TransportError as error:
            raise _unavailable(error, self._url) from error
        return response.status_code, response.content

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        if self._made is not None:
            self._made.close()

    def _client(self) -> "httpx.Client":
        if self._closed:
            raise RuntimeError("the limiter is closed")
        with self._turn:
            if self._made is None:
                import httpx  # noqa: PLC0415  # lazy

                settings = _settings(self._url, self._api_key, self._options, self._tls)
                self._made = httpx.Client(transport=self._inner, **settings)  # type: ignore[arg-type]  # a dict of keywords
            return self._made
