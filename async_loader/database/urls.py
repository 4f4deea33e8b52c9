"""URLs of databases: what of them is understood, and what of them is shown."""

from __future__ import annotations

import re

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..errors import ConfigurationError, MissingExtraError
from .url_parameters import SECRETS, checked

_POSTGRESQL = ("postgresql", "postgres", "postgresql+asyncpg")
_SQLITE = ("sqlite", "sqlite+aiosqlite")
# libpq's form for several hosts: scheme and user, hosts, database, parameters.
_SEVERAL_HOSTS = re.compile(r"([\w+]+://(?:[^@]*@)?)([^@/?,]*,[^@/?]*)(/[^@?]*)?(\?.*)?", re.DOTALL)


def parse_url(url: str) -> URL:
    """
    Return a URL for asyncpg, from `postgresql://` or `postgresql+asyncpg://`, or for
    aiosqlite, from `sqlite:///file.db` or `sqlite+aiosqlite:///file.db`.

    libpq's parameters and several hosts are understood. Raises `ConfigurationError`, which never
    quotes the URL: it may hold a password.
    """
    try:
        parsed = make_url(_with_hosts_apart(url.strip()))
    except (ArgumentError, ValueError):
        raise _no_url() from None
    if parsed.drivername in _SQLITE:
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError("SQLite needs a file: sqlite+aiosqlite:///file.db")
        MissingExtraError.unless_installed("aiosqlite", "SQLite", "sqlite")
        return parsed.set(drivername="sqlite+aiosqlite")
    if parsed.drivername not in _POSTGRESQL:
        raise ConfigurationError(
            f"`database_url` has the scheme {parsed.drivername!r}; "
            "use postgresql:// (or postgresql+asyncpg://), or sqlite+aiosqlite:///file.db"
        )
    if any("@" in part for part in (parsed.host or "", parsed.database or "", *parsed.query)):
        raise _no_url()  # the rest of a password, with a character that ends it
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise ConfigurationError("`database_url`: the port is a number from 1 to 65535")
    return parsed.set(drivername="postgresql+asyncpg", query=checked(parsed.query))


def _no_url() -> ConfigurationError:
    return ConfigurationError(
        "`database_url` is not a URL; it looks like postgresql://user@host:5432/database "
        "(special characters in a password are percent-encoded)"
    )


def _with_hosts_apart(url: str) -> str:
    """Return libpq's `//h1:5432,h2:5433/d` as SQLAlchemy has it: a parameter for each host."""
    match = _SEVERAL_HOSTS.fullmatch(url)
    if match is None:
        return url
    front, hosts, path, query = match.groups(default="")
    several = "&".join(f"host={host}" for host in hosts.split(","))
    return f"{front}{path or '/'}{query or '?'}{'&' if len(query) > 1 else ''}{several}"


def redact(url: URL) -> str:
    """Return the URL for people: no password, also not one among the parameters."""
    kept = {name: value for name, value in url.query.items() if name not in SECRETS}
    return url.set(query=kept).render_as_string(hide_password=True)


def place(url: URL) -> str:
    """Return host and port, the folder of the socket, or the file, for messages."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    host = url.host or url.query.get("host") or "localhost"
    if isinstance(host, tuple):
        return ", ".join(host)
    return host if host.startswith("/") else f"{host}:{url.port or url.query.get('port', 5432)}"
