"""How a cluster is named: by its scheduler, or by how many workers it is to have here."""

from __future__ import annotations

import re

_LOCAL = re.compile(r"local:([1-9]\d{0,2})")
_REMOTE = re.compile(r"(tcp|tls|ws|wss)://[^\s/@]+:\d{1,5}")


def cluster_address(value: str) -> str:
    """Return the value if it can name a cluster; else `ValueError`."""
    if not _LOCAL.fullmatch(value) and not _REMOTE.fullmatch(value):
        raise ValueError(
            "a cluster is its scheduler, tcp://HOST:PORT or tls://HOST:PORT, or local:N"
        )
    return value


def local_workers(address: str) -> int:
    """Return how many workers a cluster has that we start on this machine; 0: it is there."""
    local = _LOCAL.fullmatch(address)
    return int(local[1]) if local else 0
