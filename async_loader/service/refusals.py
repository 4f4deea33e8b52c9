"""Tokens that are not known: slowed down, and counted before they are written down."""

from __future__ import annotations

import asyncio
from collections import Counter

from .buckets import Buckets
from .history import NO_HISTORY, History
from .problems import Problem

# Somebody who mistypes has these; who guesses has no use for them.
_AT_ONCE = 10
_A_SECOND = 0.1
_WRITE_EVERY = 60.0
_MOST_ADDRESSES = 1000


class Refusals:
    """Whose tokens were refused since the last row of the audit, which has one a minute."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._buckets = Buckets(_A_SECOND, _AT_ONCE)
        self._clients: Counter[str] = Counter()
        self._some = asyncio.Event()

    def note(self, client: str) -> None:
        """Count one; raises `Problem` for a client that has had its share of them."""
        known = client in self._clients or len(self._clients) < _MOST_ADDRESSES
        self._clients[client if known else "others"] += 1
        self._some.set()
        if not self._buckets.take(client):
            wait = {"Retry-After": str(round(1 / _A_SECOND))}
            raise Problem(429, "too many tokens that are not known", headers=wait)

    async def keep(self) -> None:
        """Write down what there is, the first at once, until cancelled."""
        while True:
            await self._some.wait()
            await self.write()
            await asyncio.sleep(_WRITE_EVERY)

    async def write(self) -> None:
        """Write down what was counted, if anything was; a history that is away gets it later."""
        if not self._clients:
            return
        clients, self._clients = self._clients, Counter()
        self._some.clear()
        ((first, _),) = clients.most_common(1)
        others = f" and {len(clients) - 1} others" if len(clients) > 1 else ""
        detail = f"{clients.total()} times, from {first}{others}"
        try:
            await self._history.note("nobody", "login refused", detail=detail)
        except NO_HISTORY:
            self._clients += clients
            self._some.set()
