"""Tokens and sessions: known by their hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping

# A working day: a browser's cookie is no token.
SESSION_SECONDS = 12 * 3600.0
_MOST_SESSIONS = 1000


def new_token() -> str:
    """Return a token of 256 random bits: a hash without salt or work tells nothing of it."""
    return f"al_{secrets.token_urlsafe(32)}"


def hashed(secret: str) -> str:
    """Return what is kept of a token."""
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


class Tokens:
    """Who may ask: the tokens of the configuration, and the sessions that they opened."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = dict(hashes)
        self._sessions: dict[str, tuple[str, float]] = {}

    @property
    def are_needed(self) -> bool:
        """Whether anybody without one is refused."""
        return bool(self._hashes)

    def owner_of(self, token: str) -> str | None:
        """Return whose token it is; every one is compared, in constant time."""
        found = None
        given = hashed(token)
        for name, known in self._hashes.items():
            if hmac.compare_digest(given, known):
                found = name
        return found

    def open_session(self, owner: str) -> str:
        """Return the secret of a new session."""
        now = time.monotonic()
        living = {k: v for k, v in self._sessions.items() if v[1] > now}
        self._sessions = dict(list(living.items())[-_MOST_SESSIONS + 1 :])
        secret = secrets.token_urlsafe(32)
        self._sessions[hashed(secret)] = (owner, now + SESSION_SECONDS)
        return secret

    def session_of(self, secret: str) -> str | None:
        """Return whose session it is. Looked up by a hash, which tells no part of a secret."""
        owner, until = self._sessions.get(hashed(secret), (None, 0.0))
        return owner if until > time.monotonic() else None

    def close_session(self, secret: str) -> None:
        """Forget a session."""
        self._sessions.pop(hashed(secret), None)
