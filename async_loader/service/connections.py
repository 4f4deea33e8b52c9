"""Which connections there are, and which of them gives way to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from typing import Protocol

# One address leaves a fifth of all to others, but may always have so many.
_FEWEST_BY_ADDRESS = 10


class Connection(Protocol):
    """A client's connection."""

    @property
    def address(self) -> str:
        """The client's address."""
        ...

    def abort(self) -> None:
        """Cut it."""
        ...


class Connections:
    """
    So many at most, from one address four fifths of them; `exempt` addresses are of proxies.

    Each operation takes constant time, but for looking for a silent one of a single address.
    """

    def __init__(self, most: int, exempt: Container[str] = ()) -> None:
        self._most = most
        self._most_by_address = max(most - most // 5, min(most, _FEWEST_BY_ADDRESS))
        self._exempt = exempt
        self._all: set[Connection] = set()
        self._by_address: Counter[str] = Counter()
        self._silent: dict[Connection, None] = {}  # the one that is so for longest first

    def __len__(self) -> int:
        return len(self._all)

    def enter(self, connection: Connection) -> bool:
        """Let one in, another one out where there are too many; False: there is no room."""
        address = connection.address
        is_many = self._by_address[address] >= self._most_by_address
        if is_many and address not in self._exempt and not self._cut_silent_of(address):
            return False
        if len(self._all) >= self._most and not self._cut(next(iter(self._silent), None)):
            return False
        self._all.add(connection)
        self._by_address[address] += 1
        self._silent[connection] = None
        return True

    def silent(self, connection: Connection) -> None:
        """Note that one waits for its client; one that does so already keeps its place."""
        if connection in self._all:
            self._silent.setdefault(connection)

    def busy(self, connection: Connection) -> None:
        """Note that one is answered."""
        self._silent.pop(connection, None)

    def leave(self, connection: Connection) -> None:
        """Count one no more; again, it does nothing."""
        self._silent.pop(connection, None)
        if connection in self._all:
            self._all.discard(connection)
            self._by_address[connection.address] -= 1
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    def _cut_silent_of(self, address: str) -> bool:
        return self._cut(next((one for one in self._silent if one.address == address), None))

    def _cut(self, connection: Connection | None) -> bool:
        if connection is None:
            return False
        self.leave(connection)
        connection.abort()
        return True
