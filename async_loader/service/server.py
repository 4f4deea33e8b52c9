"""uvicorn, with a guard before the application and a drain at its end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from ..limits import Stop
from ..schedules import parse_rate
from ..serve_settings import LOOPBACK, ServeSettings
from ..tasks import cancel, first_of
from .app import make_app
from .desk import Desk
from .guard import Guard
from .protocol import GuardedProtocol

# For answers that are under way when everything else has ended.
_CLOSING = 5


class _Server(uvicorn.Server):
    """A server that leaves the signals to us."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def serve(desk: Desk, listener: socket.socket, stop: Stop) -> None:
    """Answer until a stop is requested; then let the runs end, and go."""
    settings = desk.settings
    port = listener.getsockname()[1]
    guarded = Guard(
        make_app(desk),
        hosts=allowed_hosts(settings, port),
        tokens=desk.tokens,
        rate=parse_rate(settings.request_rate),
        https=settings.tls_certificate is not None,
    )
    server = _Server(
        uvicorn.Config(
            guarded,
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,  # who started and stopped what is in the audit
            server_header=False,
            proxy_headers=False,
            limit_concurrency=settings.max_connections,
            timeout_graceful_shutdown=_CLOSING,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
    )
    serving = asyncio.create_task(server.serve([listener]))
    await first_of(serving, stop.requested)
    if not serving.done():
        await _drain(desk, stop)
        server.should_exit = True
    await serving


async def _drain(desk: Desk, stop: Stop) -> None:
    draining = asyncio.create_task(desk.runs.drain())
    hurrying = asyncio.create_task(stop.at_once.wait())
    await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        desk.runs.hurry()
        await draining
    await cancel(hurrying)


def allowed_hosts(settings: ServeSettings, port: int) -> set[str]:
    """Return what a request's Host may be: our address by its names, and what is configured."""
    names = {settings.host, *settings.allowed_host}
    if settings.is_local:
        names |= set(LOOPBACK)
    default = 443 if settings.tls_certificate else 80
    hosts = set()
    for name in names:
        bracketed = f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name
        has_port = not bracketed.endswith("]") and ":" in bracketed
        hosts.add(bracketed if has_port else f"{bracketed}:{port}")
        if port == default and not has_port:
            hosts.add(bracketed)
    return hosts
