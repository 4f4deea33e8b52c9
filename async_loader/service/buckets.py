"""Token buckets (Turner 1986): so much at once, and so much a second, from each client."""

from __future__ import annotations

import math
import time
from collections import OrderedDict

_MOST_CLIENTS = 10_000


class Buckets:
    """Each client may take `rate` a second, and `most` at once (as many, unless told)."""

    def __init__(self, rate: float, most: float | None = None) -> None:
        self._rate = rate
        self._most = max(rate, 1.0) if most is None else most
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Return whether a client may take one more now."""
        now = time.monotonic()
        left, seen = self._left.pop(client, (self._most, now))
        left = min(self._most, left + (now - seen) * self._rate)
        self._left[client] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return left >= 1 or math.isinf(self._rate)
