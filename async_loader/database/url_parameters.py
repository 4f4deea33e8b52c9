"""
The parameters of a PostgreSQL URL: libpq's words and asyncpg's own, checked before a connection.

asyncpg takes what it does not know for a setting of the server, compares numbers with text, and
finds a missing certificate when it connects. So each parameter has a check here, and an error
names it and what it may be.
"""

from __future__ import annotations

import difflib
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ..errors import ConfigurationError

Query = Mapping[str, str | Sequence[str]]

SECRETS = ("password", "passfile", "sslpassword")
"""What of the parameters is shown to nobody."""

SQLALCHEMYS = frozenset(("host", "port", "user", "password", "database"))
"""What SQLAlchemy takes from a URL by itself."""

_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_VERIFYING = ("verify-ca", "verify-full")
_TARGETS = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
_YES, _NO = ("true", "on", "yes", "1"), ("false", "off", "no", "0")
_SYSTEM = "system"  # libpq's word for the certificates that the machine trusts


def _text(value: str) -> str:
    if not value:
        raise ValueError("is empty")
    return value


def _number(value: str) -> str:
    if not value.isdecimal():
        raise ValueError("is a whole number, 0 or more")
    return value


def _seconds(value: str) -> str:
    try:
        if 0 <= float(value) < float("inf"):
            return value
    except ValueError:
        pass
    raise ValueError("is a number of seconds, 0 or more")


def _port(value: str) -> str:
    for one in value.split(","):
        if not (one.isdecimal() and 0 < int(one) < 65536):
            raise ValueError("is a number from 1 to 65535")
    return value


def _yes_or_no(value: str) -> str:
    if value.lower() not in (*_YES, *_NO):
        raise ValueError("is true or false")
    return "true" if value.lower() in _YES else "false"


def _file(value: str) -> str:
    if not os.access(value, os.R_OK) or Path(value).is_dir():
        raise ValueError("names a file that is not there or cannot be read")
    return value


def _root(value: str) -> str:
    return value if value == _SYSTEM else _file(value)


def _one_of(*choices: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"is {' or '.join(choices)}" if len(choices) < 3 else
                             f"is one of {', '.join(choices)}")  # fmt: skip
        return value

    return check


# libpq's words for what asyncpg calls otherwise.
_LIBPQ_NAMES = {
    "sslmode": "ssl",
    "connect_timeout": "timeout",
    "dbname": "database",
    "fallback_application_name": "application_name",
}
_CHECKS: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(("user", "password", "passfile", "database", "krbsrvname"), _text),
    "application_name": _text,
    "host": _text,
    "port": _port,
    "gsslib": _one_of("gssapi", "sspi"),
    "timeout": _seconds,
    "command_timeout": _seconds,
    "ssl": _one_of(*_MODES),
    "sslnegotiation": _one_of("postgres", "direct"),
    "direct_tls": _yes_or_no,
    "sslrootcert": _root,
    **dict.fromkeys(("sslcert", "sslkey", "sslcrl"), _file),
    "sslpassword": _text,
    **dict.fromkeys(
        ("ssl_min_protocol_version", "ssl_max_protocol_version"), _one_of("TLSv1.2", "TLSv1.3")
    ),
    "target_session_attrs": _one_of(*_TARGETS),
    **dict.fromkeys(
        (
            "statement_cache_size",
            "max_cached_statement_lifetime",
            "max_cacheable_statement_size",
            "prepared_statement_cache_size",
        ),
        _number,
    ),
}
# What asks for nothing that asyncpg does not do anyway, with these values.
_NEUTRAL = {
    "gssencmode": ("disable", "prefer"),
    "channel_binding": ("disable", "prefer"),
    "load_balance_hosts": ("disable",),
    "sslsni": ("1",),
    "sslcompression": ("0",),
    "client_encoding": ("utf8", "UTF8", "utf-8", "UTF-8", "auto"),
}
_TLS = {
    "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslpassword",
    "ssl_min_protocol_version", "ssl_max_protocol_version",
}  # fmt: skip
_WHOLE = {
    "statement_cache_size", "max_cached_statement_lifetime", "max_cacheable_statement_size",
    "prepared_statement_cache_size",
}  # fmt: skip
# libpq has no other words for asyncpg's caches and for how long a statement may take.
_ASYNCPG_ALONE = _WHOLE | {"command_timeout"}
_ELSEWHERE = {
    "options": "give the role what it sets, by ALTER ROLE ... SET, or bring an engine of your own",
    "service": "write host, port, user and database into the URL",
    "servicefile": "write host, port, user and database into the URL",
}
_LIBPQ_ALONE = (
    "hostaddr", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
    "tcp_user_timeout", "replication", "require_auth", "sslkeylogfile", "sslcertmode", "sslcrldir",
    "requirepeer", "requiressl", "gssdelegation", "min_protocol_version", "max_protocol_version",
    "scram_client_key", "scram_server_key", *_NEUTRAL,
)  # fmt: skip


def checked(query: Query) -> dict[str, str | Sequence[str]]:
    """
    Return the parameters of a URL by asyncpg's names, without those that ask for nothing.

    Raises `ConfigurationError`, one line that names the parameter and quotes no value.
    """
    found: dict[str, str | Sequence[str]] = {}
    for written, value in query.items():
        name = _LIBPQ_NAMES.get(written, written)
        if value in _NEUTRAL.get(name, ()):
            continue
        if name not in _CHECKS:
            raise ConfigurationError(f"`database_url`: {_refusal(written)}")
        if name == "application_name" and written != name and name in query:
            continue  # libpq's fallback
        if not isinstance(value, str):
            if name == "host":
                found[name] = value
                continue
            raise ConfigurationError(f"`database_url`: {written} is given twice")
        try:
            found[name] = _CHECKS[name](value)
        except ValueError as error:
            raise ConfigurationError(f"`database_url`: {written} {error}") from None
    _check_tls(found)
    return _hosts_with_ports(found)


