"""Our own HTTP client: bytes in, status and bytes out.

httpx is imported by the first request: importing it takes as long as all the rest of the SDK, and
who is answered on a channel never needs it. What is posted goes past the client of httpx to its
transport: redirects, cookies and the like, which cost as much as the rest, mean nothing here.
"""

import ssl
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from client_sdk._credentials import tls_of
from client_sdk.errors import LimiterClosed, ServiceUnavailable
from client_sdk.options import LimiterOptions

if TYPE_CHECKING:
    import httpx

_MSGPACK = "application/msgpack"


def _settings(url: str, api_key: str | None, options: LimiterOptions) -> dict[str, Any]:
    import httpx  # noqa: PLC0415  # lazy

    headers = {"content-type": _MSGPACK, "accept": _MSGPACK}
    if api_key is not None:
        headers["authorization"] = f"Bearer {api_key}"
    return {
        "base_url": url,
        "headers": headers,
        "timeout": httpx.Timeout(options.timeout, connect=options.connect_timeout),
        "trust_env": False,  # the service is ours: no proxy between
    }


def _connections(url: str, options: LimiterOptions, tls: ssl.SSLContext | None) -> dict[str, Any]:
    import httpx  # noqa: PLC0415  # lazy

    most = options.connections
    return {
        # Without TLS nobody is verified: to read the authorities takes longer than a call.
        "verify": tls or not url.lower().startswith("http:"),
        # httpx re-checks every connection on each request: many of them cost milliseconds.
        "limits": httpx.Limits(max_connections=most, max_keepalive_connections=most),
        "trust_env": False,
    }


class _Posts:
    """Requests that differ in path and body alone, as a client of httpx would make them."""

    def __init__(self, client: "httpx.Client | httpx.AsyncClient") -> None:
        self._client = client
        self._made: dict[str, httpx.Request] = {}
        self.direct = not client.base_url.userinfo  # which httpx makes a header of

    def request(self, path: str, body: bytes, headers: Mapping[str, str] | None) -> "httpx.Request":
        """A request with *body*, and *headers* beside the usual ones."""
        import httpx  # noqa: PLC0415  # lazy

        like = self._made.get(path)
        if like is None:
            like = self._made[path] = self._client.build_request("POST", path)
            del like.headers["content-length"]
        usual = like.headers if not headers else httpx.Headers({**like.headers, **headers})
        # Of *content* httpx would work out its headers anew, which takes 20 us.
        request = httpx.Request(
            "POST",
            like.url,
            headers=[*usual.raw, (b"Content-Length", b"%d" % len(body))],
            stream=httpx.ByteStream(body),
            extensions=like.extensions,
        )
        request.read()  # transports of others look at it
        return request


def _is_plain(response: "httpx.Response") -> bool:
    """Whether a body is what its stream gives: to let httpx decode nothing takes 15 us."""
    return "content-encoding" not in response.headers


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
        self._url, self._api_key, self._options, self._transport = url, api_key, options, inner
        self._tls = tls_of(options)  # files that cannot be read are the caller's to know of, now
        self._made: httpx.AsyncClient | None = None
        self._posts: _Posts | None = None
        self._closed = False

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        import httpx  # noqa: PLC0415  # lazy

        client = self._client()
        assert self._posts is not None
        assert self._transport is not None
        try:
            if not self._posts.direct:
                response = await client.post(path, content=body, headers=headers)
                return response.status_code, response.content
            request = self._posts.request(path, body, headers)
            response = await self._transport.handle_async_request(request)
            try:
                if not _is_plain(response):
                    return response.status_code, await response.aread()
                stream = response.stream
                assert isinstance(stream, httpx.AsyncByteStream)
                return response.status_code, b"".join([part async for part in stream])
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise _unavailable(error, self._url) from error

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
            raise LimiterClosed("the limiter is closed")
        if self._made is None:
            import httpx  # noqa: PLC0415  # lazy

            if self._transport is None:
                connections = _connections(self._url, self._options, self._tls)
                self._transport = httpx.AsyncHTTPTransport(**connections)
            settings = _settings(self._url, self._api_key, self._options)
            self._made = httpx.AsyncClient(transport=self._transport, **settings)
            self._posts = _Posts(self._made)
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
        self._url, self._api_key, self._options, self._transport = url, api_key, options, inner
        self._tls = tls_of(options)  # files that cannot be read are the caller's to know of, now
        self._made: httpx.Client | None = None
        self._posts: _Posts | None = None
        self._closed = False
        self._turn = Lock()

    def post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        import httpx  # noqa: PLC0415  # lazy

        client = self._client()
        assert self._posts is not None
        assert self._transport is not None
        try:
            if not self._posts.direct:
                response = client.post(path, content=body, headers=headers)
                return response.status_code, response.content
            request = self._posts.request(path, body, headers)
            response = self._transport.handle_request(request)
            try:
                if not _is_plain(response):
                    return response.status_code, response.read()
                stream = response.stream
                assert isinstance(stream, httpx.SyncByteStream)
                return response.status_code, b"".join(stream)
            finally:
                response.close()
        except httpx.TransportError as error:
            raise _unavailable(error, self._url) from error

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
            raise LimiterClosed("the limiter is closed")
        with self._turn:
            if self._made is None:
                import httpx  # noqa: PLC0415  # lazy

                if self._transport is None:
                    connections = _connections(self._url, self._options, self._tls)
                    self._transport = httpx.HTTPTransport(**connections)
                settings = _settings(self._url, self._api_key, self._options)
                made = httpx.Client(transport=self._transport, **settings)
                self._posts = _Posts(made)
                self._made = made
            return self._made
