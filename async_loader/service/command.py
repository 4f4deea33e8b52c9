"""The command `serve`: one process, from its settings to its last answer."""

from __future__ import annotations

import logging
import os
import socket
import ssl

from ..concurrency.stop import Stop
from ..errors import ConfigurationError, MissingExtraError
from ..runtime.outputs import DONE, complain
from ..runtime.process import run_until_stopped
from ..runtime.streams import stderr, stdout
from ..settings.option_group import ENV_PREFIX
from ..settings.serve import ServeSettings
from ..workers import end_tracker

_PACKAGES = ("fastapi", "uvicorn", "alembic", "prometheus_client", "psutil", "platformdirs")


def run_serve_command(settings: ServeSettings) -> int:
    """Serve until a signal; return the exit code."""
    for package in _PACKAGES:
        MissingExtraError.unless_installed(package, "serve", "service")
    if settings.new_token is not None:
        return _new_token(settings.new_token)
    if settings.config_dir is None:
        raise ConfigurationError("serve needs the folder of the scenarios: --config-dir DIR")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=stderr()
    )
    for chatty in ("alembic", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    _forget_environment()
    # A run's collector looks seldom: right for minutes, not for months.
    run_until_stopped(lambda stop: _serve(settings, stop), loop="auto", stock_collector=True)
    end_tracker()
    return DONE


def _forget_environment() -> None:
    """Leave the settings, all of which are read, to no process: runs execute others' code."""
    for name in [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]:
        del os.environ[name]


async def _serve(settings: ServeSettings, stop: Stop) -> None:
    from .server import serve  # noqa: PLC0415  as above
    from .state import lifespan  # noqa: PLC0415  needs the extra

    stop.heeded = True  # a signal drains
    _check_certificate(settings)
    with _listening(settings) as listener:
        async with lifespan(settings) as service:
            host, port = listener.getsockname()[:2]
            scheme = "https" if settings.tls_certificate else "http"
            shown = f"[{host}]" if ":" in host else host
            complain(f"listening on {scheme}://{shown}:{port}", DONE)
            await serve(service, listener, stop)


def _listening(settings: ServeSettings) -> socket.socket:
    """Return a socket that listens, so that an address in use is said before anything is done."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=256)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {settings.host}:{settings.port}: "
            f"{str(error.strerror).partition(' (while')[0]}; see --host and --port"
        ) from None


def _check_certificate(settings: ServeSettings) -> None:
    """Read it once, so that a wrong one is said before anything is done."""
    if settings.tls_certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_certificate, settings.tls_key
        )
    except OSError as error:
        raise ConfigurationError(f"--tls-certificate, --tls-key: {error.strerror}") from None


def _new_token(name: str) -> int:
    """Print a token, once: what is kept of it is its hash."""
    from .tokens import hashed, new_token  # noqa: PLC0415  with the others

    token = new_token()
    stdout().write(f"{token}\n")
    stdout().flush()
    return complain(f"the service knows it by --token {name}={hashed(token)}", DONE)