def _refusal(name: str) -> str:
    if name in _ELSEWHERE:
        return f"{name} is not taken: {_ELSEWHERE[name]}"
    if name in _NEUTRAL:
        return f"{name} can only be {' or '.join(_NEUTRAL[name][:2])}: asyncpg does nothing else"
    if name in _LIBPQ_ALONE:
        return f"{name} is libpq's, and asyncpg does nothing like it: leave it out"
    close = difflib.get_close_matches(name, [*_CHECKS, *_LIBPQ_NAMES], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"it has an unknown parameter {name!r}{hint}"


def _check_tls(query: dict[str, str | Sequence[str]]) -> None:
    """Refuse what could only fail, or silently verify less, when the first connection is made."""
    mode = query.get("ssl")
    root = query.get("sslrootcert")
    if mode is None and root == _SYSTEM:
        mode = query["ssl"] = "verify-full"  # as libpq has it
    if query.get("direct_tls") == "true" or query.get("sslnegotiation") == "direct":
        if mode not in ("require", *_VERIFYING):
            raise ConfigurationError(
                "`database_url`: direct TLS needs sslmode=require, verify-ca or verify-full"
            )
        query["direct_tls"] = "true"
    query.pop("sslnegotiation", None)
    if mode in _VERIFYING and not _root_certificate(root):
        raise ConfigurationError(
            f"`database_url`: sslmode={mode} needs a root certificate: name it with "
            "sslrootcert=FILE (or system), or have it in ~/.postgresql/root.crt"
        )
    if "sslkey" in query and "sslcert" not in query:
        raise ConfigurationError("`database_url`: sslkey needs an sslcert")
    _check_certificates(query)


def _root_certificate(named: object) -> bool:
    if named or os.environ.get("PGSSLROOTCERT"):
        return True
    try:
        return (Path.home() / ".postgresql" / "root.crt").is_file()
    except (RuntimeError, OSError):
        return False


def _check_certificates(query: Query) -> None:
    """Raise where a file does not hold the certificate or the key that it should."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    name = "sslrootcert"
    try:
        for name in ("sslrootcert", "sslcrl"):
            if (file := str(query.get(name, _SYSTEM))) != _SYSTEM:
                context.load_verify_locations(cafile=file)
        if "sslcert" in query:
            name = "sslcert"
            password = query.get("sslpassword", "")
            key = str(query["sslkey"]) if "sslkey" in query else None
            context.load_cert_chain(str(query[name]), key, str(password))
    except (ssl.SSLError, OSError):
        what = {"sslcrl": "revocation list", "sslcert": "certificate with its key"}
        raise ConfigurationError(
            f"`database_url`: {name} names a file that holds no {what.get(name, 'certificate')} "
            "that can be read"
        ) from None


def _hosts_with_ports(query: dict[str, str | Sequence[str]]) -> dict[str, str | Sequence[str]]:
    """Give each of several hosts its port, as SQLAlchemy has them: `host=h1:5432&host=h2:5433`."""
    host = query.get("host")
    hosts = host.split(",") if isinstance(host, str) else [*(host or ())]
    if len(hosts) < 2:
        return query
    ports = str(query.pop("port", "5432")).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise ConfigurationError("`database_url`: as many ports as hosts, or one port for all")
    if any(one.startswith("[") or one.count(":") > 1 for one in hosts):
        raise ConfigurationError(
            "`database_url`: of several hosts none is an IPv6 address: name it"
        )
    pairs = zip(hosts, ports, strict=True)
    query["host"] = tuple(one if ":" in one else f"{one}:{port}" for one, port in pairs)
    return query


def asyncpg_arguments(query: Query) -> dict[str, Any]:
    """Return what asyncpg is to be called with, of checked parameters; hosts and names apart."""
    arguments: dict[str, Any] = {}
    tls = {name: str(query[name]) for name in _TLS & query.keys()}
    if tls.get("sslrootcert") == _SYSTEM:
        arguments["ssl"] = ssl.create_default_context()
        tls.pop("sslrootcert")
    elif "ssl" in query:
        arguments["ssl"] = query["ssl"]
    if tls:  # it takes these from a URL of libpq's only
        arguments["dsn"] = f"postgresql://?{urlencode(tls)}"
    for name in ("timeout", "command_timeout"):
        if name in query and float(str(query[name])):  # libpq's 0 is "not said"
            arguments[name] = float(str(query[name]))
    if "direct_tls" in query:
        arguments["direct_tls"] = query["direct_tls"] == "true"
    arguments |= {name: int(str(query[name])) for name in _WHOLE & query.keys()}
    kept = ("passfile", "krbsrvname", "gsslib", "target_session_attrs")
    return arguments | {name: query[name] for name in kept if name in query}


def psycopg_query(query: Query) -> dict[str, str | Sequence[str]]:
    """Return checked parameters in libpq's words, as far as it has them."""
    names = {theirs: name for name, theirs in _LIBPQ_NAMES.items() if not name.startswith("fall")}
    found = {names.get(n, n): v for n, v in query.items() if n not in _ASYNCPG_ALONE}
    if found.pop("direct_tls", "false") == "true":
        found["sslnegotiation"] = "direct"
    return found
