"""
Who may ask, and for how much: what every request passes before the application sees it.

- `Host` must be one of ours, so that a name which an attacker points here (DNS rebinding) is
  not, but for a supervisor's probes; an `Origin` must be our own, and the API answers nothing
  that another site's page asks.
- Where there are tokens, the API wants one: `Authorization: Bearer`, or the cookie of a session.
- What changes anything is not a GET, and has the token, or proof that a page of ours asked: the
  header `X-Async-Loader`, which no other site's page can send without a preflight (that we
  refuse, having no CORS), and with it an `Origin` or `Sec-Fetch-Site`, where sent, of ours.
- A body is at most 64 KiB and comes within seconds; a client makes so many requests a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .buckets import Buckets
from .problems import Problem, answer
from .refusals import Refusals
from .tokens import Tokens

COOKIE = "async_loader_session"
PROOF = "X-Async-Loader"
MOST_BYTES = 64 * 1024
BODY_SECONDS = 10.0
LOCAL = "local"

# Pages have only our own files; what they ask for is ours, too. Every answer says so.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_SAFE = ("GET", "HEAD", "OPTIONS")
# What is behind a token, where there are tokens. Pages are files without any data.
_GUARDED = ("/api/", "/metrics")
_LOGIN = "/api/session"
# A supervisor asks by an address that nobody can name beforehand; they tell nothing worth a name.
PROBES = ("/healthz", "/readyz")


class Guard:
    """An application behind all of that; it finds who asks in `request.state.who`."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str],
        tokens: Tokens,
        rate: float,
        refusals: Refusals,
    ) -> None:
        self._app = app
        self._refusals = refusals
        self._hosts = {host.lower() for host in hosts}
        self._tokens = tokens
        self._buckets = Buckets(rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return
        sending = _with_headers(send, scope["path"])
        try:
            self._admit(scope)
            receive = await _whole_body(scope, receive)
        except Problem as problem:
            refusal = answer(problem.status, problem.detail, headers=problem.headers)
            await refusal(scope, receive, sending)
            return
        await self._app(scope, receive, sending)

    def _admit(self, scope: Scope) -> None:
        """Note who asks; raises `Problem`."""
        headers = Headers(scope=scope)
        client = scope["client"][0] if scope.get("client") else LOCAL
        if not self._buckets.take(client):
            raise Problem(429, "too many requests", headers={"Retry-After": "1"})
        is_ours = headers.get("host", "").lower() in self._hosts
        if not is_ours and scope["path"] not in PROBES:
            raise Problem(421, "this is not a name of this service: see --allowed-host")
        guarded = scope["path"].startswith(_GUARDED)
        if self._is_foreign(headers, scope["method"]):
            raise Problem(403, "another site's page may not ask this service")
        token, who = self._who(headers, client)
        scope.setdefault("state", {})["who"] = who
        if who is None and guarded and not scope["path"].startswith(_LOGIN):
            scheme = {"WWW-Authenticate": 'Bearer realm="async_loader"'}
            raise Problem(401, "this needs a token", headers=scheme)
        if scope["method"] not in _SAFE and token is None and PROOF not in headers:
            raise Problem(403, f"a change needs a token, or the header {PROOF}: 1")

    def _is_foreign(self, headers: Headers, method: str) -> bool:
        """Return whether a browser says that another site's page asks, unless by a link to us."""
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] not in self._hosts:
            return True
        if headers.get("sec-fetch-site", "none") in ("same-origin", "none"):
            return False
        return method != "GET" or headers.get("sec-fetch-mode") != "navigate"

    def _who(self, headers: Headers, client: str) -> tuple[str | None, str | None]:
        """Return the owner of the request's token, and who asks; None for nobody we know."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            owner = self._tokens.owner_of(token.strip())
            if owner is None:
                self._refusals.note(client)
                scheme = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
                raise Problem(401, "this token is not known", headers=scheme)
            return owner, owner
        secret = session_cookie(headers)
        owner = self._tokens.session_of(secret) if secret else None
        if owner is None and not self._tokens.are_needed:
            owner = LOCAL
        return None, owner


def session_cookie(headers: Headers) -> str | None:
    """Return the secret of the session that a browser is in."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel else None


def _with_headers(send: Send, path: str) -> Send:
    """Return `send`, which adds what every answer says to a browser."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if path.startswith(_GUARDED):
                headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending


async def _whole_body(scope: Scope, receive: Receive) -> Receive:
    """Read a body to its end, and return what delivers it; raises `Problem`."""
    headers = Headers(scope=scope)
    length = headers.get("content-length", "0")
    if "transfer-encoding" not in headers and length in ("", "0"):
        return receive
    if length.isdigit() and int(length) > MOST_BYTES:
        raise Problem(413, f"a body has at most {MOST_BYTES} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > MOST_BYTES:
                    raise Problem(413, f"a body has at most {MOST_BYTES} bytes")
                more = message["type"] == "http.request" and message.get("more_body", False)
    except TimeoutError:
        raise Problem(408, "the body did not come", headers={"Connection": "close"}) from None
    pending: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def received() -> Message:
        return pending.pop() if pending else await receive()

    return received
