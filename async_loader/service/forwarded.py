"""What a proxy says of the client that it asks for: X-Forwarded-For, -Proto, -Host, -Prefix."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+/?")
# By how many proxies a request can have come.
_MOST_HOPS = 20


class Forwarded:
    """
    An application that sees the client, and the address it used, as a trusted proxy tells them.

    Who is no trusted proxy is heeded in two things, which change nothing but the answer to
    itself: by which scheme it came (a cookie is then Secure) and below which path.
    """

    def __init__(self, app: ASGIApp, trusted: Iterable[str]) -> None:
        self._app = app
        self._trusted = Networks(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with what is known of it."""
        if scope["type"] == "http":
            scope = {**scope, "state": dict(scope.get("state", {}))}
            self._take(scope)
        await self._app(scope, receive, send)

    def _take(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if _last(headers, "x-forwarded-proto").lower() == "https":
            scope["scheme"] = "https"
        prefix = _last(headers, "x-forwarded-prefix")
        scope["state"]["prefix"] = prefix.rstrip("/") if _PREFIX.fullmatch(prefix) else ""
        client = scope.get("client")
        if client is None or client[0] not in self._trusted:
            return
        scope["client"] = (self._client(client[0], headers), 0)
        if host := _last(headers, "x-forwarded-host"):
            changed = MutableHeaders(raw=list(scope["headers"]))
            changed["host"] = host
            scope["headers"] = changed.raw

    def _client(self, nearest: str, headers: Headers) -> str:
        """Return the last address that is no proxy of ours: what is left of it may be lies."""
        way = ",".join(headers.getlist("x-forwarded-for")).split(",")[-_MOST_HOPS:]
        client = nearest
        for hop in reversed([hop.strip() for hop in way]):
            try:
                client = str(ip_address(hop))
            except ValueError:
                break
            if client not in self._trusted:
                break
        return client


class Networks:
    """Addresses, as networks have them: `address in networks`."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ip_network(network, strict=False) for network in networks]

    def __contains__(self, address: object) -> bool:
        if not self._networks:
            return False
        try:
            found = ip_address(str(address))
        except ValueError:
            return False
        return any(found in network for network in self._networks)


def _last(headers: Headers, name: str) -> str:
    """Return what the nearest proxy said: those before it are told further left."""
    return ",".join(headers.getlist(name)).rpartition(",")[2].strip()
