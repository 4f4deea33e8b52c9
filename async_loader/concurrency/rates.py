"""Rates as people write them."""

from __future__ import annotations

import re

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|m|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_rate(text: str) -> float:
    """Return operations a second for `500/s`, `30/m` or `10/h`; else `ValueError`."""
    match = _RATE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise ValueError("a rate looks like 500/s, 30/m or 10/h, and is above 0")
    return float(match[1]) / _SECONDS[match[2]]
