"""What goes to a cluster and must not be read in passing: calls hold a database's password."""

from __future__ import annotations

import pickle
from typing import Any


class OpaquePickle:
    """
    A value, pickled; neither it nor anything in it is in the text of this.

    Dask writes the arguments of a task into logs, and may show them in its dashboard.
    """

    __slots__ = ("_content",)

    def __init__(self, value: Any) -> None:
        self._content = pickle.dumps(value)

    def load(self) -> Any:
        """Return the value."""
        return pickle.loads(self._content)  # noqa: S301  from whoever may run any code here

    def __repr__(self) -> str:
        return "OpaquePickle(...)"
