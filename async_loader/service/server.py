"""uvicorn, with a guard before the application and a drain at its end."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from ..concurrency.rates import parse_rate
from ..concurrency.stop import Stop
from ..concurrency.tasks import cancel, first_of
from ..settings.serve import LOOPBACK, ServeSettings
from .app import make_app
from .connections import Connections
from .entrance import Entrance, room_for
from .forwarded import Forwarded, Networks
from .guard import Guard
from .head import Head
from .protocol import GuardedProtocol
from .state import ServiceState

log = logging.getLogger("async_loader.service")

# For answers that are under way when everything else has ended.
_CLOSING = 5


class _Server(uvicorn.Server):
    """A server that leaves the signals to us."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def serve(service: ServiceState, listener: socket.socket, stop: Stop) -> None:
    """Answer until a stop is requested; then let the runs end, and go."""
    settings = service.settings
    port = listener.getsockname()[1]
    guarded = Guard(
        Head(make_app(service)),
        hosts=allowed_hosts(settings, port),
        tokens=service.tokens,
        rate=parse_rate(settings.request_rate),
        refusals=service.refusals,
    )
    config = uvicorn.Config(
        Forwarded(guarded, settings.trusted_proxy),
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,  # who started and stopped what is in the audit
        server_header=False,
        proxy_headers=False,  # ours know more of them
        timeout_graceful_shutdown=_CLOSING,
    )
    config.load()
    server = _Server(config)
    # A proxy's address is that of all behind it, who have limits of their own.
    connections = Connections(room_for(settings.max_connections), Networks(settings.trusted_proxy))
    entrance = Entrance(
        listener,
        connections,
        _tls(settings),
        lambda: GuardedProtocol(config, server.server_state, {}),
    )
    serving = asyncio.create_task(server.serve([]))
    entering = asyncio.create_task(entrance.keep())
    await first_of(serving, stop.requested)
    if not serving.done():
        await _drain(service, stop)
        server.should_exit = True
    await cancel(entering)
    await serving


def _tls(settings: ServeSettings) -> ssl.SSLContext | None:
    if settings.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _drain(service: ServiceState, stop: Stop) -> None:
    for number in service.runs.running:
        log.info("run %d is to end, and is waited for: once more, and it is not", number)
    draining = asyncio.create_task(service.runs.drain())
    hurrying = asyncio.create_task(stop.at_once.wait())
    await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        service.runs.hurry()
        await draining
    await cancel(hurrying)


def allowed_hosts(settings: ServeSettings, port: int) -> set[str]:
    """Return what a request's Host may be: our address by its names, and what is configured."""
    names = {settings.host, *(LOOPBACK if settings.is_local else ())}
    hosts = set(settings.allowed_host)
    for name in names:
        hosts.add(f"[{name}]:{port}" if ":" in name else f"{name}:{port}")
    return hosts | {f"{host}:{port}" for host in settings.allowed_host if ":" not in host}
