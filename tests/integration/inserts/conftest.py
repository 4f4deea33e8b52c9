"""What the tests of batched inserts share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def light_heap() -> Iterator[None]:
    """Let collections pass by what all tests before have imported, which takes a second each."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
