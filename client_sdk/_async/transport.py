"""`limiter.transport`: an HTTP transport, or a client, whose calls of models are limited."""

from typing import TYPE_CHECKING, Any

from client_sdk._async.gate import Gate, Resource
from client_sdk._family import family_of

if TYPE_CHECKING:
    from client_sdk._async.limiter import Limiter

_classes: dict[str, Any] = {}


def limited(
    limiter: "Limiter",
    inner: Any,
    *,
    pool: str | None,
    resource: Resource,
    tenant: str | None,
    max_wait: float | None,
) -> Any:
    """*inner* under *limiter*. A client is changed in place, and handed back."""
    client = family_of(inner, "AsyncClient")
    family = client or family_of(inner, "AsyncBaseTransport")
    if family is None:
        raise TypeError(
            f"{type(inner).__name__} is no AsyncBaseTransport and no AsyncClient of httpx or httpx2"
        )
    gate = Gate(limiter, family, pool=pool, resource=resource, tenant=tenant, max_wait=max_wait)
    if client is None:
        return _class(family)(gate, inner)
    # Transports of a client that reach its proxies stand beside its own one.
    inner._transport = _class(family)(gate, inner._transport)  # noqa: SLF001  # no public way in
    inner._mounts = {  # noqa: SLF001  # as above
        pattern: None if mount is None else _class(family)(gate, mount)
        for pattern, mount in inner._mounts.items()  # noqa: SLF001  # as above
    }
    return inner


def _class(family: Any) -> Any:
    """The transport class of *family*."""
    found = _classes.get(family.__name__)
    if found is None:

        class LimitedTransport(family.AsyncBaseTransport):  # type: ignore[misc]  # of either family
            """Sends by another transport, under a limiter."""

            def __init__(self, gate: Gate, inner: Any) -> None:
                self._gate, self._inner = gate, inner

            async def __aenter__(self) -> Any:
                await self._inner.__aenter__()
                return self

            async def __aexit__(self, *error: object) -> None:
                await self._inner.__aexit__(*error)

            async def handle_async_request(self, request: Any) -> Any:
                return await self._gate.handle(request, self._inner.handle_async_request)

            async def aclose(self) -> None:
                await self._inner.aclose()

        found = _classes[family.__name__] = LimitedTransport
    return found
